"""Images of a SpatialData: their channels, where they lie, and the level that is fine enough."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign.data.images import SLACK, SectionImage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
_NUMBERED = re.compile(r"[a-z]*[ _]*\d+")  # names that say nothing: 0, c0, channel_1


def arrays(element: Any) -> list[Any]:
    """Get the levels of an image element.

    Parameters
    ----------
    element
        A single-scale or multi-scale image.

    Returns
    -------
    DataArrays (c, y, x), finest first.
    """
    if isinstance(element.dims, tuple):
        return [element]
    return [next(iter(element[name].values())) for name in element]


def channels(element: Any) -> tuple[tuple[int, int, int] | None, str]:
    """Find out which channels of an image are red, green and blue.

    Parameters
    ----------
    element
        The image.

    Returns
    -------
    Positions of red, green and blue, None where the channels stand in that order; and why this can be no H&E image, or
    "".
    """
    array = arrays(element)[0]
    names = [str(name).strip().lower() for name in array.coords["c"].values] if "c" in array.coords else []
    colours = {_COLOURS[name]: place for place, name in enumerate(names) if name in _COLOURS}
    if len(colours) == 3:
        rgb = (colours[0], colours[1], colours[2])
        return (None if rgb == (0, 1, 2) and len(names) <= 4 else rgb), ""
    n = int(array.sizes["c"])
    if n in (3, 4) and all(_NUMBERED.fullmatch(name) for name in names):
        return None, ""
    listed = ", ".join(names[:5]) + (" …" if n > 5 else "")
    return None, f"{n} channel{'s' if n > 1 else ''} ({listed}), not red, green and blue"


def affine(transformation: Any) -> NDArray[np.float64]:
    """Get a transformation as a matrix.

    Parameters
    ----------
    transformation
        A transformation of spatialdata.

    Returns
    -------
    Matrix (3, 3) on (x, y, 1).
    """
    return np.asarray(transformation.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y")), dtype=np.float64)


def turned_scale(matrix: NDArray[np.float64], *, any_angle: bool = False) -> tuple[float, NDArray[np.float64]] | None:
    """Split a matrix into a scale and a turn.

    Parameters
    ----------
    matrix
        Matrix (3, 3) on (x, y, 1).
    any_angle
        Whether any turn or flip will do, rather than only those that keep to the axes.

    Returns
    -------
    Scale, and the turn (2, 2), a matrix of 0, 1 and -1 unless `any_angle`; None where there is no such scale or turn.
    """
    linear = matrix[:2, :2]
    scale = float(np.sqrt(abs(np.linalg.det(linear))))
    if not scale > 0:
        return None
    turn = linear / scale
    if any_angle:
        return (scale, turn) if np.allclose(turn @ turn.T, np.eye(2), atol=2e-3) else None
    axes = np.rint(turn)
    if not np.array_equal(np.abs(axes) @ np.ones(2), np.ones(2)) or not np.allclose(turn, axes, atol=1e-3):
        return None
    off = np.abs(turn[axes == 0])
    return (scale, axes) if (off <= 1e-6).all() else None


def open_level(
    element: Any,
    name: str,
    scale: float,
    turn: NDArray[np.float64],
    offset: NDArray[np.float64],
    *,
    mpp: float,
    want_mpp: float | None = None,
    rgb: tuple[int, int, int] | None = None,
) -> SectionImage:
    """Open an image at the level that is fine enough.

    Parameters
    ----------
    element
        The image.
    name
        Its name.
    scale
        Px of the finest level per coordinate px.
    turn
        Turn or flip from the coordinates to the image, (2, 2) of 0, 1 and -1.
    offset
        Position (x, y) of the coordinates' origin in px of the finest level.
    mpp
        µm per coordinate px.
    want_mpp
        µm per px that will be needed, or None for the finest level.
    rgb
        Positions of the red, green and blue channels; None for the first three.

    Returns
    -------
    The image: the coarsest level of at most `want_mpp`, or the finest where none is.
    """
    levels = arrays(element)
    shrink = [_shrink(levels[0], level) for level in levels]
    choice = 0
    for index, factor in enumerate(shrink):
        if want_mpp is not None and mpp / scale * factor <= SLACK * want_mpp:
            choice = index
    level = levels[choice].transpose("c", "y", "x")
    size = float(f"{scale / shrink[choice]:.12g}")  # undoes the rounding of stored inverse factors
    origin = (float(offset[0] / shrink[choice]), float(offset[1] / shrink[choice]))
    shape = (int(level.sizes["y"]), int(level.sizes["x"]))
    (a, b), (c, d) = turn.astype(int).tolist()
    place: Any = {"scale": size, "offset": origin, "mpp": mpp / size, "shape": shape, "turn": ((a, b), (c, d))}
    return SectionImage(name, level.data, channels_first=True, rgb=rgb, **place)


def _shrink(full: Any, level: Any) -> float:
    """Px of the finest level per px of another; exact where it was made by whole factors that cut off the rest."""
    ratios = [full.sizes[axis] / level.sizes[axis] for axis in ("y", "x")]
    whole = round(sum(ratios) / 2)
    if all(full.sizes[axis] // whole == level.sizes[axis] for axis in ("y", "x")):
        return float(whole)
    return float(np.sqrt(ratios[0] * ratios[1]))
