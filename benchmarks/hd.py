"""Visium HD: domains and genes by what they are read from, on made tissue, and what half a million bins cost.

python benchmarks/hd.py [--sizes 10000 50000 200000 500000] [--seeds 3] [--out FOLDER]

Quality: sections of six domains with other widths, gaps, depth and seeds than those that stalign was developed with,
painted with real H&E where the data folder is there. The same cells are counted in bins of 2 µm (summed to 8 and 16), 8
and 16 µm, and per cell. All methods have the same mixture (`GMM(6)` on 15 components); `before` is what stalign did
until then: the Gaussian cut to the 64 nearest bins, niches of whatever sum, windows of one bin.

Cost: CPU seconds and the largest resident memory of each step, one process for each size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from hd_tissue import FIRST_SEED, made
from real import data_root
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score

import stalign
from stalign.core.expression import normalise
from stalign.core.gaussian import gaussian_mean
from stalign.core.niches import nearest, niche_graph
from stalign.core.refine import majority_vote, ring_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

KINDS = ("16 µm", "cells", "8 µm", "2 µm, summed to 16 µm", "2 µm, summed to 8 µm")
SIGMAS = (20.0, 40.0, 80.0)  # µm
STEPS = (12.5, 25.0, 50.0)  # µm
DOMAINS = 6
RESULTS = Path(__file__).parent / "results"


def cut(adata: AnnData, rep: str, starts: int) -> tuple[float, float]:
    """ARI of the domains, as they come and refined."""
    stalign.tl.domains(adata, stalign.tl.GMM(DOMAINS, n_init=starts), use_rep=rep)
    labels = adata.obs["stalign_domain"].cat.codes.to_numpy(dtype=np.intp)
    refined = majority_vote(labels, ring_graph(adata.obsm["spatial"]), passes=1)  # as `refine=True` does
    truth, known = adata.obs["domain"].astype(str).to_numpy(), labels >= 0
    return adjusted_rand_score(truth[known], labels[known]), adjusted_rand_score(truth[known], refined[known])


def nearest_64(coords: np.ndarray, sigma: float, *, members: np.ndarray) -> sparse.csr_matrix:
    """The Gaussian as it was until then: over the 64 nearest spots with counts."""
    from scipy.spatial import KDTree

    columns = np.flatnonzero(members)
    distance, index = KDTree(coords[columns]).query(coords, k=min(64, len(columns)))
    weights = np.exp(-np.square(distance / sigma) / 2)
    weights /= weights.sum(axis=1, keepdims=True)
    rows = np.repeat(np.arange(len(coords)), weights.shape[1])
    shape = len(coords), len(coords)
    return sparse.csr_matrix((weights.ravel().astype(np.float32), (rows, columns[index.ravel()])), shape=shape)


def before(adata: AnnData, weights: Any, *, image: bool) -> AnnData:
    """Embed a copy as until then."""
    from stalign.data import expression
    from stalign.data.section import Section

    now = expression.gaussian_mean, Section.smaller_than
    width = float(np.median(adata.obs["width_um"]))
    expression.gaussian_mean = nearest_64
    Section.smaller_than = lambda _section, _um: False  # niches keep their sums
    try:
        return stalign.tl.embed(adata, weights, image=image, spot_window=width, niche_window=3 * width, copy=True)
    finally:
        expression.gaussian_mean, Section.smaller_than = now


def plain(adata: AnnData) -> dict[str, np.ndarray]:
    """Expression averaged without a network, by what averages it."""
    counts = sparse.csr_matrix(adata.X, dtype=np.float32)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    values = normalise(counts, totals).toarray()
    coords = adata.obsm["spatial"] * 0.5
    means = {f"Gaussian mean, {s:g} µm": gaussian_mean(coords, s, members=totals > 0) @ values for s in SIGMAS}
    means |= {f"{name}, one sum": scaled(mean) for name, mean in means.items()}
    means["mean of a bin and the 3 nearest"] = niche_graph(nearest(coords, 3)) @ values
    return {name: PCA(15, random_state=0).fit_transform(mean) for name, mean in means.items()}


def scaled(means: np.ndarray) -> np.ndarray:
    sums = means.sum(axis=1, keepdims=True)
    return means * np.where(sums > 0, np.median(sums[sums > 0]) / np.maximum(sums, 1e-9), 1)


def domains(adata: AnnData, weights: Any, starts: int, add: Callable[..., None]) -> None:
    """Cut one section by every method."""
    for name, values in plain(adata).items():
        adata.obsm["X_plain"] = values.astype(np.float32)
        add(name, *cut(adata, "X_plain", starts))
    add("before, genes", *cut(before(adata, weights, image=False), "X_stalign", starts))
    old = before(adata, weights, image=True)
    add("before, image", *cut(old, "X_stalign_image", starts))
    add("before, both", *cut(old, "X_stalign", starts))
    stalign.tl.embed(adata, weights, image=False)
    add("stalign, genes", *cut(adata, "X_stalign", starts))
    start = time.process_time()
    stalign.tl.embed(adata, weights)
    seconds = time.process_time() - start
    add("stalign, image", *cut(adata, "X_stalign_image", starts))
    add("stalign, both", *cut(adata, "X_stalign", starts), seconds=seconds)
    exact = {key: adata.obsm[key].copy() for key in ("X_stalign_image", "X_stalign")}
    for step in STEPS if adata.n_obs < 2000 else STEPS[1:2]:
        start = time.process_time()
        stalign.tl.embed(adata, weights, image_step=step)
        seconds = time.process_time() - start
        for key, what in (("X_stalign_image", "image"), ("X_stalign", "both")):
            facts = difference(exact[key], adata.obsm[key])
            ari = cut(adata, key, starts) if step == STEPS[1] else (np.nan, np.nan)
            add(f"stalign, {what}, every {step:g} µm", *ari, seconds=seconds, **facts)


def difference(exact: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Root mean square error over the standard deviation of the exact embedding, and the correlation."""
    known = np.isfinite(exact).all(axis=1)
    centre = exact[known].mean(axis=0)
    a, b = exact[known] - centre, found[known] - centre
    error = np.sqrt(np.square(a - b).sum() / np.square(a).sum())
    return {"error": float(error), "r": float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))}


def genes(adata: AnnData, add: Callable[..., None]) -> None:
    """Predict genes from windows of the trained size and of one bin."""
    width = float(np.median(adata.obs["width_um"]))
    default = stalign.tl.ImageFeatures().windows
    for name, windows in (("trained windows", default), ("windows of one bin", (width, 3 * width))):
        start = time.process_time()
        found = stalign.tl.predict_genes(adata, genes=50, use_rep=stalign.tl.ImageFeatures(windows=windows))
        pearson = float(np.nanmean(found.var["pearson"]))
        add(f"genes, {name}", pearson=pearson, seconds=time.process_time() - start)


def _add(
    rows: list[dict[str, Any]],
    file: Path,
    seed: int,
    kind: str,
    method: str,
    ari: float = np.nan,
    refined: float = np.nan,
    **more: float,
) -> None:
    """Keep a measurement."""
    rows.append({"seed": seed, "bins": kind, "method": method, "ari": ari, "refined": refined, **more})
    pd.DataFrame(rows).to_csv(file, index=False, float_format="%.4f")
    print(seed, kind, method, *(f"{value:.3f}" for value in (ari, refined, *more.values())), flush=True)


def quality(seeds: range, side: float, starts: int, kinds: list[str], file: Path, *, with_genes: bool) -> None:
    """Measure all kinds of bins, and keep what is done after each method."""
    import tempfile

    try:
        root: Path | None = data_root()
    except SystemExit:
        root = None
    weights = stalign.models.load_weights("stalign-mini")
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for kind in kinds:
            adata = made(kind, seed, side, root)
            width = 10.0 if kind == "cells" else float(kind.split()[-2])
            adata.obs["width_um"] = width
            if kind == "cells":
                adata.uns["spatial"]["toy_hd"]["scalefactors"]["spot_diameter_fullres"] = width / 0.5

            add = partial(_add, rows, file, seed, kind)
            domains(adata, weights, starts, add)
            if kind == "16 µm" and with_genes:
                with tempfile.TemporaryDirectory() as folder, stalign.settings.override(cache_dir=folder):
                    genes(adata, add)


def steps(n: int, images: int) -> dict[str, tuple[float, float, float]]:
    """Take n bins through every step: CPU seconds, seconds and GB. Images are left out of more than `images` bins."""
    import torch
    from matplotlib import pyplot as plt
    from scale import Meter, bins

    torch.set_num_threads(1)
    stalign.settings.verbosity = "warning"
    stalign.settings.show_progress = False
    meter = Meter()
    weights = stalign.models.load_weights("stalign-mini")
    with meter.step("make the data"):
        adata = bins(n, list(weights.vocabulary))
    with meter.step("`pp.niches`"):
        stalign.pp.niches(adata)
    with meter.step("`tl.embed`, genes"):
        stalign.tl.embed(adata, weights, image=False)
    with meter.step("`tl.domains`"):
        stalign.tl.domains(adata, DOMAINS, refine=True)
    with meter.step("`pl.domains`"):
        plt.close(stalign.pl.domains(adata, show=False, return_fig=True))
    few = adata[:, :2].copy()
    few.X = np.log1p(few.X.toarray())
    with meter.step("`pl.genes`"):
        plt.close(stalign.pl.genes(few, list(few.var_names), show=False, return_fig=True))
    with meter.step("`pl.embedding`"):
        plt.close(stalign.pl.embedding(adata, show=False, return_fig=True))
    if n <= images:
        with meter.step("`tl.embed`, image every 25 µm"):
            stalign.tl.embed(adata, weights, image_step=25.0)
        with meter.step("`tl.embed`, image of each bin"):
            stalign.tl.embed(adata, weights)
    return meter.steps


def cost(sizes: list[int], images: int) -> pd.DataFrame:
    """Measure each size in a process of its own."""
    rows = []
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    for n in sizes:
        run = subprocess.run(
            [sys.executable, __file__, "--one", str(n), "--images", str(images)],
            env=environment,
            stdout=subprocess.PIPE,
            check=True,
        )
        for step, (worked, seconds, memory) in json.loads(run.stdout).items():
            rows.append({"bins": n, "step": step, "cpu_s": worked, "seconds": seconds, "gb": memory})
    return pd.DataFrame(rows)


def spelled(mean: float, spread: float) -> str:
    return "" if not np.isfinite(mean) else f"{mean:.2f} ± {spread:.2f}" if np.isfinite(spread) else f"{mean:.2f}"


def markdown(found: pd.DataFrame, value: str, kinds: list[str]) -> list[str]:
    """One value of all methods and bins: mean and standard deviation over the seeds."""
    grouped = found.dropna(subset=[value]).groupby(["method", "bins"], sort=False)[value]
    mean, spread = grouped.mean(), grouped.std()
    lines = ["| method | " + " | ".join(kinds) + " |", "|---|" + "---|" * len(kinds)]
    for method in dict.fromkeys(mean.index.get_level_values("method")):
        cells = [spelled(mean.get((method, kind), np.nan), spread.get((method, kind), np.nan)) for kind in kinds]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return lines


def page(found: pd.DataFrame, costs: pd.DataFrame) -> str:
    """All tables."""
    lines = []
    if len(found):
        kinds = [kind for kind in KINDS if kind in set(found["bins"])]
        seeds = found["seed"].nunique()
        about = "Simulated cells and counts, the image painted with real H&E; parameters are not those of `toy_hd`."
        lines += [about, ""]
        where = f"mean ± standard deviation of {seeds} made section(s) (`benchmarks/hd.py`)"
        lines += [f"ARI of six domains, {where}:", "", *markdown(found, "ari", kinds), ""]
        lines += ["The same, refined:", "", *markdown(found, "refined", kinds), ""]
        for value, what in (
            ("error", "Root mean square error over the standard deviation of the embedding of each bin"),
            ("r", "Correlation with the embedding of each bin"),
            ("seconds", "CPU seconds"),
            ("pearson", "Mean Pearson of 50 genes"),
        ):
            if value in found and found[value].notna().any():
                lines += [f"{what}:", "", *markdown(found, value, kinds), ""]
    if len(costs):
        sizes = list(dict.fromkeys(costs["bins"]))
        lines += ["CPU seconds of one thread, and the largest resident memory while the step ran:", ""]
        lines += ["| step | " + " | ".join(f"{n:,} bins" for n in sizes) + " |", "|---|" + "---:|" * len(sizes)]
        table = costs.set_index(["step", "bins"])
        for step in dict.fromkeys(costs["step"]):
            there = [(step, n) in table.index for n in sizes]
            cells = [
                f"{table.loc[(step, n), 'cpu_s']:.1f} s, {table.loc[(step, n), 'gb']:.2f} GB" if known else "–"
                for n, known in zip(sizes, there, strict=True)
            ]
            lines.append(f"| {step} | " + " | ".join(cells) + " |")
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 50_000, 200_000, 500_000])
    parser.add_argument("--images", type=int, default=500_000, help="embed images of at most that many bins")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed; those below 100 are known")
    parser.add_argument("--no-genes", action="store_true", help="predict no genes, which takes longest")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--side", type=float, default=560.0, help="edge of a made section in µm")
    parser.add_argument("--starts", type=int, default=5, help="starts of each mixture")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        sys.stdout.write(json.dumps(steps(options.one, options.images)))
        return
    stalign.settings.show_progress = False
    stalign.settings.verbosity = "error"
    warnings.filterwarnings("ignore", "Expected niches of section")  # those of before are narrow
    options.out.mkdir(parents=True, exist_ok=True)
    measured, costs = options.out / "hd.csv", options.out / "hd-cost.csv"
    if options.seeds:
        seeds = range(options.first, options.first + options.seeds)
        quality(seeds, options.side, options.starts, options.kinds, measured, with_genes=not options.no_genes)
    if options.sizes:
        cost(options.sizes, options.images).to_csv(costs, index=False, float_format="%.3f")
    kept = [pd.read_csv(file) if file.is_file() else pd.DataFrame() for file in (measured, costs)]
    (options.out / "hd.md").write_text(page(*kept), encoding="utf-8")


if __name__ == "__main__":
    main()
