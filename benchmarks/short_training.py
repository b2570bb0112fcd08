"""Short trainings of variants of `stalign-mini`, on sections that they are not scored on."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.cells import Cell, Missing
from benchmarks.config import Config
from benchmarks.real import IGNORED
from benchmarks.sections import find
from benchmarks.seen import seen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.sections import Section
    from stalign.models.checkpoint import Checkpoint

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "stalign-mini.toml"
HELD_OUT = ("A", "B", "mob-rep2")
NO_IMAGE = ("Br5292", "Perik-Zavodskii 2025", "D", "E", "F", "C1")  # of 151510 and the embryo, it is too coarse
BATCH = 128  # spots; half of the recipe's
GENES = ("mob rep1", "mob rep2")  # genes of the second are predicted from the image by the first
Changes = dict[str, Any]  # of fields of the network; of `loss` and `input`, of their fields


def _recipe(config: Config) -> tuple[Any, Any]:
    """The recipe of the packaged weights without what is scored, and the shape of its network."""
    from stalign.train.network_config import model_config
    from stalign.train.recipes import load_config

    recipe = load_config(CONFIG, overrides=[f"data.root={config.data}"])
    data = replace(recipe.data, exclude=(*recipe.data.exclude, *HELD_OUT, *NO_IMAGE), workers=0)
    run = replace(recipe.run, steps=config.steps, precision="32-true", tensorboard=False)  # on any CPU the same
    recipe = replace(recipe, data=data, run=run, sampler=replace(recipe.sampler, batch_size=BATCH))
    return recipe, model_config(recipe)


@lru_cache(maxsize=1)
def _store(data: Path, spec: Any) -> Any:
    """Sections with an image, read as the network of `spec` reads them."""
    from stalign.train.slides import as_slides
    from stalign.train.store import open_store

    recipe, _ = _recipe(Config(data=data))
    slides = as_slides(recipe.data.sections, root=data)
    return open_store(slides, recipe.data, spec, seed=recipe.seed)


def train(changes: Changes, seed: int, config: Config) -> Checkpoint:
    """Train one variant from scratch for `config.steps` steps, once for all tables."""
    return _trained(json.dumps(changes), seed, config.data, config.steps)


@lru_cache(maxsize=8)
def _trained(changes_json: str, seed: int, data: Path, steps: int) -> Checkpoint:
    import torch

    from stalign.models import STAlign
    from stalign.models.checkpoint import Checkpoint
    from stalign.train.run import wire
    from stalign.train.trainer import make_trainer, own_randomness

    with own_randomness(), tempfile.TemporaryDirectory() as folder:
        changes = json.loads(changes_json)
        recipe, base = _recipe(Config(data=data, steps=steps))
        parts = {key: replace(getattr(base, key), **changes[key]) for key in ("loss", "input") if key in changes}
        shape = replace(base, **{**changes, **parts})
        store = _store(data, shape.input)
        torch.manual_seed(seed)
        network = STAlign(shape, len(store.vocabulary.symbols))
        whole = store.sections, [section.rows for section in store.sections]
        run = wire(replace(recipe, seed=seed), store, network.train(), whole, None, content=[])  # is not resumed
        make_trainer(run, callbacks=[], loggers=[], out=Path(folder)).fit(run.module, datamodule=run.data)
        return Checkpoint(network.eval(), store.vocabulary.symbols, store.vocabulary.ensembl)


def variants(table: Mapping[str, Changes], asked: tuple[str, ...], seeds: range, config: Config) -> Iterator[Cell]:
    """Domains of sections, and genes of olfactory bulb rep2, by each variant, which is trained once for its cells."""
    settings = f"{config.steps} steps of {BATCH} spots"
    for row, changes in table.items():
        for seed in seeds:
            trained = partial(train, changes, seed, config)
            for name in asked:
                yield _cell(row, name, seed, settings, config, lambda s, trained=trained: _domains(s, trained()))
            yield _cell(
                row, GENES[1], seed, f"{settings}, genes", config, lambda s, trained=trained: _genes(trained(), config)
            )


def _cell(row: str, name: str, seed: int, settings: str, config: Config, score: Any) -> Cell:
    try:
        section = find(name, config)
        find(GENES[0], config)
    except Missing as error:
        reason = error

        def fail() -> dict[str, float]:
            raise reason

        return Cell(row, name, fail, seed, settings)
    return Cell(
        row, name, lambda: score(section), seed, settings, data=section.sha256,
        seen=seen(_training_data(), section.own_name, section.donor, section.study),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _training_data() -> list[dict[str, Any]]:
    """Studies of the sections that are trained on: no section or donor of those that are scored is among them."""
    return [{"study": "Andersson 2021"}, {"study": "Stahl 2016"}, {"study": "Parigi 2022"}]


def _embedded(section: Section, weights: Checkpoint) -> Any:
    import stalign

    return stalign.tl.embed(section.read(), weights, copy=True, **section.counts)


def _domains(section: Section, weights: Checkpoint) -> dict[str, float]:
    import stalign
    from stalign.core.clustering import GMM

    adata = _embedded(section, weights)
    key = next(k for k in ("X_stalign_fused", "X_stalign_gene", "X_stalign") if k in adata.obsm)
    found = {}
    for metric, rep in (("ARI", "X_stalign"), ("ARI, what was learned", key)):
        stalign.tl.domains(adata, GMM(section.n_domains), use_rep=rep)
        found[metric] = stalign.tl.score(adata, section.truth, ignore=IGNORED).iloc[-1]["ARI"]
    return found


def _genes(weights: Checkpoint, config: Config) -> dict[str, float]:
    import stalign

    reference, query = (_embedded(find(name, config), weights) for name in GENES)
    var = stalign.tl.predict_genes(query, reference, genes=config.genes, use_rep="X_stalign_image", model="ridge").var
    mse, level = var["mse"].mean(), var["mse_mean"].mean()
    return {"Pearson, genes": var["pearson"].mean(), "MSE, genes": mse, "MSE over that of the mean, genes": mse / level}
