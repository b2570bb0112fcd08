"""Weights of the spots around each spot, by a Gaussian of the distance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from stalign._validate import message

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPOTS: Final = 64  # spots that a mean is over at most; 80 µm on Visium has 18 others in reach
_ROWS: Final = 1 << 16  # spots whose neighbours are asked for at one time


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
    coords = np.asarray(coords, dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=coords.shape))
    if not sigma > 0:
        raise ValueError(message("Expected `sigma` above 0", found=sigma))
    n, valid = len(coords), np.flatnonzero(np.isfinite(coords).all(axis=1))
    tree, count = KDTree(coords[valid]), min(max_spots + 1, len(valid))
    parts = [sparse.csr_matrix((0, n), dtype=np.float32)]
    for rows in np.split(valid, range(_ROWS, len(valid), _ROWS)) if count else ():
        distance, index = tree.query(coords[rows], k=range(1, count + 1), distance_upper_bound=3 * sigma, workers=-1)
        if count > max_spots:  # drop the last, and what is as far as it
            last = distance[:, -1:]
            distance[(distance >= last * (1 - 1e-9)) & (last > 0)] = np.inf
        near = np.isfinite(distance)
        weights = np.exp(-np.square(distance[near] / sigma) / 2)
        row = np.repeat(np.arange(len(rows)), near.sum(axis=1))
        weights /= np.bincount(row, weights, minlength=len(rows))[row]
        parts.append(sparse.csr_matrix((weights.astype(np.float32), (row, valid[index[near]])), shape=(len(rows), n)))
    stacked = sparse.vstack(parts, format="csr")
    starts = np.zeros(n + 1, dtype=stacked.indptr.dtype)
    starts[1 + valid] = np.diff(stacked.indptr)
    graph = sparse.csr_matrix((stacked.data, stacked.indices, np.cumsum(starts)), shape=(n, n))
    graph.sort_indices()
    return graph
