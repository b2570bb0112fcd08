"""Tables of genes in files: orthologs, and other names of genes."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from stalign._settings import logger
from stalign._validate import message
from stalign.core.gene_names import spoiled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EARLIER, _SYMBOL = ("alias", "earlier", "old", "prev", "name"), ("symbol", "new", "approved")
_HGNC = ("symbol", "alias_symbol", "prev_symbol", "status")


def read_orthologs(path: str | Path, columns: Sequence[str] = ()) -> dict[str, str]:
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
    table = _read(Path(path).expanduser(), "orthologs")
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


def read_aliases(path: str | Path) -> dict[str, str]:
    """Read a table of other names of genes: HGNC's complete set, or two columns.

    Parameters
    ----------
    path
        TSV or CSV with a header, gzipped or not: HGNC's columns `symbol`, `alias_symbol`, `prev_symbol` and `status`;
        or a column of other names and one of symbols, told by their headers (such as `alias` and `symbol`, `old` and
        `new`), or the only two there are, in this order.

    Returns
    -------
    The symbol that each name stands for. A name of two genes is left out, which the log says.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no table, the columns cannot be told, or a symbol is a date that a spreadsheet made of one.
    """
    path = Path(path).expanduser()
    table = _read(path, "other names of genes")
    if set(_HGNC) <= set(table.columns):
        return _hgnc(table)
    earlier, symbol = (_named(table, words) for words in (_EARLIER, _SYMBOL))
    if not earlier or not symbol or earlier == symbol:
        if table.shape[1] != 2:
            hint = "Name them `alias` and `symbol`"
            expected = f"Expected a column of other names and one of symbols in {str(path)!r}"
            raise ValueError(message(expected, available=table.columns, hint=hint))
        earlier, symbol = table.columns
    pairs = table[[earlier, symbol]].dropna().drop_duplicates()
    dates = spoiled(pairs[symbol])
    if dates:
        found = f"{len(dates)} dates, such as {dates[0]}"
        hint = "A spreadsheet made them of symbols: write the file anew, with these columns as text"
        raise ValueError(
            message(f"Expected symbols of genes in column {symbol!r} of {str(path)!r}", found=found, hint=hint)
        )
    return _one_gene_each(pairs.set_axis(["name", "symbol"], axis=1))


def aliases_of(given: Mapping[str, str] | str | os.PathLike[str] | None) -> Mapping[str, str] | None:
    """Get other names of genes from what a user gave: a mapping, or the file of a table."""
    return read_aliases(Path(given)) if isinstance(given, str | os.PathLike) else given


def _read(path: Path, what: str) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(message(f"Expected a table of {what}", found=f"no file {str(path)!r}"))
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig") as file
        ):
            sep = max(",\t;", key=file.readline().count)
        return pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8-sig")
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(message(f"Expected a table of {what} in {str(path)!r}", found=str(error))) from error


def _hgnc(table: pd.DataFrame) -> dict[str, str]:
    """Names of HGNC's complete set; what once was an approved symbol goes before what is an alias alone."""
    table = table[table["status"] == "Approved"]
    approved = set(table["symbol"])
    out: dict[str, str] = {}
    for column in ("alias_symbol", "prev_symbol"):  # the later column's names replace those of the first
        names = table[["symbol", column]].dropna()
        pairs = names.assign(name=names[column].str.split("|")).explode("name")[["name", "symbol"]]
        pairs["name"] = pairs["name"].str.strip()
        pairs = pairs[~pairs["name"].isin(approved) & (pairs["name"] != "")].drop_duplicates()
        later = set(pairs["name"])
        out = {name: symbol for name, symbol in out.items() if name not in later}
        out |= _one_gene_each(pairs, kind=column)
    return out


def _one_gene_each(pairs: pd.DataFrame, kind: str = "names") -> dict[str, str]:
    """Names with one symbol; the others are counted in the log, as nobody can tell which gene is meant."""
    several = pairs["name"].duplicated(keep=False)
    if several.any():
        names = list(dict.fromkeys(pairs.loc[several, "name"]))
        shown = ", ".join(names[:3])
        logger.warning(
            "%d of the %s stand for more than one gene and are left out, such as %s.", len(names), kind, shown
        )
    return dict(zip(pairs.loc[~several, "name"], pairs.loc[~several, "symbol"], strict=True))


def _named(table: pd.DataFrame, words: Sequence[str]) -> str:
    named = [c for c in table.columns if any(word in c.casefold().split("_") for word in words)]
    return named[0] if len(named) == 1 else ""


def _symbol_column(table: pd.DataFrame, species: str) -> str:
    named = [c for c in table.columns if species in c.casefold()]
    return next((c for c in named if "symbol" in c.casefold()), named[0] if len(named) == 1 else "")
