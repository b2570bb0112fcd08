"""Names of genes that changed: earlier symbols, aliases, and names that a spreadsheet spoiled."""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DATE: Final = re.compile(r"\d{1,2}-(mar|sep|sept|dec)|(mar|sep|sept|dec)-\d{1,2}|\d{4}-\d\d-\d\d", re.IGNORECASE)
_SERIAL: Final = re.compile(r"(3[6-9]|4\d|5[0-4])\d{3}")  # days since 1900, from 1998 to 2050
_SPOILED: Final = 30  # genes of these families; more numbers than that are ids of another kind


@cache
def renamed() -> dict[str, str]:
    """Read the packaged table of genes that HGNC renamed.

    Returns
    -------
    The symbol that is approved today of each earlier one. No symbol is both.

    Examples
    --------
    >>> from stalign.core.gene_names import renamed
    >>> renamed()["SLC9A3R1"], renamed()["SEPT7"]
    ('NHERF1', 'SEPTIN7')
    """
    text = files("stalign.core").joinpath("renamed_genes.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {row[0]: row[1] for row in rows[1:]}


def other_names(places: Mapping[str, int], aliases: Mapping[str, str]) -> dict[str, int]:
    """Find names that are not in a vocabulary and stand for a gene that is.

    Parameters
    ----------
    places
        Position in the vocabulary of each name that it has.
    aliases
        Other names, each with the name that it stands for; they go before the packaged table.

    Returns
    -------
    Position of each of these names. Earlier and later symbols stand for each other; where the names of one gene are
    those of several genes of the vocabulary, nothing is chosen.
    """
    known = renamed()
    table = known | {name: known.get(symbol, symbol) for name, symbol in aliases.items()}
    same: dict[str, set[str]] = defaultdict(set)
    for name, symbol in table.items():
        same[symbol] |= {name, symbol}
    found: dict[str, int] = {}
    for symbol, names in same.items():
        there = {places[symbol]} if symbol in places else {places[name] for name in names if name in places}
        if len(there) == 1:
            found |= dict.fromkeys((name for name in names if name not in places), there.pop())
    direct = {name: places[symbol] for name, symbol in aliases.items() if symbol in places and name not in places}
    return found | direct


def spoiled(names: Iterable[str]) -> list[str]:
    """List names that a spreadsheet made of gene symbols: dates, and the numbers of days that stand for them.

    Parameters
    ----------
    names
        Names of genes.

    Returns
    -------
    Those of them, in order.

    Examples
    --------
    >>> from stalign.core.gene_names import spoiled
    >>> spoiled(["SNAP25", "1-Mar", "44256", "2-Sep", "HLA-A"])
    ['1-Mar', '44256', '2-Sep']
    """
    names = list(names)
    ids = sum(name.isdigit() for name in names) > _SPOILED
    return [name for name in names if _DATE.fullmatch(name) or (not ids and _SERIAL.fullmatch(name))]
