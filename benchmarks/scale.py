"""CPU seconds and memory of each step on simulated bins of Visium HD, and how they grow, as Markdown.

    python benchmarks/scale.py --bins 5000 50000 500000

Bins of 8 µm, 200 genes each, over a lazy tissue image. Each size runs in a process of its own, on the number of threads
that `--threads` says. CPU seconds are those of all threads; they depend less than those on the wall on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

_GENES_PER_BIN = 200
_BIN_UM = 8.0
N_DOMAINS = 6


def bins(n: int, genes: list[str], mpp: float = 0.5) -> AnnData:
    """Simulate n bins on a square grid, in bands that differ in genes and in colour; the image has `mpp` µm per px."""
    import dask.array as da
    from anndata import AnnData
    from scipy import sparse

    from stalign._constants import Keys

    rng = np.random.default_rng(0)
    width = int(np.ceil(np.sqrt(n)))
    row, column = np.divmod(np.arange(n), width)
    domain = (N_DOMAINS * row) // (row.max() + 1)
    # every bin reads 200 different genes, spread over all of them, from a place that its band shares
    start = domain * (len(genes) // N_DOMAINS) + rng.integers(0, len(genes) // 4, n)
    steps = np.sort(rng.choice(len(genes) // 2, _GENES_PER_BIN, replace=False)).astype(np.int32)
    indices = ((start[:, None].astype(np.int32) + steps) % len(genes)).ravel()
    counts = rng.integers(1, 4, n * _GENES_PER_BIN, dtype=np.int8).astype(np.float32)
    indptr = np.arange(n + 1, dtype=np.int64 if n * _GENES_PER_BIN > 2**31 - 1 else np.int32) * _GENES_PER_BIN
    matrix = sparse.csr_matrix((counts, indices, indptr), shape=(n, len(genes)))
    matrix.sort_indices()
    side = int(width * _BIN_UM / mpp)
    tone = da.from_array(np.linspace(90, 190, side).astype(np.uint8)[:, None, None], chunks=(1024, 1, 1))
    image = tone + da.random.default_rng(0).integers(0, 64, (side, side, 3), dtype=np.uint8, chunks=(1024, 1024, 3))
    factors = {"tissue_hires_scalef": 1.0, "microns_per_pixel": mpp, "bin_size_um": _BIN_UM}
    obs = pd.DataFrame({"domain": pd.Categorical(domain.astype(str))}, index=pd.RangeIndex(n).astype(str))
    adata = AnnData(matrix, obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    adata.obsm[Keys.SPATIAL] = (np.column_stack([column, row]) + 0.5) * _BIN_UM / mpp
    adata.uns[Keys.UNS_SPATIAL] = {"bins": {"images": {"hires": image}, "scalefactors": factors, "metadata": {}}}
    return adata


class Meter:
    """CPU and wall seconds of each step, and the largest resident memory while it ran, in GB."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, float, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        done, peak = threading.Event(), [resident()]

        def watch() -> None:
            while not done.wait(0.05):
                peak[0] = max(peak[0], resident())

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        start, worked = time.perf_counter(), time.process_time()
        yield
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        done.set()
        watcher.join()
        self.steps[name] = (worked, seconds, max(peak[0], resident()))
        sys.stderr.write(f"  {name}: {worked:.1f} CPU s, {seconds:.1f} s, {self.steps[name][2]:.2f} GB\n")


def resident() -> float:
    """Return the resident memory of the process in GB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e9


def measure(
    n: int, weights: str, threads: int, mpp: float, *, image: bool, alone: str | None
) -> dict[str, tuple[float, float, float]]:
    """Take n bins through every step, or through the embedding of images alone at a precision."""
    import torch
    from matplotlib import pyplot as plt

    import stalign

    torch.set_num_threads(threads)
    stalign.settings.verbosity = "warning"
    stalign.settings.show_progress = False
    meter = Meter()
    checkpoint = stalign.models.load_weights(weights)
    with meter.step("make the data"):
        adata = bins(n, list(checkpoint.vocabulary), mpp)
    if alone:
        with meter.step(f"`tl.embed`, image and genes, {alone}, nothing before"):
            stalign.tl.embed(adata, checkpoint, precision=alone)
        return meter.steps
    with meter.step("`pp.niches`"):
        stalign.pp.niches(adata)
    with meter.step("`pp.patches`"):
        stalign.pp.patches(adata)
    with meter.step("`tl.embed`, genes"):
        stalign.tl.embed(adata, checkpoint, image=False)
    if image:
        with meter.step("`tl.embed`, image every 25 µm, and genes"):
            stalign.tl.embed(adata, checkpoint, image_step=25.0)
        with meter.step("`tl.embed`, image and genes"):
            stalign.tl.embed(adata, checkpoint)
    with meter.step("`tl.domains`"):
        stalign.tl.domains(adata, N_DOMAINS, refine=True)
    with meter.step("`tl.score`"):
        stalign.tl.score(adata, "domain")
    with meter.step("`pl.domains`"):
        plt.close(stalign.pl.domains(adata, truth="domain", show=False, return_fig=True))
    with meter.step("`pl.niches`"):
        plt.close(stalign.pl.niches(adata, show=False, return_fig=True))
    return meter.steps


def table(found: dict[int, dict[str, tuple[float, float, float]]]) -> str:
    """Lay out CPU seconds, memory and growth."""
    sizes = list(found)
    head = [f"{n:,} bins" for n in sizes] + [f"x {b / a:.3g}" for a, b in zip(sizes, sizes[1:], strict=False)]
    lines = ["| step | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    for name in found[sizes[0]]:
        runs = [found[n].get(name) for n in sizes]
        cells = ["–" if run is None else f"{run[0]:.1f} s, {run[2]:.2f} GB" for run in runs]
        for a, b in zip(runs, runs[1:], strict=False):
            cells.append("–" if a is None or b is None else f"{b[0] / max(a[0], 0.1):.1f}, {b[2] / a[2]:.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run every size in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bins", type=int, nargs="+", default=[5_000, 50_000, 500_000])
    parser.add_argument("--weights", default="stalign-mini")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mpp", type=float, default=0.5, help="µm per px of the image")
    parser.add_argument("--no-image", action="store_true", help="leave out the embedding of images")
    parser.add_argument("--alone", choices=["fp32", "bf16"], help="only `tl.embed` with image, at this precision")
    parser.add_argument("--out", type=Path, help="Markdown file to write to as well")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        steps = measure(
            options.one, options.weights, options.threads, options.mpp, image=not options.no_image, alone=options.alone
        )
        sys.stdout.write(json.dumps(steps))
        return
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(options.threads)
    found: dict[int, dict[str, Any]] = {}
    for n in options.bins:
        sys.stderr.write(f"{n:,} bins\n")
        command = [sys.executable, __file__, "--one", str(n), "--weights", options.weights]
        command += ["--threads", str(options.threads), "--mpp", str(options.mpp)]
        command += ["--no-image"] if options.no_image else []
        command += ["--alone", options.alone] if options.alone else []
        run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        found[n] = {name: tuple(values) for name, values in json.loads(run.stdout).items()}
    text = (
        f"CPU seconds and largest resident memory of the process while each step ran, on {options.threads} of "
        f"{os.cpu_count()} cores; the last columns are the growth of both.\n\n{table(found)}\n"
    )
    sys.stdout.write(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
