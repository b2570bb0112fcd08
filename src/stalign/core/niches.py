"""Niches: a spot, its nearest neighbours, and means over both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from stalign._constants import N_NEIGHBORS
from stalign._validate import message, one_of, whole

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPARE: Final = 4  # neighbours asked for beyond k, so that the first ring of a hexagonal grid needs no second query
_VALUES: Final = 1 << 22  # distances held at once while ties are resolved
_ROUNDING: Final = 1e-6  # of the mean distance of spots: distances and positions that differ by less are equal
_AS_NEAR: Final = 1.05  # spots this much farther than the last neighbour are as near, as px are whole numbers


@dataclass(frozen=True)
class Niche:
    """What makes a niche: the spot and its nearest neighbours (ST-Align, section 3.1).

    Parameters
    ----------
    n_neighbors
        Number of neighbours.
    include_self
        Whether the spot itself counts in the mean over its niche.
    ties
        `position`: of equally near spots those that come first by position (top to bottom, left to right), so that
        every niche has `n_neighbors`; `all`: every spot as near as the last one, so that niches on a grid are
        symmetric.

    Raises
    ------
    TypeError
        If `n_neighbors` is not a whole number.
    ValueError
        If it is below 1, or `ties` is unknown.
    """

    n_neighbors: int = N_NEIGHBORS
    include_self: bool = True
    ties: str = "position"

    def __post_init__(self) -> None:
        one_of(self.ties, ("position", "all"), name="ties")
        object.__setattr__(self, "n_neighbors", whole(self.n_neighbors, name="n_neighbors"))

    def graph(self, coords: NDArray[np.floating]) -> sparse.csr_matrix:
        """Find the niches of spots.

        Parameters
        ----------
        coords
            (n, 2) x and y of the spots, in px or µm; rows that are not finite belong to no niche.

        Returns
        -------
        (n, n) CSR float32, the weights of the mean over each niche: rows sum to 1, or are empty.
        """
        valid = np.isfinite(coords).all(axis=1)
        neighbours = nearest(coords, self.n_neighbors, ties=self.ties)
        return niche_graph(neighbours, include_self=self.include_self, valid=valid)


def nearest(coords: NDArray[np.floating], k: int = N_NEIGHBORS, *, ties: str = "position") -> NDArray[np.intp]:
    """Nearest other spots of each spot, by Euclidean distance.

    Parameters
    ----------
    coords
        (n, 2) x and y of the spots, in px or µm. A spot with a coordinate that is not finite is nobody's neighbour.
    k
        Number of neighbours.
    ties
        `position` takes of equally near spots those that come first from top to bottom and from left to right; `all`
        takes every spot that is no more than 5 % farther than the k-th.

    Returns
    -------
    (n, min(k, n - 1)) positions of the neighbours, nearest first; with `ties="all"`, as many columns as the largest
    niche needs. -1 fills the rows of spots without coordinates, and the end of rows with fewer neighbours.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2) or `k` is below 1.

    Notes
    -----
    The order of the rows makes no difference but for spots in one place. Distances and positions that differ by a
    millionth of the mean distance of spots count as equal, so that rounding makes none either.

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
    points = coords[valid] - coords[valid].min(axis=0)
    unit = _ROUNDING * (np.sqrt(points.max(axis=0).prod() or points.max() ** 2) / np.sqrt(len(points)) or 1.0)
    by_position = np.lexsort(np.rint(points / unit).T)
    valid, points = valid[by_position], points[by_position]
    found = _nearest(points, width, unit)
    if ties == "all":
        found = _as_near(points, np.linalg.norm(points[found[:, -1]] - points, axis=1))
        neighbours = np.full((len(coords), max(found.shape[1], neighbours.shape[1])), -1, dtype=np.intp)
    neighbours[valid, : found.shape[1]] = np.where(found >= 0, valid[found], -1)
    return neighbours


def _nearest(points: NDArray[np.floating], width: int, unit: float) -> NDArray[np.intp]:
    """Positions (n, width) of the nearest other points, by distance in whole units and then by index."""
    kept = _first_of_each_place(points, width + 1)
    tree = KDTree(points[kept], balanced_tree=False)
    found = np.empty((len(points), width), dtype=np.intp)
    # In the order of the tree's leaves, three times faster than in any order of the caller's.
    rows, asked = np.concatenate([kept[tree.indices], np.setdiff1d(np.arange(len(points)), kept)]), width + 1 + _SPARE
    while len(rows):  # spots whose ties may reach past what was asked for
        asked, unresolved = min(asked, tree.n), []
        for part in np.array_split(rows, -(-len(rows) * asked // _VALUES)):
            distance, index = tree.query(points[part], k=asked, workers=-1)
            distance = np.rint(distance / unit)
            found[part], complete = _select(distance, kept[index], part, width, everything=asked == tree.n)
            unresolved.append(part[~complete])
        rows, asked = np.concatenate(unresolved), 2 * asked
    return found


def _as_near(points: NDArray[np.floating], radius: NDArray[np.floating]) -> NDArray[np.intp]:
    """Positions (n, widest) of all other points within a radius of each point, ascending, filled up with -1."""
    around = KDTree(points).query_ball_point(points, radius * _AS_NEAR, workers=-1, return_sorted=True)
    sizes = np.array([len(some) for some in around], dtype=np.intp)
    row, column = np.repeat(np.arange(len(points)), sizes), np.concatenate(around).astype(np.intp)
    others = row != column
    row, column = row[others], column[others]
    sizes = np.bincount(row, minlength=len(points))
    found = np.full((len(points), sizes.max()), -1, dtype=np.intp)
    found[np.arange(found.shape[1]) < sizes[:, None]] = column
    return found


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
