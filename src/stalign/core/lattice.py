"""The lattice that spots lie on: hexagonal or square, and its pitch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE = 5000  # spots whose neighbours are looked at; more do not sharpen the estimate


def lattice(coords: NDArray[np.float64]) -> tuple[str, float]:
    """Find out whether spots lie on a hexagonal or a square lattice, and its pitch.

    Parameters
    ----------
    coords
        Positions (n, 2) in px; rows with NaN are left out.

    Returns
    -------
    `hex`, `square` or `unknown`, and the mean distance of lattice neighbours in px (NaN where unknown).

    Notes
    -----
    Neighbours are spots within 1.25 times the median nearest distance. The angles between the neighbours of one spot
    are multiples of 60° on a hexagonal and of 90° on a square lattice, so the mean of cos(6a) or of cos(4a) is near 1.
    This holds at borders and for tilted and slightly irregular arrays, where counts of neighbours do not.
    """
    coords = coords[np.isfinite(coords).all(axis=1)]
    if len(coords) < 3:
        return "unknown", float("nan")
    k = min(7, len(coords))
    sample = np.linspace(0, len(coords) - 1, min(len(coords), _SAMPLE)).astype(np.intp)
    distance, neighbour = cKDTree(coords).query(coords[sample], k=k)
    distance, neighbour = distance[:, 1:], neighbour[:, 1:]
    nearest = np.median(distance[:, 0])
    if not nearest > 0:
        return "unknown", float("nan")
    nearest = distance[distance < 1.25 * nearest].mean()
    near = distance < 1.25 * nearest
    step = coords[neighbour] - coords[sample][:, None]
    angle = np.arctan2(step[..., 1], step[..., 0])
    first, second = np.triu_indices(k - 1, 1)
    turn = (angle[:, first] - angle[:, second])[near[:, first] & near[:, second]]
    pitch = float(distance[near].mean())
    six, four = (float(np.cos(m * turn).mean()) if turn.size else 0.0 for m in (6, 4))
    if max(six, four) < 0.6 or abs(six - four) < 0.4:
        return "unknown", float("nan")
    return ("hex" if six > four else "square"), pitch


def array_lattice(coords: NDArray[np.float64], array: NDArray[np.float64]) -> tuple[str, float]:
    """Find lattice and pitch from the spots' rows and columns on the array.

    Parameters
    ----------
    coords
        Positions (n, 2) in px; rows with NaN are left out.
    array
        Row and column of each spot, (n, 2). On the hexagonal array of Visium the two are both even or both odd.

    Returns
    -------
    `hex`, `square` or `unknown`, and the pitch in px (NaN where unknown).
    """
    usable = np.isfinite(coords).all(axis=1) & np.isfinite(array).all(axis=1)
    coords, array = coords[usable], array[usable]
    if len(coords) < 2 or not np.array_equal(array, np.rint(array)):
        return "unknown", float("nan")
    hexagonal = not (array.sum(axis=1) % 2).any()
    unit = array * [np.sqrt(3) / 2, 0.5] if hexagonal else array
    spread = np.square(unit - unit.mean(axis=0)).sum()
    pitch = np.sqrt(np.square(coords - coords.mean(axis=0)).sum() / spread) if spread > 0 else 0.0
    if not pitch > 0:
        return "unknown", float("nan")
    return ("hex" if hexagonal else "square"), float(pitch)
