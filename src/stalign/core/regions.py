"""Regions: spots of a section that are near each other in space and alike in features (HiBio-ST, eq. 7 and 8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from stalign._validate import message
from stalign.core.leiden import partition, to_igraph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

EXACT = 20_000  # spots up to which all pairs are looked at
NEAR_SPACE, NEAR_FEATURES = 200, 50  # candidates of a spot in larger sections
_SAMPLE = 2_000  # spots that the ranges of larger sections are told from
_PAIRS = 8_000_000  # distances in memory at one time


def regions(
    coords: NDArray[np.floating],
    features: Sequence[NDArray[np.floating]],
    *,
    n_neighbors: int = 15,
    resolution: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Cut a section into regions by Leiden on the nearest spots in a distance of space and features.

    Both distances are scaled to 0..1 by their smallest and largest value over pairs of spots of the section. That of
    features is 1 less the cosine of all features side by side, each of unit length. Spots are put in the order of
    their positions first, so that the result does not depend on that of the rows.

    Parameters
    ----------
    coords
        (n, 2) positions; NaN for spots without one.
    features
        Features such as those of images and of sentences, (n, d) each; NaN for spots without them, whose other features
        are used alone.
    n_neighbors
        k, of the graph.
    resolution
        Of Leiden on modularity.
    alpha, beta
        Weights of the distance in space and of that in features.
    seed
        Seed.

    Returns
    -------
    (n,) regions from 0, the largest first; -1 for spots without a position or without any features.

    Raises
    ------
    ValueError
        If lengths differ.

    Notes
    -----
    Up to 20,000 spots all pairs are looked at, in blocks. In larger sections, candidates are the 200 nearest spots in
    space and the 50 nearest in features, and ranges are those of 2,000 spots.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.regions import regions
    >>> coords = np.array([[x, y] for x in (0, 1, 2, 50, 51, 52) for y in range(3)], dtype=float)
    >>> regions(coords, [np.ones((18, 4))], n_neighbors=4).tolist()
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    coords = np.asarray(coords, dtype=np.float64)
    if any(len(part) != len(coords) for part in features) or not features:
        found = f"{[len(part) for part in features]} rows of features"
        raise ValueError(message(f"Expected features of {len(coords)} spots", found=found))
    units = np.concatenate([_unit(part) for part in features], axis=1)
    usable = np.flatnonzero(np.isfinite(coords).all(axis=1) & units.any(axis=1))
    labels = np.full(len(coords), -1, dtype=np.intp)
    order = usable[np.lexsort(coords[usable].T)]
    if len(order) < 2:
        labels[order] = 0
        return labels
    graph = fused_graph(coords[order], _unit(units[order]), n_neighbors, alpha, beta, seed=seed)
    labels[order] = partition(to_igraph(graph), resolution, seed=seed)
    return labels


def fused_graph(
    coords: NDArray[np.floating], units: NDArray[np.float32], k: int, alpha: float, beta: float, *, seed: int = 0
) -> sparse.csr_matrix:
    """Join each spot with its k nearest in the fused distance D (eq. 8).

    Parameters
    ----------
    coords
        (n, 2) positions.
    units
        (n, d) features of unit length.
    k
        Neighbours.
    alpha, beta
        Weights of the distance in space and of that in features.
    seed
        Seed of the sample that ranges are told from.

    Returns
    -------
    CSR (n, n) float64, exp(-D), symmetric by the larger of both.
    """
    n = len(coords)
    k = min(k, n - 1)
    distance = _Fused(coords, units, alpha, beta, seed)
    step = max(1, _PAIRS // n)
    nearest, weights = np.empty((n, k), dtype=np.intp), np.empty((n, k))
    tree = cKDTree(coords) if n > EXACT else None
    for start in range(0, n, step):
        rows = np.arange(start, min(start + step, n))
        if tree is None:
            found = distance.to_all(rows)
            columns = _first(found, k)
        else:
            others = _candidates(rows, tree, units)
            found = distance.of(rows, others)
            places = _first(found, k)
            columns, found = np.take_along_axis(others, places, axis=1), np.take_along_axis(found, places, axis=1)
        nearest[rows] = columns
        weights[rows] = np.exp(-(np.take_along_axis(found, columns, axis=1) if tree is None else found))
    rows = np.repeat(np.arange(n), k)
    graph = sparse.csr_matrix((weights.ravel(), (rows, nearest.ravel())), shape=(n, n))
    return sparse.csr_matrix(graph.maximum(graph.T))


class _Fused:
    """The distance, whose ranges are those of the pairs of a section."""

    def __init__(
        self, coords: NDArray[np.floating], units: NDArray[np.float32], alpha: float, beta: float, seed: int
    ) -> None:
        self.coords, self.units = coords, units
        n = len(coords)
        rows = np.arange(n) if n <= EXACT else np.random.default_rng(seed).choice(n, _SAMPLE, replace=False)
        space, feature = np.array([np.inf, -np.inf]), np.array([np.inf, -np.inf])
        for start in range(0, len(rows), max(1, _PAIRS // len(rows))):
            part = rows[start : start + max(1, _PAIRS // len(rows))]
            pairs = part[:, None] != rows
            for limits, values in (
                (space, _euclidean(coords[part], coords[rows])),
                (feature, 1 - units[part] @ units[rows].T),
            ):
                limits[:] = min(limits[0], values[pairs].min()), max(limits[1], values[pairs].max())
        (self.alpha, self.space), (self.beta, self.feature) = _scaled(alpha, space), _scaled(beta, feature)

    def to_all(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Distances (b, n) of some spots to all; infinite to themselves."""
        space, cosine = _euclidean(self.coords[rows], self.coords), self.units[rows] @ self.units.T
        found = self._sum(space, cosine)
        found[np.arange(len(rows)), rows] = np.inf
        return found

    def of(self, rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.float64]:
        """Distances (b, c) of some spots to their candidates; infinite where there is none (-1)."""
        space = np.linalg.norm(self.coords[rows][:, None] - self.coords[others], axis=2)
        cosine = np.stack([self.units[other] @ self.units[row] for row, other in zip(rows, others, strict=True)])
        return np.where(others >= 0, self._sum(space, cosine), np.inf)

    def _sum(self, space: NDArray[np.float64], cosine: NDArray[np.float32]) -> NDArray[np.float64]:
        return self.alpha * (space - self.space) + self.beta * (1 - cosine - self.feature)


def _scaled(weight: float, limits: NDArray[np.float64]) -> tuple[float, float]:
    """Weight of a distance in units of its range, and where that starts; a range of rounding errors is none."""
    width = float(limits[1] - limits[0])
    return (weight / width if width > 1e-6 * max(abs(limits[1]), 1e-6) else 0.0), float(limits[0])


def _first(distances: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """Places of the k smallest of each row."""
    return np.argpartition(distances, k - 1, axis=1)[:, :k]


def _candidates(rows: NDArray[np.intp], tree: cKDTree, units: NDArray[np.float32]) -> NDArray[np.intp]:
    """The nearest in space and the nearest in features, (b, c), each once and without the spot; -1 fills up."""
    near = tree.query(tree.data[rows], k=NEAR_SPACE + 1)[1]
    alike = _first(-(units[rows] @ units.T), NEAR_FEATURES + 1)
    both = np.sort(np.concatenate([near, alike], axis=1), axis=1)
    again = np.zeros(both.shape, dtype=bool)
    again[:, 1:] = both[:, 1:] == both[:, :-1]
    return np.where(again | (both == rows[:, None]), -1, both)


def _euclidean(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1])


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale rows to unit length; rows with NaN become zeros."""
    values = np.asarray(values, dtype=np.float32)
    values = np.where(np.isfinite(values).all(axis=1)[:, None], values, np.float32(0))
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), dtype=np.float32)
