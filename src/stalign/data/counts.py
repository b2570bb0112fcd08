"""The counts of a table in the genes that weights know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stalign._settings import logger
from stalign.core.genes import match
from stalign.data.genes import gene_ids
from stalign.data.table import read_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.vocabulary import Vocabulary


@dataclass(frozen=True)
class CountKeys:
    """Where the counts of a table are.

    Parameters
    ----------
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for a table of selected genes.
    gene_key
        var column of the gene names; None for the index.
    orthologs
        Human symbol of each gene of another species.
    aliases
        Other names of genes, each with the symbol or Ensembl id that it stands for.
    """

    layer: str | None = None
    total_counts: str | None = None
    gene_key: str | None = None
    orthologs: Mapping[str, str] | None = None
    aliases: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Counts:
    """The counts of a table or section in the genes of a vocabulary.

    Parameters
    ----------
    matrix
        Raw counts, CSR (n, n_genes) float32; those of a table's genes with the same target are summed.
    totals
        Total counts of each spot for the normalisation, (n,).
    coverage
        Share of the table's genes that the vocabulary knows.
    n_matched
        How many of the table's genes the vocabulary knows.
    missing
        Genes of the vocabulary that the table does not have.
    unknown
        Genes of the table that the vocabulary does not know.
    """

    matrix: sp.csr_matrix
    totals: NDArray[np.float64]
    coverage: float
    n_matched: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    def of(self, rows: NDArray[np.intp]) -> Counts:
        """Get the counts of some spots.

        Parameters
        ----------
        rows
            Positions of the spots in the table, (n,), ascending.

        Returns
        -------
        Their counts; not copied where these are all spots.
        """
        if len(rows) == self.matrix.shape[0]:
            return self
        return replace(self, matrix=self.matrix[rows], totals=self.totals[rows])


def match_counts(adata: AnnData, vocabulary: Vocabulary, keys: CountKeys) -> Counts:
    """Read the counts of a table in the genes of a vocabulary.

    Parameters
    ----------
    adata
        The table.
    vocabulary
        The genes that the weights know.
    keys
        Where its counts are.

    Returns
    -------
    The counts.

    Raises
    ------
    KeyError
        If the layer or a column does not exist.
    ValueError
        If counts are negative, or no gene is known to the vocabulary.
    """
    counts, totals = read_counts(adata, layer=keys.layer, total_counts=keys.total_counts)
    if totals is None:
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    ids, _ = gene_ids(adata, gene_key=keys.gene_key)
    found = match(ids, vocabulary.symbols, vocabulary.ensembl, aliases=keys.aliases, orthologs=keys.orthologs)
    matrix = (counts @ found.collapse).tocsr().astype(np.float32, copy=False)
    logger.info("Genes: %d of %d are known to the weights (%.0f %%).", found.n_matched, len(ids), 100 * found.coverage)
    there = set(found.targets.tolist())
    missing = tuple(symbol for i, symbol in enumerate(vocabulary.symbols) if i not in there)
    return Counts(matrix, totals, found.coverage, found.n_matched, missing, found.unmatched)
