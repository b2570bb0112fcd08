"""HiBio-ST's four tasks and ablations in the rows and columns of its tables, with ours beside what is published.

python benchmarks/hibio_tasks.py FOLDER [--weights DIR] [--seeds 3] [--out DIR] [--tower]

FOLDER holds the real sections. DIR holds weights as VARIANT/seed0, …; what is missing is trained there, see hibio.py:
the recipe of `hibio-mini` without her2st patients A and B, C5, C6 and olfactory bulb rep2. Only these and the DLPFC are
scored. Published rows are of other sections and cannot be compared. `--tower` also trains the image tower on few spots.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hibio
import hibio_published as published
import numpy as np
import pandas as pd
from image_sections import COLOUR, LITE0, add_colours, add_lite0, add_towers, read
from real import SECTIONS

import stalign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

HELD = ("A1", "A2", "B4", "C5", "C6", "rep2")
HER2 = HELD[:-1]
FULL = "hibio-mini"
IMAGE, GENE = "X_hibio_image", "X_hibio_gene"
BASELINES = {COLOUR: "colours", f"{LITE0}_112um": "Lite0, 112 µm"}
RATIOS = (0.1, 0.25, 0.5)
STEPS = ("MSE", "MAE", "Pearson")
NO_BREAST, NO_KIDNEY = "no section with an image that was not trained on", "no kidney section in the shared data"
Rows = list[dict[str, Any]]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, default=Path(tempfile.gettempdir()) / "stalign-hibio-held-out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stalign-genes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--tower", action="store_true")
    parser.add_argument("--resume", action="store_true", help="keep the rows of a run that was stopped, and go on")
    parser.add_argument("--no-ablations", action="store_true", help="leave out the variants, each of which is trained")
    parser.add_argument("--no-dlpfc", action="store_true", help="leave out the layers of DLPFC, which take longest")
    return parser.parse_args()


def zero_shot(sections: dict[str, AnnData], layers: dict[str, AnnData], rep: str, seed: int) -> Iterator[tuple]:
    """Column, metric and value of the layers of each section."""
    there = [one for one in layers.values() if rep in one.obsm]
    tables = {"DLPFC": [stalign.tl.zero_shot(one, "layer", use_rep=rep, random_state=seed) for one in there]}
    her2 = stalign.tl.zero_shot(sections["A1"], "label", use_rep=rep, n_domains="labels", random_state=seed)
    tables["HER2"] = [her2]
    for column, parts in ((column, parts) for column, parts in tables.items() if parts):
        for metric in ("ARI", "NMI"):
            yield column, metric, np.mean([part[f"{metric}_smoothed"].iloc[0] for part in parts])
            yield f"{column} raw", metric, np.mean([part[metric].iloc[0] for part in parts])


def recall(sections: dict[str, AnnData], keys: tuple[str, str]) -> dict[str, list[pd.Series]]:
    """Recall, and chance, within each section."""
    found = {name: stalign.tl.retrieve(sections[name], use_rep=keys, n=1).attrs for name in HELD}
    columns = {"HER2": HER2, "olfactory bulb": ("rep2",)}
    return {c: [pd.DataFrame([found[n][kind] for n in names]).mean() for kind in ("recall", "chance")]
            for c, names in columns.items()}  # fmt: skip


def prediction(joined: AnnData, model: Any, rep: str, ratios: Any, seed: int) -> pd.DataFrame:
    """Scores by the protocol, held-out patients, for each share of the training spots."""
    options: dict[str, Any] = {"sample_key": "patient", "library_key": "section", "folds": 3, "seeds": seed}
    return stalign.tl.few_shot(joined, ratios, model=model, use_rep=rep, **options)


def main() -> None:
    """Write tables and rows."""
    given = arguments()
    os.environ["STALIGN_TEST_DATA"] = str(given.folder)
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    sections = read(given.folder, HELD)
    layers = {real.name: real.read(given.folder) for real in SECTIONS if real.file.startswith("dlpfc")}
    layers = {} if given.no_dlpfc else layers
    rows: Rows = []
    curves: list[pd.DataFrame] = []
    if given.resume:
        rows = pd.read_csv(given.out / "hibio-tasks.csv").to_dict("records")
        curves = [pd.read_csv(given.out / "hibio-few-shot.csv")]
    done = {(row["table"], row["row"], row["seed"]) for row in rows}

    def note(table: str, row: str, column: str, metric: str, seed: int, value: float) -> None:
        rows.append({"table": table, "row": row, "column": column, "metric": metric, "seed": seed, "value": value})

    def predicted(row: str, joined: AnnData, model: Any, rep: str, seed: int, ratios: Any = 1.0) -> None:
        found = prediction(joined, model, rep, ratios, seed)
        curves.append(found.assign(use_rep=rep, row=np.where(found["model"] == "training mean", "training mean", row)))
        if ratios == 1.0:
            for name, part in curves[-1].groupby("row"):
                for metric, key in zip(STEPS, ("mse", "mae", "pearson"), strict=True):
                    note("prediction", name, "HER2", metric, seed, part[key].mean())

    def full(seed: int, weights: Path, joined: AnnData, clusters: list[tuple], found: Any) -> None:
        for column, metric, value in clusters:
            note("zero-shot", FULL, column, metric, seed, value)
        for column, shares in found.items():
            for row, share in zip((FULL, "Random"), shares, strict=True):
                for name in share.index:
                    note("recall", row, column, name, seed, 100 * share[name])
        for weighting, row in (("mean", "100 nearest"), ("softmax", "100 nearest, softmax")):
            model = stalign.tl.Retrieval(100, weights=weighting, match=GENE)
            predicted(f"{FULL}, {row}", joined, model, IMAGE, seed)
        for ratios in (1.0, RATIOS):
            predicted(f"{FULL}, ridge", joined, "linear", IMAGE, seed, ratios)
            predicted(f"{FULL}, SGD", joined, stalign.tl.SGD(), IMAGE, seed, ratios)
        if given.tower:
            trained = stalign.tl.SGD(tower=str(weights))
            predicted(f"{FULL}, SGD with the tower", joined, trained, IMAGE, seed, RATIOS[:1])

    for adata in (*sections.values(), *layers.values()):
        add_colours(adata, given.cache)
    for adata in sections.values():
        add_lite0(adata, given.cache)
    joined = together(sections)
    for rep, row in BASELINES.items():
        if ("zero-shot", row, 0) in done:
            continue
        for column, metric, value in zero_shot(sections, layers, rep, 0):
            note("zero-shot", row, column, metric, 0, value)
        predicted(row, joined, "linear", rep, 0)
        for seed in range(given.seeds):
            predicted(row, joined, "linear", rep, seed, RATIOS)
    where = given.weights, given.cache
    runs = [hibio.trained(range(given.seeds), FULL, *where)]
    if not given.no_ablations:
        runs += [hibio.trained([seed], None, *where) for seed in range(given.seeds)]
    for variant, seed, weights, _ in itertools.chain(*runs):
        if ("ablations", variant, seed) in done:
            continue
        done.add(("ablations", variant, seed))
        for adata in sections.values():
            add_towers(adata, weights, given.cache)
        for adata in layers.values():
            add_towers(adata, weights, given.cache, genes=False)
        joined = together(sections)
        clusters = list(zero_shot(sections, layers, IMAGE, seed))
        found = recall(sections, (IMAGE, GENE))
        nearest = prediction(joined, stalign.tl.Retrieval(100, weights="mean", match=GENE), IMAGE, 1.0, seed)
        own = nearest[nearest["model"] != "training mean"]
        for metric, key in zip(STEPS, ("mse", "mae", "pearson"), strict=True):
            note("ablations", variant, "HER2 MSE/MAE/Pearson", metric, seed, own[key].mean())
        for column, (share, _) in found.items():
            for name in share.index:
                note("ablations", variant, f"{column} recall", name, seed, 100 * share[name])
        for column, metric, value in clusters:
            if not column.endswith("raw"):
                note("ablations", variant, column, metric, seed, value)
        if variant == FULL:
            full(seed, weights, joined, clusters, found)
        write(pd.DataFrame(rows), pd.concat(curves), given.out)
        print(f"{variant}, seed {seed}", flush=True)


def together(sections: dict[str, AnnData]) -> AnnData:
    """Put the sections of her2st into one table, with patient and section in obs, and their images."""
    import anndata

    parts = [sections[name] for name in HER2]
    joined = anndata.concat(parts, index_unique="-", keys=list(HER2), merge="same")
    joined.uns["spatial"] = {name: sections[name].uns["spatial"][name] for name in HER2}
    return joined


def write(table: pd.DataFrame, curves: pd.DataFrame, out: Path) -> None:
    """Write all rows as CSV and the tables as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out / "hibio-tasks.csv", index=False)
    curves.round(4).to_csv(out / "hibio-few-shot.csv", index=False)
    folds = curves[["fold", "samples", "n_test"]].drop_duplicates("fold").sort_values("fold")
    folds.to_csv(out / "hibio-folds.csv", index=False)
    own: dict[str, Any] = {name: _cells(part) for name, part in table.groupby("table")}
    none = f"{NO_BREAST} / {NO_KIDNEY}"
    layers = "151673, 151675, 151510" if (table["column"] == "DLPFC").any() else "not run"
    zero = f"Zero-shot layers, ARI/NMI with the vote; raw: without. Ours: DLPFC {layers}; HER2 A1"
    pred = f"300 genes, MSE/MAE/Pearson. Ours: HER2 A1, A2, B4, C5, C6, three folds by patient. Breast, Kidney: {none}"
    text = [
        *_table(zero, published.ZERO_SHOT, own["zero-shot"], extra=("HER2 raw",)),
        *_table(pred, published.PREDICTION, own["prediction"]),
        *_table(f"Recall at 1/5/10 % in %, pool: the section. Breast, Kidney: {none}", published.RECALL, own["recall"],
                extra=("HER2", "olfactory bulb")),
        *_few_shot(curves),
        *_table("Ablations. Ours: hibio-mini has 64 genes by count and overlap 0.1; genes by the 100 nearest",
                published.ABLATIONS, own["ablations"], extra=("HER2", "HER2 recall", "olfactory bulb recall")),
        *_table("Visium HD, as published; ours: no public section with image and counts in the shared data",
                published.HD, {}),
    ]  # fmt: skip
    (out / "hibio-tasks.md").write_text("\n".join(text).strip() + "\n", encoding="utf-8")


def _cells(part: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Mean and spread over seeds of each cell, its metrics divided by slashes."""
    cells: dict[str, dict[str, str]] = {}
    for (row, column), values in part.groupby(["row", "column"], sort=False):
        grouped = values.groupby("metric", sort=False)["value"]
        digits = 1 if "%" in str(values["metric"].iloc[0]) else 3
        mean, spread = grouped.mean(), grouped.std(ddof=0)
        cells.setdefault(row, {})[column] = "/".join(f"{m:.{digits}f}" for m in mean) + (
            " ± " + "/".join(f"{s:.{digits}f}" for s in spread) if values["seed"].nunique() > 1 else ""
        )
    return cells


def _table(title: str, known: Any, own: dict[str, dict[str, str]], extra: tuple[str, ...] = ()) -> list[str]:
    """One table: rows as published, then ours."""
    columns, rows = known
    head = [*columns, *extra]
    lines = ["", f"**{title}**", "", "| | " + " | ".join(head) + " |", "|" + "---|" * (len(head) + 1)]
    lines += [f"| {name}, published, not comparable | " + " | ".join([*cells, *["–"] * len(extra)]) + " |"
              for name, cells in rows.items()]  # fmt: skip
    return lines + [f"| {name} | " + " | ".join(cells.get(c, "–") for c in head) + " |" for name, cells in own.items()]


def _few_shot(curves: pd.DataFrame) -> list[str]:
    """Table of the shares of training spots; the paper has curves only."""
    part = curves[curves["ratio"] < 1]
    ratios = sorted(part["ratio"].unique())
    lines = ["", "**Few-shot prediction of 300 genes, MSE/MAE/Pearson; HER2 as above, published as curves only**", ""]
    lines += ["| | " + " | ".join(f"{ratio:.0%}" for ratio in ratios) + " |", "|" + "---|" * (len(ratios) + 1)]
    for name in dict.fromkeys(part["row"]):
        cells = []
        for ratio in ratios:
            own = part[(part["row"] == name) & (part["ratio"] == ratio)]
            seeds = own.groupby("seed")[["mse", "mae", "pearson"]].mean()
            mean, spread = seeds.mean(), seeds.std(ddof=0)
            some = "/".join(f"{v:.3f}" for v in mean)
            some += " ± " + "/".join(f"{v:.3f}" for v in spread) if len(seeds) > 1 else ""
            cells.append(some if len(own) else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
