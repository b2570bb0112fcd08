"""Niches: a spot and the spots around it, as sparse weights that average over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from stalign._constants import N_NEIGHBORS
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_SPARE: Final = 4  # neighbours asked for beyond k, so that the first ring of a hexagonal grid needs no second query
_VALUES: Final = 1 << 22  # distances held at once while ties are resolved
_GAUSSIAN_SPOTS: Final = 64  # spots that a Gaussian mean is over at most; 80 µm on Visium has 18 others in reach
_CONTEXT_SPOTS: Final = 128  # the same for wide means; 96 % of the weight of 240 µm on Visium


def nearest(coords: NDArray[np.floating], k: int = N_NEIGHBORS) -> NDArray[np.intp]:
    """Nearest other spots of each spot, by Euclidean distance; ties are broken by position.

    Parameters
    ----------
    coords
        (n, 2) x and y of the spots, in px or µm. A spot with a coordinate that is not finite is nobody's neighbour.
    k
        Number of neighbours.

    Returns
    -------
    (n, min(k, n - 1)) positions of the neighbours, nearest first. -1 fills the rows of spots without coordinates, and
    the end of every row where fewer than k other spots have coordinates.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2) or `k` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.niches import nearest
    >>> nearest(np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [9.0, 0.0]]), 2)
    array([[2, 1],
           [2, 0],
           [0, 1],
           [1, 2]])
    """
    coords = np.asarray(coords, dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=coords.shape))
    if k < 1:
        raise ValueError(message("Expected at least 1 neighbour", found=k))
    valid = np.flatnonzero(np.isfinite(coords).all(axis=1))
    neighbours = np.full((len(coords), min(k, max(len(coords) - 1, 0))), -1, dtype=np.intp)
    width = min(k, len(valid) - 1)
    if width < 1:
        return neighbours
    points = coords[valid]
    kept = _first_of_each_place(points, width + 1)
    tree = KDTree(points[kept], balanced_tree=False)
    found = np.empty((len(points), width), dtype=np.intp)
    # In the order of the tree's leaves, three times faster than in any order of the caller's.
    rows, asked = np.concatenate([kept[tree.indices], np.setdiff1d(np.arange(len(points)), kept)]), width + 1 + _SPARE
    while len(rows):  # spots whose ties may reach past what was asked for
        asked, unresolved = min(asked, tree.n), []
        for part in np.array_split(rows, -(-len(rows) * asked // _VALUES)):
            distance, index = tree.query(points[part], k=asked, workers=-1)
            found[part], complete = _select(distance, kept[index], part, width, everything=asked == tree.n)
            unresolved.append(part[~complete])
        rows, asked = np.concatenate(unresolved), 2 * asked
    neighbours[valid, :width] = valid[found]
    return neighbours


def _first_of_each_place(points: NDArray[np.floating], count: int) -> NDArray[np.intp]:
    """Sorted positions of at most `count` points at each place: later ones are nobody's neighbours."""
    order = np.lexsort([points[:, 1], points[:, 0]])
    new = np.concatenate([[True], (np.diff(points[order], axis=0) != 0).any(axis=1)])
    starts = np.flatnonzero(new)
    rank = np.arange(len(points)) - np.repeat(starts, np.diff(np.append(starts, len(points))))
    return np.sort(order[rank < count])


def _select(
    distance: NDArray[np.float64], index: NDArray[np.intp], rows: NDArray[np.intp], width: int, *, everything: bool
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Positions (m, width) of the nearest others among those found, and whether all ties of the last are there (m,)."""
    farthest = distance[:, -1].copy()
    distance[index == rows[:, None]] = np.inf  # the point itself
    order = np.lexsort([index, distance], axis=1)[:, :width]
    last = np.take_along_axis(distance, order[:, -1:], axis=1)[:, 0]
    complete = np.ones(len(rows), dtype=bool) if everything else last < farthest
    return np.take_along_axis(index, order, axis=1), complete


def niche_graph(
    neighbours: NDArray[np.integer], *, include_self: bool = True, valid: NDArray[np.bool_] | None = None
) -> sparse.csr_matrix:
    """Weights that average over niches.

    Parameters
    ----------
    neighbours
        (n, k) positions of the neighbours of each spot; -1 stands for none.
    include_self
        Whether the spot belongs to its niche. A spot without neighbours is its own niche in any case.
    valid
        (n,) which spots have coordinates. By default those that have a neighbour, or all where `k` is 0.

    Returns
    -------
    (n, n) CSR float32. Rows sum to 1, rows of spots that are not valid are empty, column indices are sorted.

    Raises
    ------
    ValueError
        If `neighbours` is not a matrix or `valid` is of another length.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.niches import niche_graph
    >>> niche_graph(np.array([[1], [0]])).toarray()
    array([[0.5, 0.5],
           [0.5, 0.5]], dtype=float32)
    """
    neighbours = np.asarray(neighbours)
    if neighbours.ndim != 2:
        raise ValueError(message("Expected neighbours of shape (n, k)", found=neighbours.shape))
    n, k = neighbours.shape
    there = neighbours >= 0
    usable = np.asarray(valid if valid is not None else there.any(axis=1) if k else np.ones(n), dtype=bool)
    if usable.shape != (n,):
        raise ValueError(message(f"Expected `valid` of shape ({n},)", found=usable.shape))
    there &= usable[:, None]
    own = usable if include_self else usable & ~there.any(axis=1)
    columns = np.concatenate([np.arange(n)[:, None], neighbours], axis=1)
    kept = np.concatenate([own[:, None], there], axis=1)
    counts = kept.sum(axis=1)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    weights = np.repeat((1 / np.maximum(counts, 1)).astype(np.float32), counts)
    graph = sparse.csr_matrix((weights, columns[kept], indptr), shape=(n, n))
    graph.sort_indices()
    return graph


def members(graph: sparse.spmatrix) -> NDArray[np.intp]:
    """Spots of each niche.

    Parameters
    ----------
    graph
        (n, n) niche graph.

    Returns
    -------
    (n, k) positions, ascending, filled up with -1; k is the size of the largest niche.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.niches import members, niche_graph
    >>> members(niche_graph(np.array([[1], [2], [-1]])))
    array([[ 0,  1],
           [ 1,  2],
           [-1, -1]])
    """
    graph = sparse.csr_matrix(graph)
    graph.sort_indices()
    sizes = np.diff(graph.indptr)
    found = np.full((graph.shape[0], sizes.max(initial=0)), -1, dtype=np.intp)
    found[np.arange(found.shape[1]) < sizes[:, None]] = graph.indices
    return found


def niche_mean(graph: sparse.spmatrix, values: Any) -> Any:
    """Mean over each niche.

    Parameters
    ----------
    graph
        (n, n) niche graph.
    values
        (n, g) counts, expression or anything else, sparse or dense. Values of spots that are in no niche may be NaN in
        a dense array only if the graph holds no entry for them.

    Returns
    -------
    (n, g) float32, CSR where `values` is sparse and an array where it is dense; rows of spots without a niche are 0.

    Raises
    ------
    ValueError
        If `values` has another number of rows than the graph.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.niches import niche_graph, niche_mean
    >>> niche_mean(niche_graph(np.array([[1], [0]])), np.array([[0.0, 4.0], [2.0, 0.0]]))
    array([[1., 2.],
           [1., 2.]], dtype=float32)
    """
    if values.shape[0] != graph.shape[0]:
        raise ValueError(message(f"Expected values of {graph.shape[0]} spots", found=values.shape[0]))
    if sparse.issparse(values):
        return sparse.csr_matrix(graph @ values.tocsr().astype(np.float32))
    return np.asarray(graph @ np.asarray(values, dtype=np.float32))


def gaussian_graph(
    coords: NDArray[np.floating], sigma: float, *, max_spots: int = _GAUSSIAN_SPOTS
) -> sparse.csr_matrix:
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
    >>> from stalign.core.niches import gaussian_graph
    >>> gaussian_graph(np.array([[0.0, 0.0], [100.0, 0.0]]), 80.0).toarray().round(2)
    array([[0.69, 0.31],
           [0.31, 0.69]], dtype=float32)
    """
    parts, valid, n = [], _placed(coords), len(coords)
    for _, part in _gaussian_parts(coords, valid, sigma, max_spots):
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
    values: NDArray[np.floating], coords: NDArray[np.floating], sigma: float, *, max_spots: int = _CONTEXT_SPOTS
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
    >>> from stalign.core.niches import gaussian_mean
    >>> gaussian_mean(np.array([[0.0], [1.0]]), np.array([[0.0, 0.0], [100.0, 0.0]]), 80.0).round(2)
    array([[0.31],
           [0.69]], dtype=float32)
    """
    values = np.asarray(values, dtype=np.float32)
    used = np.intersect1d(_placed(coords), np.flatnonzero(np.isfinite(values).all(axis=1)))
    means, own = np.full(values.shape, np.nan, dtype=np.float32), values[used]
    for rows, weights in _gaussian_parts(coords, used, sigma, max_spots):
        means[rows] = weights @ own
    return means


def _placed(coords: NDArray[np.floating]) -> NDArray[np.intp]:
    """Positions of the spots that have coordinates."""
    if np.ndim(coords) != 2 or np.shape(coords)[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=np.shape(coords)))
    return np.flatnonzero(np.isfinite(coords).all(axis=1))


def _gaussian_parts(
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
