"""Elapsed seconds of `stalign embed` on a folder of sections: one after the other, and on workers of dask, as Markdown.

    python benchmarks/cohort.py --section "mob rep1" --sections 12

The folder holds as many copies of one section as asked for, the start of all processes is included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from real import SECTIONS, data_root


def embedded(folder: Path, options: list[str], processes: int = 1) -> tuple[float, float]:
    """Embed a folder of sections by one process or its parts by some; return elapsed and CPU seconds."""
    sections = sorted(folder.iterdir())
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "stalign", "embed", "--out", out, *options]
        start, before = time.perf_counter(), os.times()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        running = [subprocess.Popen([*command, *sections[i::processes]], **quiet) for i in range(processes)]
        failed = sum(abs(one.wait()) for one in running)
        seconds, after = time.perf_counter() - start, os.times()
        if failed or len(list(Path(out).iterdir())) < len(sections):
            raise SystemExit(f"{' '.join(command)} left sections out.")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, spent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", default="mob rep1", choices=[section.name for section in SECTIONS])
    parser.add_argument("--sections", type=int, default=12, help="copies of it")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    real = next(section for section in SECTIONS if section.name == given.section)
    options = [f"--total-counts={real.total_counts}"] if real.total_counts else []
    options += [f"--gene-key={real.gene_key}"] if real.gene_key else []
    ways: dict[str, tuple[list[str], int]] = {"one after the other": (options, 1)}
    ways |= {f"{n} processes, a part each": (options, n) for n in given.workers if n > 1}
    ways |= {f"`--dask {n}`": ([*options, f"--dask={n}"], 1) for n in given.workers}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        section = real.read(data_root())
        for number in range(given.sections):
            section.write_h5ad(Path(folder) / f"section-{number}.h5ad")
        for _ in range(given.repeats):
            for name, way in ways.items():
                found[name].append(embedded(Path(folder), *way))
    first = statistics.median(seconds for seconds, _ in found["one after the other"])
    lines = [
        f"{given.sections} copies of `{given.section}` ({section.n_obs} spots), {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end; medians of {given.repeats}.",
        "",
        "| way | seconds | CPU seconds | times as fast |",
        "|---|---:|---:|---:|",
    ]
    for name, runs in found.items():
        seconds, spent = (statistics.median(values) for values in zip(*runs, strict=True))
        lines.append(f"| {name} | {seconds:.1f} | {spent:.1f} | {first / seconds:.2f} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
