"""Wall time of each call while other processes hold all cores, on the threads that it chooses and on one, as Markdown.

    python benchmarks/threads.py --section "mob rep1" --out benchmarks/results/threads.md

Each side runs in a process of its own, warm, the median of some repetitions. `--free` leaves the cores free.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from real import SECTIONS, data_root


def _busy() -> None:
    while True:
        sum(range(10_000))


def calls(name: str, repeats: int) -> dict[str, float]:
    """Median seconds of each call on a section."""
    import stalign

    stalign.settings.verbosity, stalign.settings.show_progress = "error", False
    real = next(section for section in SECTIONS if section.name == name)
    adata = real.read(data_root())
    counts = {"total_counts": real.total_counts, "gene_key": real.gene_key}
    adata.obs["some"] = adata.obs[real.truth].where(adata.obs.groupby(real.truth, observed=True).cumcount() < 10)
    steps = {
        "`tl.embed`": lambda: stalign.tl.embed(adata, **counts),
        "`tl.domains`": lambda: stalign.tl.domains(adata, real.n_domains),
        "`tl.domains`, Leiden": lambda: stalign.tl.domains(adata, "leiden"),
        "`tl.score`": lambda: stalign.tl.score(adata, real.truth),
        "`tl.annotate`": lambda: stalign.tl.annotate(adata, "some"),
        "`tl.suggest`": lambda: stalign.tl.suggest(adata, 10, truth="some"),
    }
    stalign.tl.embed(adata, **counts)
    if "X_stalign_image" in adata.obsm:  # not the DLPFC, whose images are too coarse
        steps["`tl.predict_genes`"] = lambda: stalign.tl.predict_genes(adata, genes=50)
    out = {}
    for step, call in steps.items():
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        out[step] = statistics.median(seconds[1:])
    return out


def measured(section: str, repeats: int, threads: int | None) -> dict[str, float]:
    """Run `calls` in a process of its own."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    given = {} if threads is None else dict.fromkeys(names, str(threads))
    env = {key: value for key, value in os.environ.items() if key not in names} | given
    command = [sys.executable, __file__, "--section", section, "--repeats", str(repeats), "--child"]
    return json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout.splitlines()[-1]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", default="mob rep1", choices=[section.name for section in SECTIONS])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--free", action="store_true", help="leave the cores free")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(calls(given.section, given.repeats)))
        return
    cores = os.cpu_count() or 1
    others = [] if given.free else [multiprocessing.Process(target=_busy, daemon=True) for _ in range(cores)]
    for one in others:
        one.start()
    chosen, single = (measured(given.section, given.repeats, threads) for threads in (None, 1))
    for one in others:
        one.terminate()
    lines = [
        f"`{given.section}`, {cores} cores, {len(others)} other busy processes, load {os.getloadavg()[0]:.1f}; "
        f"seconds, medians of {given.repeats}.",
        "",
        "| call | threads as chosen | one thread | ratio |",
        "|---|---:|---:|---:|",
        *(
            f"| {step} | {chosen[step]:.2f} | {single[step]:.2f} | {chosen[step] / single[step]:.2f} |"
            for step in chosen
        ),
    ]
    text = "\n".join(lines)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
