"""The counts of a section in the genes that weights know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.core.expression import LowRank, fit_low_rank, normalise
from stalign.core.filter import spatial_filter
from stalign.core.genes import match
from stalign.data.table import gene_ids, read_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.models.config import InputSpec

_CHUNK = 4096  # spots whose scores are computed at one time
_FIT_SPOTS = 20_000  # spots that the gene basis of a section is fitted to


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


@dataclass(frozen=True)
class Expression:
    """The counts of a section in the genes of a vocabulary, with a basis of low rank.

    Parameters
    ----------
    counts
        Raw counts, CSR (n, n_genes).
    totals
        Total counts of each spot for the normalisation, (n,).
    low_rank
        Mean, basis (rank, n_genes) and scale fitted to the section's spots.
    mixing
        Spatial filter of the scores, (rank, rank) float32.
    scores
        Filtered scores of the spots on that basis, (n, rank) float32; 0 for a spot without counts.
    values
        Normalised expression, CSR (n, n_genes).
    target
        Counts per spot after normalisation.
    coverage
        Share of the section's genes that the vocabulary knows.
    n_matched
        How many of the section's genes the vocabulary knows.
    """

    counts: sp.csr_matrix
    totals: NDArray[np.float64]
    low_rank: LowRank
    mixing: NDArray[np.float32]
    scores: NDArray[np.float32]
    values: sp.csr_matrix
    target: float
    coverage: float
    n_matched: int

    def thinned(self, members: NDArray[np.intp], keep: float, rng: np.random.Generator) -> NDArray[np.float32]:
        """Scores of spots after binomial thinning of their counts.

        Parameters
        ----------
        members
            Positions of the spots, (m,).
        keep
            Probability that a count is kept.
        rng
            Source of randomness.

        Returns
        -------
        Scores, (m, rank) float32.
        """
        counts = self.counts[members].copy()
        counts.data = rng.binomial(np.round(counts.data).astype(np.int64), keep).astype(np.float32)
        values = normalise(counts, self.totals[members] * keep, target=self.target)
        return self.low_rank.scores(values) @ self.mixing


def read_expression(
    adata: AnnData,
    rows: NDArray[np.intp],
    graph: sp.csr_matrix,
    valid: NDArray[np.bool_],
    spec: InputSpec,
    vocabulary: Vocabulary,
    *,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    orthologs: Mapping[str, str] | None = None,
    random_state: int = 0,
) -> Expression:
    """Read a section's counts in the genes of a vocabulary and fit its low-rank basis.

    Parameters
    ----------
    adata
        The table.
    rows
        Positions of the section's spots in the table, (n,).
    graph
        Niches, CSR (n, n), rows sum to 1.
    valid
        Whether a spot has a position, (n,).
    spec
        What the weights expect of their input.
    vocabulary
        The genes that the weights know.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for a table of selected genes.
    gene_key
        var column of the gene names; None for the index.
    orthologs
        Human symbol of each gene of another species.
    random_state
        Seed of the subsample that the basis is fitted to.

    Returns
    -------
    The expression.

    Raises
    ------
    KeyError
        If the layer or a column does not exist.
    ValueError
        If counts are negative, or no gene is known to the vocabulary.
    """
    counts, totals = read_counts(adata, layer=layer, total_counts=total_counts)
    counts = counts[rows]
    totals = np.asarray(counts.sum(axis=1)).ravel() if totals is None else np.asarray(totals)[rows]
    ids, _ = gene_ids(adata, gene_key=gene_key)
    found = match(ids, vocabulary.symbols, vocabulary.ensembl, orthologs=orthologs)
    counts = (counts @ found.collapse).tocsr().astype(np.float32)
    values = normalise(counts, totals, target=spec.gene_target_sum)
    usable = np.flatnonzero(valid & (totals > 0))
    if len(usable) == 0:
        msg = message("Expected at least one spot with counts", found="only spots without counts")
        raise ValueError(msg)
    sample = usable
    if len(usable) > _FIT_SPOTS:
        sample = np.sort(np.random.default_rng(random_state).choice(usable, _FIT_SPOTS, replace=False))
    low_rank = fit_low_rank(values[sample], rank=min(spec.rank, max(len(usable) // 5, 1)), seed=random_state)
    scores = np.zeros((len(rows), len(low_rank.basis)), np.float32)
    for start in range(0, len(usable), _CHUNK):
        part = usable[start : start + _CHUNK]
        scores[part] = low_rank.scores(values[part])
    mixing, _ = spatial_filter(scores[usable], graph[usable][:, usable], power=spec.spatial_filter)
    mixing /= max(float(np.sqrt(np.square(graph[usable] @ (scores @ mixing)).sum(axis=1).mean())), 1e-12)
    scores = scores @ mixing
    logger.info("Genes: %d of %d are known to the weights (%.0f %%).", found.n_matched, len(ids), 100 * found.coverage)
    return Expression(
        counts, totals, low_rank, mixing, scores, values, spec.gene_target_sum, found.coverage, found.n_matched
    )
