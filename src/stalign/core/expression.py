"""Normalised expression, and a basis of low rank that it is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse
from scipy.linalg import qr
from scipy.sparse.linalg import aslinearoperator

from stalign._validate import message

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse.linalg import LinearOperator

_BLOCK: Final = 32  # vectors that grow the Krylov space at one time
_EXTRA: Final = 259  # dimensions of the Krylov space beyond 2.5 a component; 50 components lose 1e-6 of their variance
_NEW: Final = 1e-5  # share of a vector that has to be new to the Krylov space; less is rounding


def normalise(
    counts: sparse.spmatrix, totals: NDArray[np.number] | None = None, target: float = 1e4
) -> sparse.csr_matrix:
    """Scale each spot to the same total and take log(1 + x).

    Parameters
    ----------
    counts
        (n, g) raw counts.
    totals
        (n,) total counts of each spot, where `counts` holds only some of the genes. By default the row sums.
    target
        Total that each spot is scaled to.

    Returns
    -------
    (n, g) CSR float32; rows of spots with a total of zero are zero.

    Raises
    ------
    ValueError
        If the totals are not (n,), or one is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from stalign.core.expression import normalise
    >>> normalise(sparse.csr_matrix([[1.0, 3.0], [0.0, 0.0]]), target=4).toarray().round(3)
    array([[0.693, 1.386],
           [0.   , 0.   ]], dtype=float32)
    """
    counts = sparse.csr_matrix(counts)
    if totals is None:
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    totals = np.asarray(totals, dtype=np.float64)
    if totals.shape != counts.shape[:1]:
        raise ValueError(message(f"Expected totals of shape ({counts.shape[0]},)", found=totals.shape))
    bad = ~np.isfinite(totals) | (totals < 0)
    if bad.any():
        raise ValueError(message("Expected totals of 0 or more", found=f"{bad.sum()} that are negative or not finite"))
    factors = np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0)
    values = np.log1p(counts.data * np.repeat(factors, np.diff(counts.indptr))).astype(np.float32)
    return sparse.csr_matrix((values, counts.indices.copy(), counts.indptr.copy()), shape=counts.shape)


@dataclass(frozen=True)
class LowRank:
    """Principal components of expression, with one scale for all.

    Parameters
    ----------
    mean
        (g,) float32, mean of each gene.
    basis
        (r, g) float32, orthonormal rows, by decreasing variance.
    scale
        Root of the mean squared norm of the centred projections that it was fitted to, or 1 where that is 0.
    """

    mean: NDArray[np.float32]
    basis: NDArray[np.float32]
    scale: float

    @property
    def origin(self) -> NDArray[np.float32]:
        """Scores of the mean, (r,), which are subtracted from all."""
        return np.asarray(self.basis @ self.mean / np.float32(self.scale), dtype=np.float32)

    def scores(self, values: Any) -> NDArray[np.float32]:
        """Project expression: (values - mean) @ basis.T / scale.

        Parameters
        ----------
        values
            (n, g) expression, sparse or dense; a sparse one stays sparse.

        Returns
        -------
        (n, r) float32.

        Raises
        ------
        ValueError
            If `values` has another number of genes.
        """
        if values.shape[1] != len(self.mean):
            raise ValueError(message(f"Expected {len(self.mean)} genes", found=values.shape[1]))
        projected = np.asarray(values.astype(np.float32, copy=False) @ self.basis.T)
        return np.asarray((projected - self.basis @ self.mean) / np.float32(self.scale))


def fit_low_rank(
    values: Any,
    rank: int = 50,
    *,
    weights: sparse.spmatrix | None = None,
    seed: int = 0,
    max_rows: int = 20_000,
) -> LowRank:
    """Fit principal components without centring or filling the matrix.

    A block Krylov space of the implicitly centred matrix is grown from random vectors [1]_, and components are taken
    from it by Rayleigh-Ritz.

    Parameters
    ----------
    values
        (n, g) expression, sparse or dense; a dense one is several times as fast where most entries are there.
    rank
        Number of components; fewer where the data have fewer: at most min(n - 1, g).
    weights
        (m, n) weights of means over rows of `values`; components are then those of the m means, which are never held.
    seed
        Seed of the first vectors, and of the rows taken.
    max_rows
        Rows to fit to; of more rows, this many are taken at random.

    Returns
    -------
    The components. The entry of largest size in each is positive.

    Raises
    ------
    ValueError
        If there is no row or `rank` is negative.

    References
    ----------
    .. [1] C. Musco and C. Musco, "Randomized block Krylov methods for stronger and faster approximate singular value
       decomposition", NeurIPS 2015, algorithm 2.

    Examples
    --------
    >>> from scipy import sparse
    >>> from stalign.core.expression import fit_low_rank
    >>> low_rank = fit_low_rank(sparse.random(40, 30, density=0.3, format="csr", random_state=0), rank=5)
    >>> low_rank.basis.shape
    (5, 30)
    """
    if values.shape[0] == 0 or rank < 0:
        raise ValueError(message("Expected rows and a rank of 0 or more", found=f"{values.shape[0]} rows, rank {rank}"))
    rng = np.random.default_rng(seed)
    rows = values if weights is None else weights
    rows = rows if isinstance(rows, np.ndarray) else sparse.csr_matrix(rows)
    if rows.shape[0] > max_rows:
        rows = rows[np.sort(rng.choice(rows.shape[0], max_rows, replace=False))]
    rows = rows.astype(np.float32, copy=False)
    n, g = rows.shape[0], values.shape[1]
    table = rows if weights is None else sparse.csr_matrix(values, dtype=np.float32)
    if weights is not None:
        reached = _filled(rows)
        rows, table = rows[:, reached], table[reached]
    mean = np.asarray(rows.sum(axis=0, dtype=np.float64)).ravel() / n
    mean = (mean if weights is None else table.T @ mean).astype(np.float32)
    rank = min(rank, n - 1, g)
    if rank == 0:
        return LowRank(mean, np.zeros((0, g), dtype=np.float32), 1.0)
    held = _filled(table, least=rank)
    matrix = aslinearoperator(table[:, held])
    matrix = matrix if weights is None else aslinearoperator(rows) @ matrix
    basis, variances = _principal(matrix, mean, held, rank, rng)
    scale = float(np.sqrt(variances.sum() / n))
    return LowRank(mean, basis, scale if scale > 1e-6 * max(1.0, float(np.linalg.norm(mean))) else 1.0)


def _filled(table: NDArray[Any] | sparse.csr_matrix, *, least: int = 0) -> NDArray[np.intp] | slice:
    """Columns of a sparse matrix that hold a value, where there are more than `least`; else all."""
    columns = None if isinstance(table, np.ndarray) else np.flatnonzero(table.getnnz(axis=0))
    return slice(None) if columns is None or not least < len(columns) < table.shape[1] else columns


def _principal(
    matrix: LinearOperator,
    mean: NDArray[np.float32],
    held: NDArray[np.intp] | slice,
    rank: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Principal axes (rank, g) and their sums of squares (rank,); `matrix` has the columns `held` of g.

    Own code, as ARPACK (`scipy.sparse.linalg.svds`, scikit-learn's `PCA`) can give other axes at every call where
    nothing varies, and never all min(n, g) of them. `benchmarks/pca.py` compares the time.
    """
    n, g = matrix.shape
    total = min(n, g, int(2.5 * rank) + _EXTRA)
    space = np.zeros((n, total), dtype=np.float32)  # K, orthonormal columns
    image = np.zeros((g, total), dtype=np.float32)  # centred matrix, transposed, times K
    block = rng.standard_normal((len(mean), min(max(_BLOCK, rank // 5), total)), dtype=np.float32)[held]
    axes, mean = np.zeros((rank, len(mean)), dtype=np.float32), mean[held]
    filled = 0
    while filled < total and block.shape[1]:
        block = block[:, : total - filled]
        grown = matrix @ block - mean @ block
        least = _NEW * float(np.linalg.norm(grown, axis=0).max())
        for _ in range(2):
            grown -= space[:, :filled] @ (space[:, :filled].T @ grown)
            grown, triangle = qr(grown, mode="economic", check_finite=False)
            grown = grown[:, np.abs(np.diag(triangle)) > least]  # the rest lies in the space already
            least = _NEW
        block = matrix.rmatmat(grown) - np.outer(mean, grown.sum(axis=0))
        columns = slice(filled, filled + grown.shape[1])
        space[:, columns], image[:, columns] = grown, block
        filled = columns.stop
    image = image[:, :filled]
    gram = image.T.astype(np.float64) @ image
    variances, vectors = np.linalg.eigh(gram)
    top = np.argsort(-variances, kind="stable")[:rank]
    spare = rng.standard_normal((g, rank - len(top)), dtype=np.float32)  # axes along which nothing varies
    found = np.concatenate([image @ vectors[:, top].astype(np.float32), spare], axis=1)
    axes[:, held] = qr(found, mode="economic", check_finite=False)[0].T
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes *= np.where(largest < 0, -1, 1).astype(np.float32)
    return axes, np.maximum(variances[top], 0)
