"""Means over the spots around each spot, weighed by a Gaussian of the distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SPOTS: Final = 64  # spots that a mean is over at most; 80 µm on Visium has 18 others in reach
_WIDE_SPOTS: Final = 128  # the same where no weights are held; 96 % of the weight of 240 µm on Visium
_VALUES: Final = 1 << 22  # distances held at one time


def gaussian_graph(coords: NDArray[np.floating], sigma: float, *, max_spots: int = _SPOTS) -> sparse.csr_matrix:
    """Weights that average over the spots around each spot, by a Gaussian of the distance.

    Parameters
    ----------
    coords
        (n, 2) x and y of the spots, in µm. A spot with a coordinate that is not finite is nobody's neighbour.
    sigma
        Standard deviation of the Gaussian, in µm. Spots farther than three of it have no weight.
    max_spots
        How many spots a mean is over at most, the nearest; of spots that are equally far, all or none are taken.

    Returns
    -------
    (n, n) CSR float32. Rows sum to 1, rows of spots without coordinates are empty, column indices are sorted.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2), or `sigma` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.gaussian import gaussian_graph
    >>> gaussian_graph(np.array([[0.0, 0.0], [100.0, 0.0]]), 80.0).toarray().round(2)
    array([[0.69, 0.31],
           [0.31, 0.69]], dtype=float32)
    """
    parts, valid, n = [], _placed(coords), len(coords)
    for _, part in _parts(coords, valid, sigma, max_spots):
        parts.append(part)
    if not parts:
        return sparse.csr_matrix((n, n), dtype=np.float32)
    stacked = sparse.vstack(parts, format="csr")
    starts = np.zeros(n + 1, dtype=stacked.indptr.dtype)
    starts[1 + valid] = np.diff(stacked.indptr)
    graph = sparse.csr_matrix((stacked.data, valid[stacked.indices], np.cumsum(starts)), shape=(n, n))
    graph.sort_indices()
    return graph


def gaussian_mean(
    values: NDArray[np.floating], coords: NDArray[np.floating], sigma: float, *, max_spots: int = _WIDE_SPOTS
) -> NDArray[np.float32]:
    """Average over the spots around each spot, by a Gaussian of the distance, without holding the weights.

    Parameters
    ----------
    values
        (n, d) what is averaged. A spot with a NaN is left out.
    coords, sigma, max_spots
        As in `gaussian_graph`.

    Returns
    -------
    (n, d) float32; NaN for spots that are left out.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2), or `sigma` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.gaussian import gaussian_mean
    >>> gaussian_mean(np.array([[0.0], [1.0]]), np.array([[0.0, 0.0], [100.0, 0.0]]), 80.0).round(2)
    array([[0.31],
           [0.69]], dtype=float32)
    """
    values = np.asarray(values, dtype=np.float32)
    used = np.intersect1d(_placed(coords), np.flatnonzero(np.isfinite(values).all(axis=1)))
    means, own = np.full(values.shape, np.nan, dtype=np.float32), values[used]
    for rows, weights in _parts(coords, used, sigma, max_spots):
        means[rows] = weights @ own
    return means


def _placed(coords: NDArray[np.floating]) -> NDArray[np.intp]:
    """Positions of the spots that have coordinates."""
    if np.ndim(coords) != 2 or np.shape(coords)[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=np.shape(coords)))
    return np.flatnonzero(np.isfinite(coords).all(axis=1))


def _parts(
    coords: NDArray[np.floating], used: NDArray[np.intp], sigma: float, max_spots: int
) -> Iterator[tuple[NDArray[np.intp], sparse.csr_matrix]]:
    """Yield some of the spots that are used (b,) at a time, and their weights of all used ones, CSR (b, n_used)."""
    if not sigma > 0:
        raise ValueError(message("Expected `sigma` above 0", found=sigma))
    points = np.asarray(coords, dtype=np.float64)[used]
    tree, count = KDTree(points), min(max_spots + 1, len(used))
    size = max(_VALUES // max(count, 1), 1)
    for start in range(0, len(used), size):
        part = points[start : start + size]
        distance, index = tree.query(part, k=range(1, count + 1), distance_upper_bound=3 * sigma, workers=-1)
        if count > max_spots:  # drop the last, and what is as far as it
            last = distance[:, -1:]
            distance[(distance >= last * (1 - 1e-9)) & (last > 0)] = np.inf
        near = np.isfinite(distance)
        weights = np.exp(-np.square(distance[near] / sigma) / 2)
        row = np.repeat(np.arange(len(part)), near.sum(axis=1))
        weights /= np.bincount(row, weights, minlength=len(part))[row]
        shape = len(part), len(points)
        yield used[start : start + size], sparse.csr_matrix((weights.astype(np.float32), (row, index[near])), shape)
