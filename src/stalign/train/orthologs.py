"""Tables of orthologs: the human symbol of each gene of another species."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pandas as pd

from stalign._validate import message

if TYPE_CHECKING:
    from pathlib import Path


def read_orthologs(path: Path, columns: tuple[str, ...] = ()) -> dict[str, str]:
    """Read a table of orthologs.

    Parameters
    ----------
    path
        TSV or CSV with a header, gzipped or not.
    columns
        Columns of the other species' symbol and the human one; empty to find them by name.

    Returns
    -------
    Human symbol of each symbol of the other species; of several the first in the table.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no table, or the columns cannot be told.
    """
    if not path.is_file():
        raise FileNotFoundError(message("Expected a table of orthologs", found=f"no file {str(path)!r}"))
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, comment=None)
    except (csv.Error, ValueError) as error:
        raise ValueError(message(f"Expected a table of orthologs in {str(path)!r}", found=str(error))) from error
    if len(columns) == 2:
        other, human = columns
    else:
        other, human = _symbol_column(table, "mouse"), _symbol_column(table, "human")
    if other not in table or human not in table:
        raise ValueError(
            message(
                f"Expected columns of symbols in {str(path)!r}",
                available=table.columns,
                hint='Name them in `ortholog_columns = ["other", "human"]`',
            )
        )
    pairs = table[[other, human]].dropna().drop_duplicates(other)
    return dict(zip(pairs[other], pairs[human], strict=True))


def _symbol_column(table: pd.DataFrame, species: str) -> str:
    named = [c for c in table.columns if species in c.casefold()]
    return next((c for c in named if "symbol" in c.casefold()), named[0] if len(named) == 1 else "")
