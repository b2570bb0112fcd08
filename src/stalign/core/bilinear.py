"""Bilinear interpolation between places on a square lattice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import positive

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Bilinear:
    """Places on a square lattice, and the four of them that each spot lies between.

    The lattice has a place at 0, 0, so that the places around a spot depend on nothing but its own position.

    Parameters
    ----------
    places
        (m, 2) x and y of the places that some spot needs, by y and x.
    corners
        (n, 4) int32, the places around each spot; 0 for a spot without coordinates.
    weights
        (n, 4) float32, their weights; rows sum to 1, and are 0 for a spot without coordinates.
    """

    places: NDArray[np.float64]
    corners: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def around(cls, coords: NDArray[np.floating], step: float) -> Bilinear:
        """Find the places around spots.

        Parameters
        ----------
        coords
            (n, 2) x and y of the spots; rows that are not finite have no places.
        step
            Distance between places, in the unit of the coordinates.

        Returns
        -------
        The places and the weights.

        Raises
        ------
        ValueError
            If `step` is no positive number.

        Examples
        --------
        >>> import numpy as np
        >>> from stalign.core.bilinear import Bilinear
        >>> between = Bilinear.around(np.array([[12.0, 5.0]]), 10.0)
        >>> between.places.tolist()
        [[10.0, 0.0], [20.0, 0.0], [10.0, 10.0], [20.0, 10.0]]
        >>> between.weights.round(2).tolist()
        [[0.4000000059604645, 0.10000000149011612, 0.4000000059604645, 0.10000000149011612]]
        """
        step = positive(step, name="step")
        placed = np.flatnonzero(np.isfinite(coords).all(axis=1))
        scaled = np.asarray(coords, dtype=np.float64)[placed] / step
        cell = np.floor(scaled).astype(np.int64)
        part = scaled - cell
        around = np.stack([cell + [dx, dy] for dy in (0, 1) for dx in (0, 1)], axis=1).reshape(-1, 2)
        share = [
            np.where(dx, part[:, 0], 1 - part[:, 0]) * np.where(dy, part[:, 1], 1 - part[:, 1])
            for dy in (0, 1)
            for dx in (0, 1)
        ]
        found, index = np.unique(around[:, ::-1], axis=0, return_inverse=True)
        corners = np.zeros((len(coords), 4), dtype=np.int32)
        weights = np.zeros((len(coords), 4), dtype=np.float32)
        corners[placed] = index.reshape(-1, 4)
        weights[placed] = np.stack(share, axis=1)
        return cls(found[:, ::-1] * step, corners, weights)

    def between(self, values: NDArray[Any], rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Interpolate.

        Parameters
        ----------
        values
            (m, ...) values at the places.
        rows
            Positions of the spots, (b,).

        Returns
        -------
        (b, ...) float32.
        """
        corners, weights = self.corners[rows], self.weights[rows]
        weights = weights.reshape(*weights.shape, *(1,) * (values.ndim - 1))
        found = values[corners[:, 0]] * weights[:, 0]
        for corner in (1, 2, 3):
            found += values[corners[:, corner]] * weights[:, corner]
        return np.asarray(found, dtype=np.float32)
