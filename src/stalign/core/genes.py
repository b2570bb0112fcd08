"""Gene names of a data set matched to a vocabulary: symbols, Ensembl ids, aliases and orthologs."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import sparse

from stalign._validate import message
from stalign.core.gene_names import other_names, renamed, spoiled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

_VERSIONED: Final = re.compile(r"(ENS[A-Z]*[GTP]\d{11})\.\d+(?:_PAR_Y)?", re.IGNORECASE)
_ENSEMBL: Final = re.compile(r"ENS([A-Z]*)[GTP]\d{11}", re.IGNORECASE)
_LOW_SHARE: Final = 0.3  # of the data's genes
_LOW_COUNT: Final = 200  # genes

# How a gene was found; of several genes with one target, those found in the best way are kept.
_EXACT, _ALIAS, _ORTHOLOG, _FOLDED = range(4)


def clean(ids: Iterable[object]) -> list[str]:
    """Strip whitespace, and the version of Ensembl ids.

    Parameters
    ----------
    ids
        Gene names.

    Returns
    -------
    The names, in order.

    Examples
    --------
    >>> from stalign.core.genes import clean
    >>> clean([" SNAP25", "ENSG00000132639.12", "RP11-34P13.7"])
    ['SNAP25', 'ENSG00000132639', 'RP11-34P13.7']
    """
    names = [str(name).strip() for name in ids]
    return [found[1] if (found := _VERSIONED.fullmatch(name)) else name for name in names]


def is_ensembl(name: str) -> bool:
    """Say whether a cleaned name is an Ensembl id, of any species.

    Parameters
    ----------
    name
        The name.

    Returns
    -------
    True for an Ensembl id.

    Examples
    --------
    >>> from stalign.core.genes import is_ensembl
    >>> is_ensembl("ENSMUSG00000027273"), is_ensembl("Snap25")
    (True, False)
    """
    return _ENSEMBL.fullmatch(name) is not None


@dataclass(frozen=True)
class GeneMatch:
    """Genes of a data set and their places in a vocabulary.

    Parameters
    ----------
    columns
        (m,) intp, positions of the matched genes in the data, ascending.
    targets
        (m,) intp, their positions in the vocabulary. A target can occur more than once.
    kind
        Whether most were matched as `symbol` or as `ensembl`.
    unmatched
        Names of the other genes of the data.
    shape
        Number of genes in the data and in the vocabulary.
    """

    columns: NDArray[np.intp]
    targets: NDArray[np.intp]
    kind: str
    unmatched: tuple[str, ...]
    shape: tuple[int, int]

    @property
    def n_matched(self) -> int:
        """Number of genes of the data that are in the vocabulary."""
        return len(self.columns)

    @property
    def n_targets(self) -> int:
        """Number of genes of the vocabulary that are in the data."""
        return len(np.unique(self.targets))

    @property
    def coverage(self) -> float:
        """Share of the data's genes that are in the vocabulary, 0 to 1."""
        return self.n_matched / self.shape[0]

    @property
    def vocabulary_coverage(self) -> float:
        """Share of the vocabulary's genes that are in the data, 0 to 1."""
        return self.n_targets / self.shape[1]

    @property
    def collapse(self) -> sparse.csr_matrix:
        """(n_data_genes, n_vocabulary) CSR float32 of ones: counts times this sums the genes that share a target."""
        ones = np.ones(self.n_matched, dtype=np.float32)
        return sparse.csr_matrix((ones, (self.columns, self.targets)), shape=self.shape)

    def summary(self) -> str:
        """Say in one line how many genes were matched.

        Returns
        -------
        The line.
        """
        return (
            f"{self.n_matched:,} of {self.shape[0]:,} genes ({self.coverage:.0%}) match the vocabulary by {self.kind}, "
            f"filling {self.n_targets:,} of its {self.shape[1]:,} ({self.vocabulary_coverage:.0%})"
        )


def match(
    ids: Sequence[str],
    vocabulary_symbols: Sequence[str],
    vocabulary_ensembl: Sequence[str] | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    orthologs: Mapping[str, str] | None = None,
) -> GeneMatch:
    """Match gene names to a vocabulary.

    A name is looked up as a symbol or Ensembl id first, then as an alias or as an earlier or later symbol of a gene
    that HGNC renamed, then in the ortholog table, then without regard to case, which finds most orthologs of mouse
    genes. A name that the ortholog table holds is not looked up without regard to case. Where several genes have one
    target, those found in the best of these ways are kept and the others count as unmatched.

    Parameters
    ----------
    ids
        (n_data_genes,) symbols or Ensembl ids of the data, also mixed.
    vocabulary_symbols
        (n_vocabulary,) symbols.
    vocabulary_ensembl
        (n_vocabulary,) Ensembl ids, "" where there is none; None or empty where there are none at all.
    aliases
        Other names, each with the symbol or Ensembl id it stands for. They go before the packaged table of renamed
        genes.
    orthologs
        Names of another species' genes, each with a symbol or Ensembl id of the vocabulary's species.

    Returns
    -------
    The match.

    Raises
    ------
    TypeError
        If `aliases` or `orthologs` is no mapping.
    ValueError
        If no gene matches, or the two lists of the vocabulary differ in length.

    Warns
    -----
    UserWarning
        If fewer than 30 % of the data's genes match, or fewer than 200; or if names are dates that a spreadsheet made
        of symbols, which are not guessed at.

    Examples
    --------
    >>> import warnings
    >>> from stalign.core.genes import match
    >>> with warnings.catch_warnings(action="ignore"):
    ...     found = match(["Snap25", "ENSG00000197971.16", "Xist"], ["MBP", "SNAP25"], ["ENSG00000197971", ""])
    >>> found.columns, found.targets, found.unmatched
    (array([0, 1]), array([1, 0]), ('Xist',))
    """
    ensembl = list(vocabulary_ensembl) if vocabulary_ensembl is not None else []
    if ensembl and len(ensembl) != len(vocabulary_symbols):
        expected = f"Expected one Ensembl id for each of the {len(vocabulary_symbols)} symbols"
        raise ValueError(message(expected, found=len(ensembl)))
    symbols = clean(vocabulary_symbols)
    exact = _first([*symbols, *clean(ensembl)], len(symbols))
    others = other_names(exact, _cleaned(aliases))
    folded = _first([name.casefold() for name in exact], positions=list(exact.values()))
    for name in (name for pair in renamed().items() for name in pair if name in others):
        folded.setdefault(name.casefold(), others[name])
    names = clean(ids)
    targets, ways = _look_up(names, exact, folded, others, _cleaned(orthologs))
    best = np.full(len(symbols) + 1, _FOLDED)
    np.minimum.at(best, targets, ways)
    kept = (targets >= 0) & (ways == best[targets])
    columns = np.flatnonzero(kept)
    as_ensembl = sum(is_ensembl(names[column]) for column in columns)
    found = GeneMatch(
        columns,
        targets[columns],
        "ensembl" if 2 * as_ensembl > len(columns) else "symbol",
        tuple(names[column] for column in np.flatnonzero(~kept)),
        (len(names), len(symbols)),
    )
    _check(found, names, symbols, ensembl)
    return found


def _first(names: list[str], count: int = 0, *, positions: list[int] | None = None) -> dict[str, int]:
    """First position of each name that is not empty; positions start again after `count` names."""
    table: dict[str, int] = {}
    for index, name in enumerate(names):
        if name:
            table.setdefault(name, positions[index] if positions is not None else index % count)
    return table


def _cleaned(table: Mapping[str, str] | None) -> dict[str, str]:
    if table is not None and not isinstance(table, Mapping):
        raise TypeError(message("Expected other names of genes as a mapping to symbols", found=type(table).__name__))
    return dict(zip(clean(table), clean(table.values()), strict=True)) if table else {}


def _look_up(
    names: list[str], exact: dict[str, int], folded: dict[str, int], others: dict[str, int], orthologs: dict[str, str]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Position in the vocabulary (n,), -1 where there is none, and the way it was found (n,)."""
    targets = np.full(len(names), -1, dtype=np.intp)
    ways = np.full(len(names), _FOLDED, dtype=np.intp)
    for index, name in enumerate(names):
        if name in exact:
            targets[index], ways[index] = exact[name], _EXACT
        elif name in others:
            targets[index], ways[index] = others[name], _ALIAS
        elif name in orthologs:
            human = orthologs[name]
            targets[index], ways[index] = exact.get(human, others.get(human, -1)), _ORTHOLOG
        else:
            targets[index] = folded.get(name.casefold(), -1)
    return targets, ways


def _check(found: GeneMatch, names: list[str], symbols: list[str], ensembl: list[str]) -> None:
    known = [name for name in ensembl if name]
    vocabulary = ", ".join(symbols[:3] + known[:2])
    examples = ", ".join(found.unmatched[:5])
    if not found.n_matched:
        raise ValueError(
            message(
                f"Expected genes of the vocabulary, such as {vocabulary}",
                found=f"none among the {len(names)} genes of the data, such as {examples}" if names else "no genes",
                hint=_hint(names, known),
            )
        )
    if found.coverage < _LOW_SHARE or found.n_matched < _LOW_COUNT:
        text = message(
            f"Expected at least {_LOW_COUNT} genes and {_LOW_SHARE:.0%} of the data's genes in the vocabulary",
            found=f"{found.n_matched} of {len(names)} ({found.coverage:.0%})"
            + (f"; unknown are, among others, {examples}" if examples else ""),
            hint="Results rest on these genes alone",
        )
        warnings.warn(text, UserWarning, stacklevel=3)
    _warn_spoiled(found.unmatched)


def _warn_spoiled(names: Iterable[str]) -> None:
    dates = spoiled(names)
    if dates:
        expected = "Expected names of genes that no spreadsheet has changed"
        found = f"{len(dates)} that are dates: {', '.join(dates[:5])}; they match nothing"
        hint = "1-Mar can be MARCHF1 or MTARC1: read the file anew as text, or name Ensembl ids as `gene_key=`"
        warnings.warn(message(expected, found=found, hint=hint), UserWarning, stacklevel=4)


def _hint(names: list[str], known: list[str]) -> str:
    species = Counter(found[1].upper() for name in names if (found := _ENSEMBL.fullmatch(name)))
    if 2 * species.total() > len(names):
        if not known:
            return "These are Ensembl ids where symbols are expected: name the var column of the symbols as `gene_key=`"
        if species.most_common(1)[0][0] != "":
            return "These are Ensembl ids of another species: give a table of orthologs, or symbols as `gene_key=`"
        return "Is it the right species? Symbols, if a var column has them, can be named as `gene_key=`"
    if names and sum(name.isdigit() for name in names) > len(names) / 2:
        return "These are numbers: name the var column of the gene symbols as `gene_key=`"
    return "Is it the right species, and are these gene symbols? `gene_key=` names a var column of symbols"
