"""The gene vocabulary of a run: the genes that most of its sections measure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._validate import message
from stalign.data import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@dataclass
class GeneCensus:
    """In how many tables, sections and spots a gene was found.

    Parameters
    ----------
    tables, sections, spots
        The counts.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.train.vocabulary import GeneCensus
    >>> census = GeneCensus()
    >>> census.add(["SNAP25", None, "MBP"], [np.array([5, 9, 0]), np.array([1, 2, 0])])
    >>> census.ranked()
    ['SNAP25']
    """

    tables: Counter[str] = field(default_factory=Counter)
    sections: Counter[str] = field(default_factory=Counter)
    spots: Counter[str] = field(default_factory=Counter)

    def add(self, symbols: Sequence[str | None], detected: Sequence[NDArray[np.integer]]) -> None:
        """Count the genes of a table.

        Parameters
        ----------
        symbols
            Human symbol of each gene of the table, (m,); None where there is none.
        detected
            Spots in which each gene has counts, (m,), for each section of the table.
        """
        seen: set[str] = set()
        for per_gene in detected:
            here: dict[str, int] = {}
            for index in np.flatnonzero(per_gene).tolist():
                symbol = symbols[index]
                if symbol is not None:
                    here[symbol] = here.get(symbol, 0) + int(per_gene[index])
            self.sections.update(here.keys())
            self.spots.update(here)
            seen |= here.keys()
        self.tables.update(seen)

    def ranked(self) -> list[str]:
        """Return the genes found, those in most tables, sections and spots first, then by name."""
        return sorted(self.tables, key=lambda g: (-self.tables[g], -self.sections[g], -self.spots[g], g))


def human_symbols(
    ids: Iterable[str], orthologs: Mapping[str, str] | None, by_ensembl: Mapping[str, str]
) -> list[str | None]:
    """Translate the gene names of a table.

    Parameters
    ----------
    ids
        Symbols or Ensembl ids.
    orthologs
        Human symbol of each gene of another species; None for a human table.
    by_ensembl
        Symbol of each Ensembl id.

    Returns
    -------
    The human symbol of each; None where it is not known.
    """
    out: list[str | None] = []
    for name in ids:
        name = name.strip()
        if orthologs is not None:
            out.append(orthologs.get(name))
        elif name.startswith("ENS") and name[-1:].isdigit():
            out.append(by_ensembl.get(name.split(".")[0]))
        else:
            out.append(name or None)
    return out


def read_gene_file(path: Path) -> list[tuple[str, str]]:
    """Read a file of further genes.

    Parameters
    ----------
    path
        One symbol a line, or a CSV or TSV (gzipped or not) with an Ensembl id and a symbol in its first two columns,
        in either order.

    Returns
    -------
    Symbol and Ensembl id, "" where there is none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty or no text.
    """
    if not path.is_file():
        raise FileNotFoundError(message("Expected a file of gene symbols", found=f"no file {str(path)!r}"))
    suffix = path.name.removesuffix(".gz")
    separator = "," if suffix.endswith(".csv") else "\t"
    try:
        table = pd.read_csv(path, sep=separator, header=None, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(message(f"Expected gene symbols in {str(path)!r}", found=str(error))) from error
    genes = []
    for row in table.itertuples(index=False):
        cells = [str(cell).strip() for cell in row[:2]]
        ensembl = next((c for c in cells if c.startswith("ENSG")), "")
        symbol = next((c for c in cells if c and c != ensembl), "")
        if symbol:
            genes.append((symbol, ensembl.split(".")[0]))
    return genes


def choose(census: GeneCensus, max_genes: int, extra: Sequence[tuple[str, str]] = ()) -> Vocabulary:
    """Choose the vocabulary.

    Parameters
    ----------
    census
        The genes found.
    max_genes
        How many at most.
    extra
        Further symbols with their Ensembl ids; they fill what the genes found leave free.

    Returns
    -------
    The vocabulary, sorted by name.

    Raises
    ------
    ValueError
        If no gene was found and none is given.
    """
    ensembl = dict(reversed(extra))
    chosen: dict[str, str] = {}  # by folded name, so that Snap25 and SNAP25 do not both get in
    for symbol in [*census.ranked(), *(name for name, _ in extra)]:
        if len(chosen) == max_genes:
            break
        chosen.setdefault(symbol.casefold(), symbol)
    if not chosen:
        raise ValueError(
            message("Expected genes with human symbols in at least one section", found="none", hint="Name `orthologs`")
        )
    symbols = tuple(sorted(chosen.values()))
    return Vocabulary(symbols, tuple(ensembl.get(s, "") for s in symbols) if ensembl else ())
