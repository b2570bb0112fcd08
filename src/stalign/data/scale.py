"""Physical scale: µm per px from the pitch of the spots, or as stated."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stalign._constants import ST_PITCH_UM, ST_SPOT_UM, VISIUM_PITCH_UM, VISIUM_SPOT_UM
from stalign._settings import logger
from stalign._validate import message, positive, warn
from stalign.core.lattice import array_lattice, lattice

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPOT_PER_PITCH = (0.35, 1.0)  # Visium has 0.55 to 0.7, the older arrays 0.5; others are coordinates in other px
_ST_SPOTS, _ST_ROWS = 1934, 67  # of the larger of the two arrays, of 64 x 67 places; the other has 1,007 spots
_STATE_BINS = "put their edge in µm into `uns['spatial'][section]['scalefactors']['bin_size_um']`"
_TOLERANCE = 0.05  # relative difference between a stated scale and the pitch that is worth a warning


@dataclass(frozen=True)
class Stated:
    """What a container says about its scale.

    Parameters
    ----------
    mpp
        µm per coordinate px, or None.
    origin
        Where that is written.
    bin_um
        Edge of a Visium HD bin in µm, or None.
    spot_px
        Diameter of a spot in coordinate px, or None.
    array
        Row and column of each spot on the array, (n, 2), or None.
    image_scales
        Px of each image for a coordinate px: `mpp` is often that of an image rather than of the coordinates.
    """

    mpp: float | None = None
    origin: str = ""
    bin_um: float | None = None
    spot_px: float | None = None
    array: NDArray[np.float64] | None = field(default=None, repr=False)
    image_scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scale:
    """Physical scale of a section; NaN where it is unknown.

    Parameters
    ----------
    mpp
        µm per coordinate px.
    origin
        Where `mpp` comes from, in words.
    pitch_um
        Distance between the centres of neighbouring spots in µm.
    spot_um
        Diameter of a spot, or edge of a bin, in µm.
    technology
        `visium`, `st`, `hd` or `unknown`.
    mpp_given, spot_given
        Whether the user gave `mpp` and `spot_um`.
    """

    mpp: float
    origin: str
    pitch_um: float
    spot_um: float
    technology: str
    mpp_given: bool = False
    spot_given: bool = False


def resolve(
    coords: NDArray[np.float64], stated: Stated, *, library: str, mpp: float | None, spot_diameter: float | None
) -> Scale:
    """Settle the physical scale of a section.

    Parameters
    ----------
    coords
        Positions (n, 2) in coordinate px.
    stated
        What the container says.
    library
        Name of the section, for messages.
    mpp
        µm per coordinate px given by the user; it wins.
    spot_diameter
        Spot diameter in µm given by the user; it wins.

    Returns
    -------
    The scale.

    Raises
    ------
    ValueError
        If `mpp` or `spot_diameter` is not a positive number.

    Warns
    -----
    UserWarning
        If a given or stated scale and the pitch of the spots differ by more than 5 %, the coordinates are in other px
        than the stated spot diameter, spots on a square lattice touch, as bins do, or a square lattice larger than the
        Spatial Transcriptomics arrays has no stated scale.

    Notes
    -----
    A square lattice that is larger than those arrays, and has a scale by which its pitch is not theirs, is one of bins.
    A stated scale that does not fit the pitch of Visium in px of the coordinates, but does in px of an image, is that
    of the image. Squares have no pitch of their own that could tell.
    """
    for name, given in (("mpp", mpp), ("spot_diameter", spot_diameter), ("um_per_px", stated.mpp)):
        if given is not None:
            positive(given, name=name, unit="µm")
    kind, pitch_px = lattice(coords)
    if kind == "unknown" and stated.array is not None:
        kind, pitch_px = array_lattice(coords, stated.array)
    large = kind == "square" and stated.bin_um is None and _larger_than_st(coords, pitch_px)
    known = mpp if mpp is not None else stated.mpp
    bin_um = stated.bin_um
    if large and known is not None and abs(known * pitch_px / ST_PITCH_UM - 1) > _TOLERANCE:
        bin_um = float(known * pitch_px)
    array = _array(kind, bin_um)
    derived = array.pitch_um / pitch_px
    if mpp is not None:
        value, origin = float(mpp), "mpp= given"
    elif stated.mpp is not None:
        value, origin = _as_stated(stated, stated.mpp, array, derived)
    else:
        value, origin = derived, _origin(array, pitch_px, n_bins=len(coords) if large else 0, library=library)
    if np.isfinite(derived) and not _fits(value, derived):
        warn(
            message(
                f"Expected the scale of section {library!r} to fit the pitch of its spots",
                found=f"{value:.4g} µm per px ({origin}), where the {array.label} of {array.pitch_um:g} µm gives "
                f"{derived:.4g}",
                hint="Check the stated scale and the units of the coordinates"
                + (f", or, if these are bins, {_STATE_BINS}" if array.technology == "st" else ""),
            )
        )
    if stated.spot_px and array.technology in {"visium", "st"}:
        _check_width(stated.spot_px, pitch_px, array.technology, library)
    if not np.isfinite(array.pitch_um):
        array = _from_spot(value, stated.spot_px)
    spot_um = array.spot_um if spot_diameter is None else float(spot_diameter)
    return Scale(value, origin, array.pitch_um, spot_um, array.technology, mpp is not None, spot_diameter is not None)


def _as_stated(stated: Stated, mpp: float, array: _Array, derived: float) -> tuple[float, str]:
    """Take the stated scale for that of an image where it fits the pitch of Visium there, and not in coordinate px."""
    of_image = [mpp * scale for scale in stated.image_scales if _fits(mpp * scale, derived)]
    if of_image and array.technology == "visium" and not _fits(mpp, derived):
        return float(of_image[0]), f"{stated.origin}, of the image"
    return float(mpp), stated.origin


def _origin(array: _Array, pitch_px: float, *, n_bins: int, library: str) -> str:
    """Say in words how a scale follows from the pitch, and tell what was assumed of squares."""
    if not np.isfinite(array.pitch_um / pitch_px):
        return "unknown"
    origin = f"{array.label} of {array.pitch_um:g} µm over {pitch_px:.4g} px"
    if n_bins:
        warn(
            message(
                f"Expected bins of a known size in section {library!r}, a square lattice larger than the Spatial "
                f"Transcriptomics arrays ({_ST_SPOTS} spots, {_ST_ROWS} in a row)",
                found=f"{n_bins} spots and no stated scale; taken for spots {ST_PITCH_UM:g} µm apart",
                hint=f"If they are bins, pass `mpp=` to `pp.patches`, or {_STATE_BINS}",
            )
        )
        return f"{origin}, assumed"
    if array.technology == "st":
        logger.info(
            "Section %r has no stated scale: its square lattice is taken for spots %g µm apart.",
            *(library, ST_PITCH_UM),
        )
    return origin


def _check_width(spot_px: float, pitch_px: float, technology: str, library: str) -> None:
    """Warn of a spot too wide or too narrow for its pitch: the coordinates are in other px, or they are bins."""
    ratio = spot_px / pitch_px
    touching = technology == "st" and _fits(ratio, 1.0)
    if touching or not _SPOT_PER_PITCH[0] <= ratio <= _SPOT_PER_PITCH[1]:
        warn(
            message(
                f"Expected the coordinates of section {library!r} in px of the full-resolution image",
                found=f"spots {pitch_px:.4g} px apart, but {spot_px:.4g} px wide by the scale factors",
                hint=f"If these are bins, side by side, {_STATE_BINS}"
                if touching
                else "Divide the coordinates by the scale factor that they were multiplied with",
            )
        )


def _fits(value: float, derived: float) -> bool:
    """Whether a scale is that of the pitch."""
    return bool(abs(value / derived - 1) <= _TOLERANCE)


class _Array(NamedTuple):
    """What kind of array spots lie on, and its sizes in µm."""

    technology: str
    pitch_um: float
    spot_um: float
    label: str = ""


def _array(kind: str, bin_um: float | None) -> _Array:
    if bin_um is not None:
        return _Array("hd", bin_um, bin_um, "bin size")
    if kind == "hex":
        return _Array("visium", VISIUM_PITCH_UM, VISIUM_SPOT_UM, "Visium pitch")
    if kind == "square":
        return _Array("st", ST_PITCH_UM, ST_SPOT_UM, "Spatial Transcriptomics pitch")
    return _Array("unknown", float("nan"), float("nan"), "pitch")


def _larger_than_st(coords: NDArray[np.float64], pitch_px: float) -> bool:
    """Whether a square lattice has more spots than the largest Spatial Transcriptomics array, or is wider."""
    coords = coords[np.isfinite(coords).all(axis=1)]
    return len(coords) > _ST_SPOTS or bool(np.ptp(coords, axis=0).max() > 1.1 * _ST_ROWS * pitch_px)


def _from_spot(mpp: float, spot_px: float | None) -> _Array:
    """Guess the array from the size of its spots, where too few are left to see the lattice."""
    diameter = mpp * spot_px if spot_px is not None else float("nan")
    if 0.9 * VISIUM_SPOT_UM <= diameter <= 1.35 * VISIUM_SPOT_UM:  # Space Ranger's diameter is 65 to 70 µm
        return _Array("visium", VISIUM_PITCH_UM, VISIUM_SPOT_UM)
    if 0.9 * ST_SPOT_UM <= diameter <= 1.1 * ST_SPOT_UM:
        return _Array("st", ST_PITCH_UM, ST_SPOT_UM)
    return _Array("unknown", float("nan"), diameter)


def bin_size(name: str) -> float | None:
    """Read the bin size from a Visium HD name such as `square_008um`.

    Parameters
    ----------
    name
        Name of a table or element.

    Returns
    -------
    Bin edge in µm, or None.
    """
    found = re.search(r"square_(\d{3})um", name)
    return float(found.group(1)) if found else None
