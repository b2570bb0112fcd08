"""HiBio-ST at mini size on sections that were not trained on: retrieval, genes, zero-shot layers, and ablations.

python benchmarks/hibio.py [--seeds 3] [--weights DIR] [--out DIR]

DIR holds weights as VARIANT/seed0, …; each that is missing is trained there, on the sections of configs/hibio-mini.toml
without her2st patients A and B, C5, C6 and olfactory bulb rep2. Retrieval: share of spots whose own sentence is among
the best 1, 5 and 10 % for their image, within the section; chance is these shares. Genes: 50 most variable of the
reference, by `tl.predict_genes` from image embeddings, Pearson. Zero-shot: HiBio-ST's protocol. C5 chose the default's
sentences, pooling and number of epochs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from image_sections import COLOUR, LITE0, add_colours, add_lite0, read
from real import data_root

import stalign
from stalign.data.gene_sets import read_gmt
from stalign.models import save
from stalign.train.hibio import wire
from stalign.train.loop import train
from stalign.train.network_config import model_config
from stalign.train.placement import place
from stalign.train.recipes import load_config
from stalign.train.run import slides_of
from stalign.train.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData

    from stalign.train.config import TrainConfig
    from stalign.train.store import SectionStore

HELD = ["A", "B", "C5", "C6", "mob-rep2"]
ASKED = {"her2st C5": "C5", "her2st C6": "C6", "her2st B4": "B4", "her2st A1": "A1", "mob rep2": "rep2"}
GENES = {
    "C2–C4 → C6": (("C2", "C3", "C4"), "C6"),
    "C2–C4 → B4": (("C2", "C3", "C4"), "B4"),
    "rep1 → rep2": (("rep1",), "rep2"),
}
LAYERS = {"mob rep2": ("rep2", "layer", 5), "her2st A1": ("A1", "label", 5)}
VARIANTS: dict[str, dict[str, Any]] = {
    "hibio-mini": {},
    "TF-IDF sentences": {"model": {"sentence": {"mode": "tfidf"}}},
    "HVG sentences": {"model": {"sentence": {"mode": "hvg"}}},
    "no pathway": {"loss": {"pathway": 0.0}},
    "no region": {"loss": {"region": 0.0}},
    "neither": {"loss": {"pathway": 0.0, "region": 0.0}},
    "pathway and region at 0.5": {"loss": {"pathway": 0.5, "region": 0.5}},
    "overlap 0.2": {"model": {"pathways": {"overlap": 0.2}}},
    "causal, read-out at [EOT]": {"model": {"text": {"causal": True, "pool": "eot"}}},
    **{f"{n} genes": {"model": {"sentence": {"length": n}, "text": {"context": n + 30}}} for n in (32, 100, 250, 500)},
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="variants whose name holds this text; other rows of the table stay")
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "stalign-hibio-held-out")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stalign-genes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


@dataclass
class Recipe:
    """The recipe of `hibio-mini` without the held-out sections, and the sections it reads."""

    config: TrainConfig
    store: SectionStore
    sets: dict[str, tuple[str, ...]]
    cache: Path

    @classmethod
    def open(cls, cache: Path) -> Recipe:
        """Read the sections, with the features of their images where an earlier run has kept them."""
        root = data_root()
        recipe = Path(__file__).resolve().parents[1] / "configs" / "hibio-mini.toml"
        config = load_config(recipe, [f"data.root={root}", "run.tensorboard=false"])
        config = replace(config, data=replace(config.data, exclude=(*config.data.exclude, *HELD)))
        store = open_store(slides_of(None, config), config.data, model_config(config).reading)
        store = replace(store, sections=[_from_disk(one, cache) for one in store.sections])
        return cls(config, store, read_gmt(root / "gene-sets" / "ReactomePathways.gmt"), cache)

    def train(self, changes: dict[str, Any], seed: int, out: Path) -> float:
        """Train a variant, write its weights, and return the seconds of training."""
        with tempfile.TemporaryDirectory() as folder:
            model = {**self.config.model, **changes.get("model", {})}
            own = replace(self.config, out=folder, seed=seed, model=model, loss=changes.get("loss", {}))
            start = time.perf_counter()
            ready = wire(own, model_config(own), self.store, place(own.run), sets=self.sets)
            run = train(lambda: ready, Path(folder))
            seconds = time.perf_counter() - start
        kept = [_kept(one, run.store.sections, self.cache) for one in self.store.sections]
        self.store = replace(self.store, sections=kept)
        save(out, run.module.network.eval(), vocabulary=run.store.vocabulary.symbols)
        return seconds


def trained(
    seeds: Sequence[int], only: str | None, weights: Path, cache: Path
) -> Iterator[tuple[str, int, Path, float]]:
    """Find or train each variant with each seed: its name, the seed, its weights, and the seconds if it was trained."""
    recipe: Recipe | None = None
    for name, changes in VARIANTS.items():
        if only and only not in name:
            continue
        for seed in seeds:
            out, seconds = weights / name.replace(" ", "-") / f"seed{seed}", np.nan
            if not out.is_dir():
                recipe = recipe or Recipe.open(cache)
                seconds = recipe.train(changes, seed, out)
            yield name, seed, out, seconds


def _kept(stored: Any, encoded: list[Any], cache: Path) -> Any:
    """Take the section with the features of its image, which all variants read, and keep them on disk."""
    found = next((one for one in encoded if one.name == stored.name), stored)
    file = cache / f"{stored.name}-hibio_features.npy"
    if found is not stored and "spot_image" in found.reader.features and not file.exists():
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, found.reader.features["spot_image"])
    return found


def _from_disk(stored: Any, cache: Path) -> Any:
    """Take the features of an image that an earlier run has kept."""
    file = cache / f"{stored.name}-hibio_features.npy"
    if stored.reader.modality != "both" or not file.exists():
        return stored
    features = {**stored.reader.features, "spot_image": np.load(file)}
    return replace(stored, reader=replace(stored.reader, features=features))


def scores(sections: dict[str, AnnData], keys: tuple[str, str] | None, rep: str) -> Iterator[tuple[str, str, float]]:
    """Task, column and value of one set of embeddings; `keys` are those of images and sentences."""
    for column, name in ASKED.items() if keys else ():
        recall = stalign.tl.retrieve(sections[name], use_rep=keys).attrs["recall"]
        yield from (("recall", f"{column}, {share}", value) for share, value in recall.items())
    for column, (reference, query) in GENES.items():
        for model in ("ridge", "retrieval"):
            found = stalign.tl.predict_genes(
                sections[query], [sections[name] for name in reference], genes=50, use_rep=rep, model=model
            )
            yield "genes", f"{column}, {model}", float(found.var["pearson"].mean())
    for column, (name, truth, k) in LAYERS.items():
        table = stalign.tl.zero_shot(sections[name], truth, use_rep=rep, n_domains=k)
        yield "zero-shot ARI", column, float(table["ARI"].iloc[0])
        yield "zero-shot ARI", f"{column}, smoothed", float(table["ARI_smoothed"].iloc[0])


def main() -> None:
    """Write the table."""
    given = arguments()
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    names = sorted({*ASKED.values(), *(name for reference, _ in GENES.values() for name in reference)})
    sections = read(data_root(), names)
    known = given.out / "hibio.csv"
    rows: list[dict[str, Any]] = []
    if given.only and known.exists():  # those of other variants stay
        before = pd.read_csv(known)
        rows = before[[given.only not in name for name in before["method"]]].to_dict("records")

    def note(method: str, seed: int, keys: tuple[str, str] | None, rep: str, seconds: float = np.nan) -> None:
        found = scores(sections, keys, rep)
        rows.extend({"method": method, "seed": seed, "task": t, "column": c, "value": v} for t, c, v in found)
        if seconds == seconds:  # trained in this run
            rows.append({"method": method, "seed": seed, "task": "seconds", "column": "training", "value": seconds})
        print(
            pd.DataFrame(rows).query("method == @method").groupby(["task", "column"])["value"].mean().round(3),
            flush=True,
        )

    for adata in sections.values():
        add_colours(adata, given.cache)
        add_lite0(adata, given.cache)
    if not given.only:
        note("colours", 0, None, COLOUR)
        note("Lite0, 112 µm", 0, None, f"{LITE0}_112um")
    for method, seed, weights, seconds in trained(range(given.seeds), given.only, given.weights, given.cache):
        for adata in sections.values():
            stalign.tl.encode(adata, "hibio", weights=weights, cache=False)
            stalign.tl.encode(adata, "hibio", weights=weights, modality="gene", cache=False)
        note(method, seed, ("X_hibio_native", "X_hibio-gene_spot"), "X_hibio_native", seconds)
        write(pd.DataFrame(rows), given.out)


def write(table: pd.DataFrame, out: Path) -> None:
    """Write the rows as CSV, and a table of means over seeds as Markdown for each task."""
    out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out / "hibio.csv", index=False)
    lines: list[str] = []
    for task, part in table[table["task"] != "seconds"].groupby("task", sort=False):
        grouped = part.groupby(["method", "column"], sort=False)["value"]
        mean, spread = grouped.mean().unstack(), grouped.std(ddof=0).where(grouped.count() > 1).unstack()
        columns = list(dict.fromkeys(part["column"]))
        lines += ["", f"| {task} | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
        for method in dict.fromkeys(part["method"]):
            cells = [f"{mean.loc[method, c]:.2f} ± {spread.loc[method, c]:.2f}" for c in columns]
            cells = [cell.replace("nan ± nan", "–").replace(" ± nan", "") for cell in cells]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
    (out / "hibio.md").write_text("\n".join(lines).strip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
