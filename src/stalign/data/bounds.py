"""Whether spots lie inside their image, and the likely mistake where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from stalign._validate import message, warn
from stalign.data.numbers import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from stalign.data.images import SectionImage

_FEW: Final = 2  # spots outside the image that are tolerated
_SHARE: Final = 0.01  # or this share of the spots with coordinates
_DIRECTION: Final = np.array([1.0, np.sqrt(2)])  # no two places of a grid have the same product with it
_TWICE: Final = 0.2  # share of spots in the place of another from which a section looks like several


def inside(
    coords: NDArray[np.float64],
    image: SectionImage,
    library: str,
    factors: Mapping[str, Any],
    pitch: float = float("nan"),
) -> NDArray[np.float64]:
    """Check that spots lie in the image.

    Parameters
    ----------
    coords
        Positions (n, 2), x and y in coordinate px.
    image
        The section's image.
    library
        Name of the section, for messages.
    factors
        The section's scale factors, for the search for the mistake.
    pitch
        Distance between spots in coordinate px; NaN where unknown.

    Returns
    -------
    Positions (n, 2), with NaN for the few spots outside.

    Raises
    ------
    ValueError
        If more than 2 spots and more than 1 % of those with coordinates lie outside, and not all of these within a
        pitch of the image, as at the border of a cropped object.

    Warns
    -----
    UserWarning
        If fewer do.
    """
    valid = np.isfinite(coords).all(axis=1)
    out = valid & ~_within(image.to_pixels(coords), image.shape)
    n_out, n_valid = int(out.sum()), int(valid.sum())
    if n_out == 0:
        return coords
    height, width = image.shape
    beside = _within(image.to_pixels(coords[out]), image.shape, margin=pitch * image.scale).all()
    if n_out > _FEW and n_out > _SHARE * n_valid and not (beside and n_out < n_valid / 2):
        low, high = (np.round(f(image.to_pixels(coords[valid]), axis=0), 1) for f in (np.min, np.max))
        where = f"x {low[0]:g} to {high[0]:g} and y {low[1]:g} to {high[1]:g} px"
        raise ValueError(
            message(
                f"Expected the spots of section {library!r} inside its image {image.key!r} of {width} x {height} px",
                found=f"{n_out} of {n_valid} outside, at {where}",
                hint=_likely(coords[valid], image, factors),
            )
        )
    warn(
        f"{n_out} of {n_valid} spots of section {library!r} lie outside its image {image.key!r} of "
        f"{width} x {height} px; they are treated as invalid."
    )
    coords = coords.copy()
    coords[out] = np.nan
    return coords


def _within(pixels: NDArray[np.float64], shape: tuple[int, int], margin: float = 0.0) -> NDArray[np.bool_]:
    return np.asarray(((pixels >= -margin) & (pixels <= np.add([shape[1], shape[0]], margin))).all(axis=1))


def _fits(pixels: NDArray[np.float64], shape: tuple[int, int]) -> bool:
    """Whether the spots lie inside and cover a fair part of the image, so that the guess is no accident."""
    extent = (pixels.max(axis=0) - pixels.min(axis=0)) / [shape[1], shape[0]]
    return bool(_within(pixels, shape).mean() >= 1 - _SHARE and extent.max() > 0.2)


def _likely(coords: NDArray[np.float64], image: SectionImage, factors: Mapping[str, Any]) -> str:
    for swap in (False, True):
        points = coords[:, ::-1] if swap else coords
        if swap and _fits(image.to_pixels(points), image.shape):
            return "x and y look swapped: use obsm['spatial'][:, ::-1]"
        for name, factor in _candidates(image, factors).items():
            if _fits(image.to_pixels(points * factor / image.scale), image.shape):
                also = " and x and y look swapped" if swap else ""
                return (
                    f"They would fit with {name} = {factor:g} image px per coordinate px, not {image.scale:g}{also}: "
                    f"check which image is stored as {image.key!r} and in which px the coordinates are"
                )
    return "Check the scale factors, and that the image and the coordinates are of one section"


def _candidates(image: SectionImage, factors: Mapping[str, Any]) -> dict[str, float]:
    """Scale factors that users mix up: that of another image, none, or one applied to the coordinates before."""
    keys = [key for key in factors if key.startswith("tissue_") and key.endswith("_scalef")]
    named = {key: number(factors, key, where="the section") or 1.0 for key in keys}
    found = {"a factor of 1": 1.0, **named}
    for other, value in named.items():
        found[f"coordinates in px of {other.removeprefix('tissue_').removesuffix('_scalef')!r}, so"] = (
            image.scale / value
        )
    return {name: factor for name, factor in found.items() if not np.isclose(factor, image.scale)}


def warn_of_overlap(coords: NDArray[np.float64], array: NDArray[np.float64] | None, library: str) -> None:
    """Warn where a section looks like several that lie on top of each other, as after a concatenation.

    Parameters
    ----------
    coords
        Positions (n, 2), x and y in coordinate px.
    array
        Row and column of each spot on the array, (n, 2), or None.
    library
        Name of the section, for the message.

    Warns
    -----
    UserWarning
        If a fifth of the spots have the position of another, or its place on the array and lie within the same area.
    """
    valid = np.isfinite(coords).all(axis=1)
    if not valid.any():
        return
    places = [coords[valid]] if array is None else [coords[valid], array[valid]]
    for place in places:
        again = pd.Series(place @ _DIRECTION).duplicated().to_numpy()  # one number a place, which is faster than two
        if again.mean() < _TWICE or not again.any() or not _share_ground(coords[valid], again):
            continue
        warn(
            message(
                f"Expected one section in {library!r}",
                found=f"{int(again.sum())} of {len(again)} spots in the place of another",
                hint="If these are several sections, pass the obs column that tells them apart as `library_key=`",
            )
        )
        return


def _share_ground(coords: NDArray[np.float64], again: NDArray[np.bool_]) -> bool:
    """Say whether the middle of some spots lies within the extent of the others."""
    middle, rest = np.median(coords[again], axis=0), coords[~again]
    return bool(((middle >= rest.min(axis=0)) & (middle <= rest.max(axis=0))).all())


def warn_of_mirror(coords: NDArray[np.float64], array: NDArray[np.float64] | None, library: str) -> None:
    """Warn where bins lie as in a mirror against their rows and columns on the array.

    Parameters
    ----------
    coords
        Positions (n, 2), x and y in coordinate px.
    array
        Row and column of each bin on the array, (n, 2), or None.
    library
        Name of the section, for the message.

    Warns
    -----
    UserWarning
        If they do. Arrays may be turned against the image, which is no mirror.
    """
    usable = np.isfinite(coords).all(axis=1)
    usable &= False if array is None else np.isfinite(array).all(axis=1)
    if array is None or usable.sum() < 3:
        return
    grid, at = (part[usable] - part[usable].mean(axis=0) for part in (array[:, ::-1], coords))
    steps = np.linalg.lstsq(grid, at, rcond=None)[0]
    if np.linalg.det(steps) < 0 and np.abs(at - grid @ steps).max() < np.sqrt(-np.linalg.det(steps)):
        warn(
            message(
                f"Expected the bins of section {library!r} to lie on their image as on the array, turned at most",
                found="a mirror image of the array: x and y look swapped, or the image is mirrored",
                hint="If the image does not fit (see `pl.patches`), use obsm['spatial'][:, ::-1]",
            )
        )
