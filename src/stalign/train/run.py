"""A run before it starts: sections opened, network built, loaders and schedules wired."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign._validate import message, one_of
from stalign.models.branches import Features, TimmEncoder
from stalign.models.config import BRANCHES
from stalign.models.network import STAlign
from stalign.models.pretrained import start_from_pretrained
from stalign.models.run_files import as_record
from stalign.train.cache import hash_of
from stalign.train.callbacks import DIVERGED
from stalign.train.clusters import with_clusters
from stalign.train.config import resolve
from stalign.train.frozen import frozen_branches, weights_hash, with_features
from stalign.train.initial import genes_of, initial, start_from, warn_seen
from stalign.train.loaders import SpotData, make_sampler
from stalign.train.module import AlignModule
from stalign.train.placement import place
from stalign.train.slides import as_slides
from stalign.train.store import open_store
from stalign.train.trainer import Run
from stalign.train.validation import split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.models.config import LossConfig, ModelConfig
    from stalign.train.config import TrainConfig
    from stalign.train.hibio_data import SentenceData
    from stalign.train.hibio_module import HiBioModule
    from stalign.train.loaders import Split
    from stalign.train.placement import Placement
    from stalign.train.slides import Slide
    from stalign.train.store import SectionStore


@dataclass
class SectionRun(Run):
    """A run over sections.

    Parameters
    ----------
    config
        The configuration.
    store
        The sections.
    """

    module: AlignModule | HiBioModule
    data: SpotData | SentenceData
    config: TrainConfig
    store: SectionStore


def assemble(slides: Iterable[Any] | None, config: TrainConfig, shape: ModelConfig) -> SectionRun:
    """Open the sections and build the network of a run of ST-Align.

    Parameters
    ----------
    slides
        The sections, or None for those that the configuration names.
    config
        The run.
    shape
        The network's configuration.

    Returns
    -------
    The run.

    Raises
    ------
    ValueError
        If no section can be used, or training and validation cannot be told apart; see `split`.
    RuntimeError
        If a section cannot be read.
    """
    placement = place(config.run)  # Lightning says now what it does not know, not after all sections have been read
    data = config.data
    given = slides_of(slides, config)
    for branches in (data.encoders, data.features, *(slide.spec.features for slide in given)):
        for branch in branches:
            one_of(branch, BRANCHES, name="branch")
    weights = initial(config.model)
    genes = () if weights is None else genes_of(weights)
    store = open_store(given, data, shape.input, genes=genes, seed=config.seed, folder=Path(config.out) / "store")
    _check_features(store, shape)
    clusters = shape.loss.negatives == "cluster"
    if clusters:
        store.sections = [with_clusters(s, seed=config.seed) for s in store.sections]
    torch.manual_seed(config.seed)
    network = STAlign(shape, len(store.vocabulary.symbols))
    start_from_pretrained(network)
    init = None if weights is None else start_from(network, weights, store.vocabulary)
    content = store.fingerprint()
    frozen = frozen_branches(network)
    backbones = {branch: network.image_encoders[branch.removesuffix("_image")].backbone for branch in frozen}
    store.encoders |= {branch: weights_hash(backbone)[:16] for branch, backbone in backbones.items()}
    store.sections = [with_features(section, network, frozen) for section in store.sections]
    train, validation = split(store, data.validation, content)
    if weights is not None and validation is not None:
        warn_seen(weights, validation[0])
    more: dict[str, Any] = {"placement": placement, "clusters": clusters, "content": content, "init": init}
    return wire(config, store, network.train(), train, validation, **more)


def wire(
    config: TrainConfig,
    store: SectionStore,
    network: STAlign,
    train: Split,
    validation: Split | None,
    *,
    placement: Placement | None = None,
    loss: LossConfig | None = None,
    clusters: bool = False,
    content: list[list[Any]] | None = None,
    init: dict[str, Any] | None = None,
    advice: str = DIVERGED,
) -> SectionRun:
    """Put a network and its sections together to a run.

    Parameters
    ----------
    config
        The run.
    store
        The sections.
    network
        The network.
    train, validation
        Sections and positions of their spots.
    placement
        Where it takes place; None asks Lightning.
    loss
        Losses to train with; None takes those of the network's configuration.
    clusters
        Whether negatives come from other clusters of the same section.
    content
        What the sections hold, `store.fingerprint()`; None for what the store holds now.
    init
        What the network has of the weights that training starts from, `start_from`.
    advice
        What to do about a loss that is not finite.

    Returns
    -------
    The run.
    """
    if config.run.channels_last:
        for encoder in network.image_encoders.values():
            if not encoder.narrow:
                encoder.to(memory_format=torch.channels_last)
    placement = placement or place(config.run)
    world = placement.world_size
    per_epoch = make_sampler(train, config, world=world).steps_per_epoch
    steps = config.run.steps or max(1, round(config.run.epochs * per_epoch))
    meta = meta_of(config, train, **({"init": init} if init else {}))
    module = AlignModule(
        network,
        config.optim,
        steps=steps,
        warmup=round(config.optim.warmup_epochs * per_epoch),
        batch_size=config.sampler.batch_size * world,
        loss=loss,
        seed=config.seed,
        fingerprint={
            **fingerprint_of(config, store, content),
            "init": init and init["sha256"],
            "steps": steps,
            "processes": world,
        },
        advice=advice,
        weights=as_record(network, store.vocabulary.symbols, store.vocabulary.ensembl, meta),
    )
    data = SpotData(config, train, validation, steps=steps, clusters=clusters)
    records = records_of(config, store)
    return SectionRun(module, data, config.run, placement, per_epoch, config, store, records=records)


def _placed(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration whose paths are the same from every folder."""
    root = str(resolve(Path.cwd(), config.data.root))
    return replace(config, out=str(resolve(Path.cwd(), config.out)), data=replace(config.data, root=root)).to_dict()


def meta_of(config: TrainConfig, train: Split, **more: Any) -> dict[str, Any]:
    """Tell what the weights of a run say of themselves.

    Parameters
    ----------
    config
        The run.
    train
        Sections to train on, and the positions of their spots.
    more
        Further entries.
    """
    sections = [
        {"section": s.name, "donor": s.donor, "study": s.study, "spots": len(s.rows), "inputs": s.stratum}
        for s in train[0]
    ]
    recipe = config.to_dict()
    recipe.pop("out")
    for folder in ("root", "encoder_weights"):  # of this machine
        recipe["data"].pop(folder)
    card = {"name": config.name, "licence": config.card.licence, "description": config.card.description}
    return {**card, "training_data": sections, "recipe": recipe, **more}


def _check_features(store: SectionStore, shape: ModelConfig) -> None:
    """See that each branch gets what it reads in every section, before the first step."""
    for branch in BRANCHES:
        spec = getattr(shape, branch)
        width = spec.dim if isinstance(spec, Features) else spec.features if isinstance(spec, TimmEncoder) else None
        for section in store.sections:
            reader = section.reader
            given = reader.features.get(branch)
            there = reader.windows is not None if branch.endswith("image") else reader.expression is not None
            where = f"for `{branch}` in section {section.name!r}"
            untrained = isinstance(spec, TimmEncoder) and spec.frozen and not spec.weights
            if given is None and there and (isinstance(spec, Features) or untrained):
                hint = "Name an encoder in `data.encoders`, or give arrays in `features`"
                raise ValueError(message(f"Expected features {where}", found="none", hint=hint))
            if given is not None and given.shape[1] != width:
                expected = "no features" if width is None else f"features of width {width}"
                hint = f"Set `model.{branch} = {{ kind = 'features', dim = {given.shape[1]} }}`"
                raise ValueError(message(f"Expected {expected} {where}", found=f"width {given.shape[1]}", hint=hint))


def slides_of(slides: Iterable[Any] | None, config: TrainConfig) -> list[Slide]:
    """List the slides of a run.

    Parameters
    ----------
    slides
        As for `fit`; None for those that the configuration names.
    config
        The run.
    """
    from stalign.train.manifest import kept_slides

    data = config.data
    if slides is None:
        more = kept_slides(resolve(data.root, data.manifest)) if data.manifest else []
        slides = [*data.sections, *more]
    return as_slides(slides, root=data.root, features=data.features)


def fingerprint_of(config: TrainConfig, store: SectionStore, content: list[list[Any]] | None = None) -> dict[str, Any]:
    """Tell what a run has to have in common with the one that it goes on from: all but how and where it runs.

    Parameters
    ----------
    config
        The run.
    store
        Its sections.
    content
        What they hold, `store.fingerprint()`; None for what the store holds now.
    """
    kept = {k: v for k, v in config.to_dict().items() if k not in {"run", "out", "card"}}
    kept["data"] = {k: v for k, v in kept["data"].items() if k not in {"root", "workers", "store", "encoder_weights"}}
    return {
        "config": kept,
        "sections": store.fingerprint() if content is None else content,
        "vocabulary": hash_of([store.vocabulary.symbols, store.vocabulary.ensembl]),
        **({"encoders": store.encoders} if store.encoders else {}),
    }


def records_of(config: TrainConfig, store: SectionStore) -> dict[str, str]:
    """Return the texts that say what a run is, by file name.

    Parameters
    ----------
    config
        The run.
    store
        Its sections.
    """
    return {
        "manifest.csv": store.manifest().to_csv(index=False),
        "config.json": json.dumps(_placed(config), indent=1) + "\n",
    }
