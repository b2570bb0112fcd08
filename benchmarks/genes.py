"""Genes from images, on sections and patients that were not fitted to: Pearson, and MSE over that of the mean.

python benchmarks/genes.py [--weights NAME_OR_FOLDER ...] [--seeds 3] [--genes 50] [--cache DIR] [--out DIR]

Every row goes through `tl.predict_genes`, by ridge, by retrieval (softmax of the nearest 100 reference spots) and by an
MLP or the default where named. Penalty, shrinkage and what else a call chooses is chosen on held-out sections or
regions of its own reference, which the predicted section has no part in; docs/slides.md says which constants of the
library were chosen on what. Seeds change regions and the MLP.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from image_sections import COLOUR, LITE0, add_colours, add_lite0, add_weights, read
from real import data_root

import stalign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

SMALL, LARGE, AROUND = f"{LITE0}_112um", f"{LITE0}_224um", f"{LITE0}_context"
ALL = [SMALL, LARGE, AROUND, COLOUR, f"{COLOUR}_context"]  # what the default reads
MODELS = ("ridge", "retrieval")


@dataclass(frozen=True)
class Task:
    """Sections to fit to and a section to predict."""

    name: str
    reference: tuple[str, ...]
    query: str


TASKS = (
    Task("her2st C2–C6 → B4 (other patient)", ("C2", "C3", "C4", "C5", "C6"), "B4"),
    Task("her2st C2–C6 → A1 (other patient, other scanner)", ("C2", "C3", "C4", "C5", "C6"), "A1"),
    Task("her2st C2–C5 → C6 (same patient)", ("C2", "C3", "C4", "C5"), "C6"),
    Task("mob rep1 → rep2", ("rep1",), "rep2"),
    Task("mob rep2 → rep1", ("rep2",), "rep1"),
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", nargs="*", default=["stalign-mini"])
    parser.add_argument("--genes", type=int, default=50, help="that many most variable genes of the reference")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="rows whose name holds this text")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "stalign-genes")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--name", default="genes", help="name of the files written")
    return parser.parse_args()


def methods(weights: dict[str, dict[str, str]]) -> Iterator[tuple[str, list[str] | None, Any]]:
    """Name the rows: features and model."""
    features = {"colours": [COLOUR]}
    for name, keys in weights.items():
        features |= {f"{name} image": [keys["image"]], f"{name} fused, from the image alone": [keys["fused"]]}
    features |= {
        "Lite0, 112 µm": [SMALL],
        "Lite0, 224 µm": [LARGE],
        "Lite0, both": [SMALL, LARGE],
        "Lite0, both, and context": [SMALL, LARGE, AROUND],
        "Lite0 and colours, with context": ALL,
    }
    for name, keys in features.items():
        yield from ((f"{name}; {model}", keys, model) for model in MODELS)
    yield "colours; MLP", [COLOUR], "mlp"
    yield "colours; kernel", [COLOUR], "kernel"
    yield "Lite0, both, and context; kernel", [SMALL, LARGE, AROUND], "kernel"
    yield "Lite0 and colours, with context; kernel", ALL, "kernel"
    yield "the same; mean of linear and kernel, of each source by itself (default)", None, "mean"


def row(task: str, method: str, var: pd.DataFrame, seed: int) -> dict[str, Any]:
    """Score one prediction."""
    kept = var[var["reliable"]]
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "genes": len(var),
        "pearson": var["pearson"].mean(),
        "mse": var["mse"].mean(),
        "mse_mean": var["mse_mean"].mean(),
        "ratio": var["mse"].mean() / var["mse_mean"].mean(),
        "worst_gene": (var["mse"] / var["mse_mean"]).max(),
        "negative": int((var["pearson"] < 0).sum()),
        "reliable": len(kept),
        "pearson_reliable": kept["pearson"].mean(),
        "negative_reliable": int((kept["pearson"] < 0).sum()),
        "covered": var["covered"].mean(),
    }


def main() -> None:
    args = arguments()
    stalign.settings.show_progress = False
    stalign.settings.verbosity = "error"
    stalign.settings.cache_dir = args.cache  # of the features that the default computes
    sections = read(data_root(), sorted({name for task in TASKS for name in (*task.reference, task.query)}))
    keys: dict[str, dict[str, str]] = {}
    for adata in sections.values():
        add_colours(adata, args.cache)
        add_lite0(adata, args.cache)
        keys = {Path(name).name: add_weights(adata, name, args.cache) for name in args.weights}
    rows = []
    for task in TASKS:
        query: AnnData = sections[task.query]
        reference = [sections[name] for name in task.reference]
        for method, features, model in methods(keys):
            if args.only and args.only not in method:
                continue
            drawn = model == "mlp" or len(reference) == 1  # held-out sections need no seed, regions do
            for seed in range(args.seeds if drawn else 1):
                found = stalign.tl.predict_genes(
                    query, reference, genes=args.genes, use_rep=features, model=model, random_state=seed,
                    patient_key="patient" if len(reference) > 1 else None,
                )  # fmt: skip
                rows.append(row(task.name, method, found.var, seed))
        table = pd.DataFrame(rows)
        shown = table[table["task"] == task.name].drop(columns=["task", "genes", "seed"])
        print(task.name, shown.groupby("method", sort=False).mean().round(3).to_string(), sep="\n", flush=True)
        write(table, args.out, args.name)


def write(table: pd.DataFrame, out: Path, stem: str) -> None:
    """Write the rows as CSV, and two tables of means over seeds as Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(out / f"{stem}.csv", index=False)
    grouped = table.groupby(["method", "task"], sort=False)
    mean, spread = grouped.mean(numeric_only=True), grouped["pearson"].std(ddof=0)
    order = list(dict.fromkeys(table["method"])), list(dict.fromkeys(table["task"]))
    best = {
        (at): f"{r.pearson:.2f}{f' ± {spread[at]:.2f}' if spread[at] >= 0.005 else ''} ({r.ratio:.2f})"
        for at, r in zip(mean.index, mean.itertuples(), strict=True)
    }
    told = {
        at: f"{r.reliable:.0f}; {r.negative_reliable:.0f} of {r.negative:.0f}; {r.covered:.2f}"
        for at, r in zip(mean.index, mean.itertuples(), strict=True)
    }
    n_genes, n_seeds = int(table["genes"].max()), table["seed"].nunique()
    lines = [
        f"Mean Pearson over the {n_genes} most variable genes of the reference, mean over {n_seeds} seeds (± their "
        "standard deviation from 0.01 up); in brackets the mean squared error over that of predicting the reference's "
        "mean.",
        "",
        *_markdown(best, *order),
        "",
        "How many of these genes are called reliable by the reference alone; how many of the reliable and of all genes "
        "have a negative Pearson; and the share of spots within their 90 % interval.",
        "",
        *_markdown(told, *order),
    ]
    (out / f"{stem}.md").write_text("\n".join(lines) + "\n")


def _markdown(cells: dict[tuple[str, str], str], methods: list[str], tasks: list[str]) -> list[str]:
    head = ["| " + " | ".join(["method", *tasks]) + " |", "|" + "---|" * (len(tasks) + 1)]
    return head + [
        "| " + " | ".join([name, *(cells.get((name, task), "–") for task in tasks)]) + " |" for name in methods
    ]


if __name__ == "__main__":
    main()
