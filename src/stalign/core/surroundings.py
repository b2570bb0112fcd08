"""Means over what surrounds each spot, in µm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CELLS = 4  # cells of a square grid to one sigma: spots within a cell are taken together
_REACH = 3.0  # sigmas beyond which nothing counts
_ROWS = 4096  # spots whose neighbours are in memory at one time


def gaussian_mean(values: NDArray[np.floating], coords: NDArray[np.floating], sigma: float) -> NDArray[np.float64]:
    """Average values over the surroundings of each spot, weighted by a Gaussian of the distance.

    Spots that are closer than a quarter of sigma are taken together, so that the cost does not grow with their density.

    Parameters
    ----------
    values
        Values of each spot, (n, f).
    coords
        Centres, (n, 2), x and y in µm.
    sigma
        Standard deviation of the Gaussian in µm.

    Returns
    -------
    (n, f) float64; NaN for spots whose own values or centre are not finite, which no other spot counts.
    """
    out = np.full(values.shape, np.nan)
    known = np.flatnonzero(np.isfinite(values).all(axis=1) & np.isfinite(coords).all(axis=1))
    if not len(known):
        return out
    points = np.asarray(coords, dtype=np.float64)[known]
    cell = np.floor(points * (_CELLS / sigma)).astype(np.int64)
    _, code, count = np.unique(cell, axis=0, return_inverse=True, return_counts=True)
    code = code.ravel()
    gather = sparse.csr_matrix((np.ones(len(code)), (code, np.arange(len(code)))))
    middles, means = (gather @ part / count[:, None] for part in (points, np.asarray(values, dtype=np.float64)[known]))
    tree = KDTree(middles)
    for start in range(0, len(known), _ROWS):
        rows = slice(start, start + _ROWS)
        found = KDTree(points[rows]).sparse_distance_matrix(tree, _REACH * sigma, output_type="coo_matrix")
        weights = np.exp(-((found.data / sigma) ** 2) / 2) * count[found.col]
        graph = sparse.csr_matrix((weights, (found.row, found.col)), shape=found.shape)
        out[known[rows]] = (graph @ means) / np.asarray(graph.sum(axis=1)).reshape(-1, 1)
    return out
