"""Means over the spots around each spot, weighed by a Gaussian of the distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import fft, sparse
from scipy.spatial import KDTree

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_REACH: Final = 3.0  # standard deviations beyond which a spot has no weight
_PAIRS: Final = 300  # spots in reach of a spot, on average, above which means are taken on a grid; 25 µm bins have 290
_SAMPLE: Final = 200  # spots whose surroundings are counted for that
_PER_SIGMA: Final = 8  # px of the grid per standard deviation
_FEW: Final = 16.0  # sum of weights (1 for the spot itself) below which a mean is taken over pairs, not on the grid
_VALUES: Final = 1 << 23  # pairs, or values on the grid, that are held at one time


def gaussian_graph(
    coords: NDArray[np.floating], sigma: float, *, members: NDArray[np.bool_] | None = None
) -> sparse.csr_matrix:
    """Weights that average over the spots around each spot, by a Gaussian of the distance.

    Parameters
    ----------
    coords
        (n, 2) x and y of the spots, in µm. A spot with a coordinate that is not finite is nobody's neighbour.
    sigma
        Standard deviation of the Gaussian, in µm. Spots farther than three of it have no weight.
    members
        (n,) which spots the means are over; by default all.

    Returns
    -------
    (n, n) CSR float32. Rows sum to 1, rows of spots without coordinates or without a member in reach are empty, column
    indices are sorted.

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
    mean = _checked(coords, sigma, members)
    return mean.rows(np.arange(len(mean.coords)))


def gaussian_mean(
    coords: NDArray[np.floating], sigma: float, *, members: NDArray[np.bool_] | None = None
) -> sparse.csr_matrix | GaussianMean:
    """Choose how to average over the spots around each spot: by their pairs, or on a grid where these are very many.

    Parameters
    ----------
    coords
        (n, 2) x and y of the spots, in µm. A spot with a coordinate that is not finite is nobody's neighbour.
    sigma
        Standard deviation of the Gaussian, in µm. Spots farther than three of it have no weight.
    members
        (n,) which spots the means are over; by default all.

    Returns
    -------
    Where at most 300 spots are in reach of a spot on average, as on Visium or with bins of 25 µm and more: weights, (n,
    n) CSR float32, whose rows sum to 1, or are empty for spots without coordinates or without a member in reach. Else a
    `GaussianMean`. Both are applied to (n, d) values with `@`.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2), or `sigma` is not positive.
    """
    mean = _checked(coords, sigma, members)
    valid = mean.placed[np.lexsort(mean.coords[mean.placed].T)]  # by position: the order of the spots must not matter
    sample = valid[np.linspace(0, len(valid) - 1, min(len(valid), _SAMPLE)).astype(np.intp)]
    if len(sample) == 0 or mean.count(sample).mean() <= _PAIRS:
        return mean.rows(np.arange(len(mean.coords)))
    return mean


def spread(mean: sparse.csr_matrix | GaussianMean, coords: NDArray[np.floating]) -> float:
    """Standard deviation of the weights about each spot, along one axis: what a Gaussian is in effect.

    Parameters
    ----------
    mean
        What `gaussian_mean` returned.
    coords
        (n, 2) x and y of the spots, in µm.

    Returns
    -------
    The median over the spots, in µm; NaN where no spot has a mean.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.gaussian import gaussian_mean, spread
    >>> coords = 8.0 * np.stack(np.mgrid[:90, :90], axis=-1).reshape(-1, 2)
    >>> round(spread(gaussian_mean(coords, 80.0), coords))
    74
    """
    usable = np.isfinite(coords).all(axis=1)
    if not usable.any():
        return float("nan")
    centred = np.where(usable[:, None], coords - coords[usable].mean(axis=0), 0.0)
    squares = np.square(centred).sum(axis=1)
    parts = np.asarray(mean @ np.column_stack([np.ones(len(coords)), centred, squares]))
    distance = (parts[:, 3] - 2 * (centred * parts[:, 1:3]).sum(axis=1) + squares)[usable & (parts[:, 0] > 0.5)]
    return float(np.sqrt(np.median(np.maximum(distance, 0)) / 2)) if len(distance) else float("nan")


def _checked(coords: NDArray[np.floating], sigma: float, members: NDArray[np.bool_] | None) -> GaussianMean:
    places: NDArray[np.float64] = np.asarray(coords, dtype=np.float64)
    if places.ndim != 2 or places.shape[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=places.shape))
    if not sigma > 0:
        raise ValueError(message("Expected `sigma` above 0", found=sigma))
    usable = np.asarray(np.isfinite(places).all(axis=1))
    return GaussianMean(places, float(sigma), usable if members is None else usable & members)


@dataclass(frozen=True)
class GaussianMean:
    """Means over the spots around each spot, weighed by a Gaussian that is cut off at three standard deviations.

    Members and their weights are shared out to the four nearest px of a grid of an eighth of the standard deviation,
    both are convolved by FFT, read back between the px, and divided. So bins that are missing and the border of the
    tissue carry no weight, lattices may be turned and positions irregular, and the cost grows with the area and the
    number of spots but not with the spots in reach of each. Spots with few members around them are averaged over their
    pairs.

    Parameters
    ----------
    coords
        (n, 2) float64, x and y of the spots, in µm; not finite where a spot has no position.
    sigma
        Standard deviation of the Gaussian, in µm.
    members
        (n,) which spots the means are over; those have a position.
    """

    coords: NDArray[np.float64]
    sigma: float
    members: NDArray[np.bool_]

    @property
    def shape(self) -> tuple[int, int]:
        """n, n."""
        return len(self.coords), len(self.coords)

    @cached_property
    def has_members(self) -> NDArray[np.bool_]:
        """Whether a spot has a position and a member in reach, (n,)."""
        found = self._weight >= _FEW
        found[self._few[0]] = np.diff(self._few[1].indptr) > 0
        return found

    def __matmul__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Average (n, d) values: (n, d), float32 or float64 as they are; 0 for spots without a member in reach."""
        values = np.asarray(values)
        values = values.astype(np.result_type(values.dtype, np.float32), copy=False)
        means = np.empty(values.shape, dtype=values.dtype)
        step = max(1, _VALUES // int(np.prod(self._grid)))
        for start in range(0, values.shape[1], step):
            part = slice(start, start + step)
            means[:, part] = self._smooth(values[:, part])
        means /= np.where(self._weight >= _FEW, self._weight, 1)[:, None].astype(values.dtype)
        rows, graph = self._few
        means[rows] = graph[:, self.members] @ values[self.members]
        return means

    def rows(self, rows: NDArray[np.intp]) -> sparse.csr_matrix:
        """Weights of the members around some spots, over their pairs.

        Parameters
        ----------
        rows
            Positions of the spots, (m,).

        Returns
        -------
        (m, n) CSR float32. Rows sum to 1, or are empty where no member is in reach; column indices are sorted.
        """
        parts = [sparse.csr_matrix((0, len(self.coords)), dtype=np.float32)]
        columns, tree = self._tree
        for part in self._parts(rows):
            placed = np.flatnonzero(np.isfinite(self.coords[part]).all(axis=1))
            found = KDTree(self.coords[part[placed]]).sparse_distance_matrix(tree, self._reach, output_type="ndarray")
            weights = np.exp(-np.square(found["v"] / self.sigma) / 2)
            row = placed[found["i"]]
            weights /= np.bincount(row, weights, minlength=len(part))[row]
            shape = len(part), len(self.coords)
            parts.append(sparse.csr_matrix((weights.astype(np.float32), (row, columns[found["j"]])), shape=shape))
        graph = sparse.vstack(parts, format="csr")
        graph.sort_indices()
        return graph

    def draw(self, rows: NDArray[np.intp], count: int, rng: np.random.Generator) -> sparse.csr_matrix:
        """Members around some spots, drawn by their weight with replacement.

        Parameters
        ----------
        rows
            Positions of the spots, (m,).
        count
            How many are drawn for each.
        rng
            Source of randomness.

        Returns
        -------
        (m, n) CSR float32, rows as in `rows`.
        """
        graph = self.rows(rows)
        ends = np.concatenate([[0.0], np.cumsum(graph.data, dtype=np.float64)])
        first, last = graph.indptr[:-1, None], graph.indptr[1:, None]
        share = rng.random((len(rows), count))
        index = np.searchsorted(ends, ends[first] + share * (ends[last] - ends[first]), side="right") - 1
        index = np.clip(index, first, np.maximum(last - 1, first))
        some = np.broadcast_to(last > first, index.shape)
        row = np.broadcast_to(np.arange(len(rows))[:, None], index.shape)[some]
        weights = np.full(len(row), 1 / count, dtype=np.float32)
        drawn = sparse.csr_matrix((weights, (row, graph.indices[index[some]])), shape=graph.shape)
        drawn.sum_duplicates()
        return drawn

    @property
    def placed(self) -> NDArray[np.intp]:
        """Positions of the spots that have coordinates."""
        return np.flatnonzero(np.isfinite(self.coords).all(axis=1))

    def count(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Count the members in reach of some spots with coordinates, (m,)."""
        return np.asarray(
            self._tree[1].query_ball_point(self.coords[rows], self._reach, return_length=True, workers=-1)
        )

    @property
    def _reach(self) -> float:
        return _REACH * self.sigma * (1 + 1e-9)  # what is three deviations away but for rounding is in

    @cached_property
    def _tree(self) -> tuple[NDArray[np.intp], KDTree]:
        columns = np.flatnonzero(self.members)
        return columns, KDTree(self.coords[columns])

    def _parts(self, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Cut rows into parts of not too many pairs."""
        counts = np.zeros(len(rows), dtype=np.intp)
        placed = np.isfinite(self.coords[rows]).all(axis=1)
        counts[placed] = self.count(rows[placed])
        group = np.cumsum(counts) // _VALUES
        yield from np.split(rows, np.flatnonzero(np.diff(group)) + 1) if len(rows) else ()

    @cached_property
    def _shares(self) -> tuple[sparse.csr_matrix, tuple[int, int]]:
        """Shares (n, cells) of spots in the px of the grid, and its height and width with room for the Gaussian."""
        placed = self.placed
        step, points = self.sigma / _PER_SIGMA, self.coords[placed]
        points = np.column_stack([_without_gaps(axis, (_REACH + 1) * self.sigma) for axis in points.T]) / step
        cell = np.floor(points).astype(np.intp)
        size = cell.max(axis=0) + 2 + int(np.ceil(_REACH * _PER_SIGMA)) + 1
        width, height = (fft.next_fast_len(int(side), real=True) for side in size)
        part = points - cell
        index = np.column_stack([(cell[:, 1] + dy) * width + cell[:, 0] + dx for dy in (0, 1) for dx in (0, 1)])
        in_x, in_y = (np.column_stack([1 - part[:, axis], part[:, axis]]) for axis in (0, 1))
        share = np.column_stack([in_y[:, dy] * in_x[:, dx] for dy in (0, 1) for dx in (0, 1)])
        starts = np.zeros(len(self.coords) + 1, dtype=np.intp)
        starts[1 + placed] = 4
        cells = sparse.csr_matrix(
            (share.ravel(), index.ravel(), np.cumsum(starts)), shape=(len(self.coords), height * width)
        )
        return cells, (height, width)

    @property
    def _grid(self) -> tuple[int, int]:
        return self._shares[1]

    @cached_property
    def _spectrum(self) -> NDArray[np.float64]:
        """Fourier transform of the Gaussian on the grid, narrower by what sharing out and reading back widen it."""
        y, x = (np.minimum(np.arange(side), side - np.arange(side)) for side in self._grid)
        squares = (np.square(y)[:, None] + np.square(x)) / _PER_SIGMA**2
        narrowed = 1 - 1 / (3 * _PER_SIGMA**2)
        kernel = np.where(squares <= _REACH**2, np.exp(-squares / 2 / narrowed), 0)
        return np.asarray(fft.rfft2(kernel).real)  # the kernel is even

    @cached_property
    def _weight(self) -> NDArray[np.float64]:
        """Sum of the weights around each spot, (n,)."""
        return self._smooth(np.ones((len(self.coords), 1)))[:, 0]

    @cached_property
    def _few(self) -> tuple[NDArray[np.intp], sparse.csr_matrix]:
        """Spots with few members around them (m,), and their weights (m, n)."""
        rows = np.flatnonzero(self._weight < _FEW)
        return rows, self.rows(rows)

    def _smooth(self, values: NDArray[Any]) -> NDArray[Any]:
        """Sums (n, d) of weighed values around each spot."""
        cells, (height, width) = self._shares
        cells = cells.astype(values.dtype, copy=False)
        spread_out = cells[self.members].T @ values[self.members]
        planes = np.ascontiguousarray(spread_out.T).reshape(-1, height, width)
        spectrum = self._spectrum.astype(values.dtype, copy=False)
        planes = fft.irfft2(fft.rfft2(planes, workers=-1) * spectrum, s=(height, width), workers=-1)
        return np.asarray(cells @ np.ascontiguousarray(planes.reshape(len(planes), -1).T))


def _without_gaps(values: NDArray[np.float64], widest: float) -> NDArray[np.float64]:
    """Positions along an axis, (n,), from 0 on, with gaps cut to `widest`: what is that far apart is out of reach."""
    order = np.argsort(values, kind="stable")
    steps = np.minimum(np.diff(values[order], prepend=values[order[:1]]), widest)
    short = np.empty_like(values)
    short[order] = np.cumsum(steps)
    return short
