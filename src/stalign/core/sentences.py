"""Sentences of genes: the genes of a spot that stand out, in order (HiBio-ST, eq. 1 to 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from stalign._validate import message, one_of, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

MODES = ("tfidf", "top", "hvg")
_EPS = 1e-8  # in the denominator of the term frequency; the paper gives none
_BLOCK = 2048  # spots ranked at one time


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many spots of a corpus each gene was detected.

    Parameters
    ----------
    detected
        (V,) int64, spots with a count of the gene.
    measured
        (V,) int64, spots of the sections that measured the gene.
    n_spots
        M, all spots of the corpus.

    Examples
    --------
    >>> from scipy import sparse
    >>> from stalign.core.sentences import DocumentFrequencies
    >>> found = DocumentFrequencies.of(sparse.csr_matrix([[1, 0], [3, 2]]))
    >>> found.idf().round(2)
    array([0.  , 0.41], dtype=float32)
    """

    detected: NDArray[np.int64]
    measured: NDArray[np.int64]
    n_spots: int

    @classmethod
    def of(cls, counts: sparse.spmatrix, measured: ArrayLike | None = None) -> DocumentFrequencies:
        """Count the spots of one section.

        Parameters
        ----------
        counts
            (n, V) counts.
        measured
            (V,) bool, genes that the section measured; None for all.
        """
        matrix = sparse.csr_matrix(counts)
        n, n_genes = matrix.shape
        detected = np.bincount(matrix.indices[matrix.data > 0], minlength=n_genes).astype(np.int64)
        there = np.ones(n_genes, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
        return cls(detected, there.astype(np.int64) * n, n)

    def __add__(self, other: DocumentFrequencies) -> DocumentFrequencies:
        return DocumentFrequencies(
            self.detected + other.detected, self.measured + other.measured, self.n_spots + other.n_spots
        )

    def idf(self, over: Literal["corpus", "measured"] = "corpus") -> NDArray[np.float32]:
        """Get the inverse document frequency of each gene, ln((1 + M) / (1 + df)) (eq. 3).

        Parameters
        ----------
        over
            M is the number of spots of the whole `corpus`, as published, or of the sections that `measured` the gene.

        Returns
        -------
        (V,) float32 from 0; 0 for a gene that every spot has.

        Raises
        ------
        ValueError
            If `over` is neither.
        """
        one_of(over, ("corpus", "measured"), name="idf")
        spots = self.n_spots if over == "corpus" else self.measured
        return np.log((1 + spots) / (1 + self.detected)).astype(np.float32)


def tfidf(counts: sparse.spmatrix, idf: NDArray[np.float32]) -> sparse.csr_matrix:
    """Weigh the genes of each spot (eq. 1 to 4).

    Parameters
    ----------
    counts
        (n, V) raw counts.
    idf
        (V,) inverse document frequencies.

    Returns
    -------
    CSR (n, V) float64: log1p of a count over the sum of those of the spot, times the gene's inverse document frequency.
    """
    weights = sparse.csr_matrix(counts, dtype=np.float64).log1p()
    sums = np.asarray(weights.sum(axis=1)).ravel() + _EPS
    return sparse.csr_matrix(sparse.diags(1 / sums) @ weights @ sparse.diags(np.asarray(idf, dtype=np.float64)))


def sentences(
    counts: sparse.spmatrix,
    symbols: Sequence[str],
    idf: NDArray[np.float32],
    *,
    length: int = 250,
    mode: str = "tfidf",
    min_count: float = 1,
) -> NDArray[np.int32]:
    """List the genes of each spot that stand out, the one that does most first.

    The denominator of the term frequency is one number for a spot, so genes are ranked by log1p(count) times inverse
    document frequency. Of equal genes the rarer one comes first, then the one whose symbol does. The list of a spot
    depends on nothing but its own counts, but for mode `hvg`.

    Parameters
    ----------
    counts
        (n, V) raw counts, of one section for mode `hvg`.
    symbols
        (V,) symbols, for ties.
    idf
        (V,) inverse document frequencies of the corpus.
    length
        K, genes in a sentence.
    mode
        `tfidf`; `top`: the largest counts; `hvg`: the genes whose log1p varies most over the spots given, the same for
        all of them with counts, in the order of their own counts.
    min_count
        Smallest count that a gene needs, in modes `tfidf` and `top`.

    Returns
    -------
    (n, K) int32, positions in the vocabulary, filled up with -1; a spot without counts has no genes.

    Raises
    ------
    ValueError
        If the mode is unknown, or the numbers of genes differ.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from stalign.core.sentences import sentences
    >>> idf = np.array([0, 1, 2], dtype=np.float32)
    >>> sentences(sparse.csr_matrix([[9, 5, 1], [4, 1, 0]]), ["ACTB", "MBP", "PLP1"], idf, length=2)
    array([[ 1,  2],
           [ 1, -1]], dtype=int32)
    """
    one_of(mode, MODES, name="mode")
    whole(length, name="length")
    matrix = sparse.csr_matrix(counts)
    if not matrix.shape[1] == len(symbols) == len(idf):
        found = f"{matrix.shape[1]} columns, {len(symbols)} symbols and {len(idf)} document frequencies"
        raise ValueError(message("Expected one number of genes", found=found))
    weight = np.asarray(idf, dtype=np.float64)
    first = np.lexsort((np.asarray(symbols, dtype=str), -weight))  # genes in the order that settles ties
    out = np.full((matrix.shape[0], length), -1, dtype=np.int32)
    if mode == "hvg":
        first = first[np.sort(_most_variable(matrix[:, first], length))]
        out[:, : len(first)] = _all_of(matrix[:, first], first)
        return out
    rank = np.empty(len(first), dtype=np.intp)
    rank[first] = np.arange(len(first))
    factor = weight if mode == "tfidf" else np.ones(len(weight))
    for start in range(0, len(out), _BLOCK):
        out[start : start + _BLOCK] = _best(matrix[start : start + _BLOCK], factor, rank, length, min_count)
    return out


def _best(
    counts: sparse.csr_matrix, factor: NDArray[np.float64], rank: NDArray[np.intp], length: int, min_count: float
) -> NDArray[np.int32]:
    """List the `length` best genes of each row; of equal ones, those of the lower rank."""
    values = counts.data.astype(np.float64)
    score = np.log1p(values) * factor[counts.indices]
    kept = (score > 0) & (values >= min_count)
    for start, stop in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        if stop - start > length:  # what is below the last place need not be sorted
            row = slice(start, stop)
            kept[row] &= score[row] >= np.partition(np.where(kept[row], score[row], 0), -length)[-length]
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[kept]
    columns = counts.indices[kept]
    order = np.lexsort((rank[columns], -score[kept], rows))
    rows, columns = rows[order], columns[order]
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    short = place < length
    out = np.full((counts.shape[0], length), -1, dtype=np.int32)
    out[rows[short], place[short]] = columns[short]
    return out


def _all_of(counts: sparse.csr_matrix, genes: NDArray[np.intp]) -> NDArray[np.int32]:
    """List all genes for each row with counts, by count."""
    dense = counts.toarray()
    order = genes[np.argsort(-dense.astype(np.float64), axis=1, kind="stable")].astype(np.int32)
    return np.where(dense.any(axis=1)[:, None], order, np.int32(-1))


def _most_variable(counts: sparse.csr_matrix, n: int) -> NDArray[np.intp]:
    """Find the columns whose log1p varies most; of equal ones, the first."""
    values = sparse.csr_matrix(counts, dtype=np.float64).log1p()
    mean, square = (np.asarray(part.mean(axis=0)).ravel() for part in (values, values.multiply(values)))
    return np.argsort(-(square - mean**2).round(12), kind="stable")[:n]
