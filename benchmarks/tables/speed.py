"""Seconds and memory of this package and of other methods on one section, in one run."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

from benchmarks.cells import Cell, Missing
from benchmarks.features import weights_sha256
from benchmarks.sections import find
from benchmarks.tables.peers import LIMIT_S, measured, python_of, used, written
from benchmarks.tables.st_align_table1 import absent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.config import Config
    from benchmarks.sections import Section

TITLE = "Seconds and memory on one section"
NOTE = """\
Each method in a process of its own, as in the table of peers, from raw counts and positions to domains (`tl.embed`
from genes, `tl.domains` from what it wrote). Median of five runs in that process, or of as many as begin within a
minute, so that what a first run compiles or imports counts only where there is one. Seconds are elapsed ones without
reading files; GB is the largest resident memory while the method ran, of which libraries and the table itself are a
part; "times the baseline" is over the first row, measured in the same run. Load is that of the machine over the minute
before: with other work beside it, compare CPU seconds. scanpy's Leiden is run once, at a resolution of 1, with no
search for a number of domains."""
COMMAND = "python -m benchmarks run speed --peers banksy cellcharter"
PAGE = "speed"
ALONE = True
RATIOS = {"seconds": "times the baseline", "CPU seconds": "CPU, times the baseline"}
COLUMNS = ("seconds", "CPU seconds", "GB", *RATIOS.values(), "runs", "cores", "threads", "load")
BEST = "none"
ASKED = ("151673",)
RUNS = 5
CLOCK_S = 0.01  # in which CPU seconds are counted
_measured = lru_cache(maxsize=64)(measured)
BASELINE = "niche mean, PCA, one tied mixture"
METHODS = {  # the method, its steps, and whether it is told how many domains
    BASELINE: ("niche_mean", ("domains",), True),
    "`tl.embed`, from genes": ("stalign", ("embed",), True),
    "`tl.domains`": ("stalign", ("domains",), True),
    "`tl.embed` and `tl.domains`": ("stalign", ("embed", "domains"), True),
    "scanpy: PCA and Leiden": ("scanpy", ("domains",), False),
    "BANKSY": ("banksy", ("domains",), True),
    "CellCharter": ("cellcharter", ("domains",), True),
}
ROWS = tuple(METHODS)


def cells(config: Config) -> Iterator[Cell]:
    for name in config.slices or ASKED:
        try:
            section = find(name, config)
        except Missing as error:
            yield from (absent(row, "seconds", error, name) for row in METHODS)
            continue
        for row in METHODS:
            yield Cell(
                row, "seconds", lambda row=row, section=section: _compared(row, section, config), columns=COLUMNS,
                settings=section.name, weights=weights_of(row), data=section.sha256,
            )  # fmt: skip


def _compared(row: str, section: Section, config: Config) -> dict[tuple[str, str], float]:
    """One row: its seconds and memory, over those of the baseline in this run, and the state of the machine."""
    load, given = os.getloadavg()[0], (written(section, config.cache), section.n_domains, config)
    first, found = spent(BASELINE, *given), spent(row, *given)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    machine = {"cores": os.cpu_count() or 1, "threads": threads, "load": load}
    found |= {ratio: found[key] / max(first[key], CLOCK_S) for key, ratio in RATIOS.items()} | machine
    return {(column, section.name): found[column] for column in COLUMNS}


def spent(row: str, file: Path, n: int, config: Config, limit: int = LIMIT_S) -> dict[str, float]:
    """Seconds and memory of the steps of one row."""
    peer, steps, told = METHODS[row]
    given = peer, python_of(peer, config), file, n if told else 0
    found = _measured(*given, runs=RUNS, limit=config.limit or limit)[1]  # once for all rows of a method
    return {**used(found["steps"][step] for step in steps), "runs": found["runs"]}


def weights_of(row: str) -> str:
    """Hash of the weights that a row reads."""
    return weights_sha256("stalign-mini") if METHODS[row][0] == "stalign" else ""
