"""A run over tables."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from unittest.mock import patch

import stalign
from benchmarks.cells import Results
from benchmarks.report import write_report
from benchmarks.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.config import Config

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run(names: Sequence[str], config: Config) -> None:
    """Compute the cells of tables that are not there, some tables at the same time, and write the report."""
    alone = [name for name in names if config.jobs == 1 or getattr(table(name), "ALONE", False)]
    together = [name for name in names if name not in alone]
    if together:
        threads = str(max(1, (os.cpu_count() or 1) // config.jobs))
        with patch.dict(os.environ, dict.fromkeys(THREADS, threads)):
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(config.jobs, mp_context=context, max_tasks_per_child=1) as pool:
                list(pool.map(partial(compute, config=config), together))
    for name in alone:
        compute(name, config)
    print(f"Report: {write_report(config.out)}")


def compute(name: str, config: Config) -> None:
    """Compute the cells of a table that are not there."""
    results = Results(name, config.out)
    start, n, kept = time.perf_counter(), 0, 0
    missing: set[tuple[str, str, str]] = set()
    given = {"show_progress": False, "verbosity": "error", "offline": not config.download, "cache_dir": config.cache}
    with stalign.settings.override(**given):
        for cell in table(name).cells(config):
            if config.only not in cell.row or (cell.row, cell.column, cell.settings) in missing:
                continue
            if results.has(cell):
                kept += 1
                continue
            reason = results.run(cell)
            n += 1
            if reason:
                missing.add((cell.row, cell.column, cell.settings))
            print(f"{name}: {cell.row} | {cell.column} | seed {cell.seed}: {reason or 'done'}", flush=True)
    seconds = time.perf_counter() - start
    print(
        f"{name}: {n - len(missing)} cells computed, {kept} kept, {len(missing)} missing, {seconds:.0f} s.", flush=True
    )
