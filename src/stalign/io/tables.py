"""Tables in text files: separated by commas, tabs or semicolons, with or without a byte order mark, gzipped or not."""

from __future__ import annotations

import csv
import gzip
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._settings import logger
from stalign._validate import message
from stalign.io._files import AGAIN, content, is_gzip, read_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


def read_table(file: Path, **options: Any) -> pd.DataFrame:
    """Read a table whose first line is a header.

    Parameters
    ----------
    file
        The file.
    options
        Passed to `pandas.read_csv`.

    Returns
    -------
    The table.

    Raises
    ------
    ValueError
        If the file is empty or no table in UTF-8 or UTF-16; the message names it.
    """
    with read_errors("a table in UTF-8 or UTF-16", file):
        packed = is_gzip(file)
        with gzip.open(file) if packed else file.open("rb") as handle:
            line = handle.readline(1 << 16)
        encoding = _encoding(line)
        sep = _separator(line.decode(encoding, errors="ignore"))
        return pd.read_csv(file, sep=sep, encoding=encoding, compression="gzip" if packed else None, **options)


def read_rows(file: Path) -> list[list[str]]:
    """Read the cells of a small table without spaces around them, header included; blank lines are left out."""
    with read_errors("a table in UTF-8 or UTF-16", file):
        found = content(file)
        lines = found.decode(_encoding(found)).splitlines()
        rows = csv.reader(lines, delimiter=_separator(lines[0] if lines else ""), skipinitialspace=True)
        return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]


def _encoding(start: bytes) -> str:
    return "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _separator(line: str) -> str:
    return max(",\t;", key=line.count)


def numeric(
    table: pd.DataFrame, columns: Sequence[str], file: Path, *, required: NDArray[np.bool_] | None = None
) -> pd.DataFrame:
    """Convert columns to float, or say which row has no number; without `required` rows, blank cells are NaN."""
    converted = {name: pd.to_numeric(table[name], errors="coerce").astype(np.float64) for name in columns}
    for name, values in converted.items():
        blank = table[name].isna() | table[name].astype(str).str.strip().str.lower().isin(["", "nan", "na"])
        wrong = ~np.isfinite(values.to_numpy()) & (~blank.to_numpy() if required is None else required)
        if wrong.any():
            row = int(wrong.argmax())
            found = "nothing" if blank.iloc[row] else repr(str(table[name].iloc[row]))
            raise ValueError(
                message(
                    f"Expected a number in column {name!r} of {file} for spot {table.index[row]!r}",
                    found=f"{found}; so in {int(wrong.sum())} rows",
                    hint="Write numbers with a decimal point there, or take the spots out of the file",
                )
            )
    return pd.DataFrame(converted, index=table.index)


def one_row_each(table: pd.DataFrame, file: Path) -> pd.DataFrame:
    """Drop rows that repeat another, or say which spot has rows that differ."""
    repeated = table.assign(_spot=table.index).duplicated().to_numpy()
    table = table[~repeated]
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()].unique()
        raise ValueError(
            message(
                f"Expected one row per spot in {file}",
                found=f"{len(twice)} spots with repeated names and different rows",
                available=twice,
                hint="Delete the rows that are wrong",
            )
        )
    if repeated.any():
        logger.warning("%d rows of %s repeat others and are left out.", int(repeated.sum()), file)
    return table


def empty(what: str, file: Path) -> ValueError:
    """Make the error for a file without rows."""
    return ValueError(message(f"Expected {what} in {file}", found="an empty table", hint=AGAIN))
