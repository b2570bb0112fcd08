"""The genes that weights know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """The genes that weights know.

    Parameters
    ----------
    symbols
        Gene symbols, (n_genes,), in the order of the network's gene table.
    ensembl
        Ensembl ids without version, (n_genes,), "" where unknown; or empty.
    """

    symbols: tuple[str, ...]
    ensembl: tuple[str, ...] = ()
