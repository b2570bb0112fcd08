"""Seconds and memory of the same methods on simulated bins of Visium HD, and how they grow."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

import stalign
from benchmarks.cells import Cell, Missing, read
from benchmarks.scale import N_DOMAINS, bins
from benchmarks.tables.speed import METHODS, ROWS, spent, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pandas as pd

    from benchmarks.config import Config

__all__ = ["ROWS"]
TITLE = "Seconds and memory over bins"
LIMIT_S = 300
NOTE = f"""\
The methods of the table above on simulated bins of 8 µm (`benchmarks/scale.py`: six bands, 200 genes a bin of those
that `stalign-mini` knows), `--bins` sets the sizes. Medians as above, so of one run at the largest size. A method that
takes more than {LIMIT_S} s (`--limit`), or more than four fifths of the memory that is free, is ended. The exponent is
the slope of the logarithm of the value over that of the bins, over the sizes that are there: 1 is growth in
proportion."""
COMMAND = "python -m benchmarks run scale --peers banksy cellcharter --limit 3600"
PAGE = "speed"
ALONE = True
BEST = "none"
EXPONENT = "exponent"
METRICS = ("seconds", "CPU seconds", "GB")


def cells(config: Config) -> Iterator[Cell]:
    for n in config.bins:
        for row in METHODS:

            def compute(row: str = row, n: int = n) -> dict[str, float]:
                found = spent(row, written(n, config.cache), N_DOMAINS, config, limit=LIMIT_S)
                return {metric: found[metric] for metric in METRICS}

            yield Cell(row, _column(n), compute, weights=weights_of(row))
    table = read(config.out / "scale.csv")
    for row in METHODS:
        rows = table[(table["row"] == row) & table["column"].isin([_column(n) for n in config.bins])]
        values = hashlib.sha256(rows["value"].to_numpy().tobytes()).hexdigest()  # fitted anew where one has changed
        yield Cell(row, EXPONENT, lambda rows=rows: exponents(rows, config.bins), data=values)


def _column(n: int) -> str:
    return f"{n:,} bins"


def exponents(rows: pd.DataFrame, sizes: tuple[int, ...]) -> dict[str, float]:
    """Exponent of each metric over the sizes that have a value."""
    found = {}
    for metric in METRICS:
        there = rows[(rows["metric"] == metric) & rows["value"].notna()].set_index("column")["value"]
        points = [(n, there[_column(n)]) for n in sizes if _column(n) in there]
        if len(points) < 2:
            raise Missing("needs values at two sizes or more")
        found[metric] = float(np.polyfit(*np.log(points).T, 1)[0])
    return found


@lru_cache(maxsize=4)
def written(n: int, cache: Path) -> Path:
    """Write n simulated bins without their image."""
    file = cache / "peers" / f"bins-{n}.h5ad"
    if not file.is_file():
        adata = bins(n, list(stalign.models.load_weights("stalign-mini").vocabulary))
        adata.uns["spatial"]["bins"]["images"] = {}
        file.parent.mkdir(parents=True, exist_ok=True)
        adata.write_h5ad(file)
    return file
