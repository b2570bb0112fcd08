"""Physical scale: µm per px from the pitch of the spots, or as stated."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import cKDTree

from stalign._constants import ST_PITCH_UM, ST_SPOT_UM, VISIUM_PITCH_UM, VISIUM_SPOT_UM
from stalign._settings import logger
from stalign._validate import message, positive, warn

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SAMPLE = 5000  # spots whose neighbours are looked at; more do not sharpen the estimate
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
    technology, pitch_um, spot_um, label = _technology(kind, bin_um)
    derived = pitch_um / pitch_px
    if mpp is not None:
        value, origin = float(mpp), "mpp= given"
    elif stated.mpp is not None:
        value, origin = float(stated.mpp), stated.origin
        of_image = [value * scale for scale in stated.image_scales if _fits(value * scale, derived)]
        if of_image and technology == "visium" and not _fits(value, derived):
            value, origin = of_image[0], f"{origin}, of the image"
    else:
        value, origin = derived, f"{label} of {pitch_um:g} µm over {pitch_px:.4g} px"
        if not np.isfinite(value):
            origin = "unknown"
        elif technology == "st" and not large:
            logger.info(
                "Section %r has no stated scale: its square lattice is taken for spots %g µm apart.",
                *(library, ST_PITCH_UM),
            )
        elif large:
            origin += ", assumed"
            warn(
                message(
                    f"Expected bins of a known size in section {library!r}, a square lattice larger than the Spatial "
                    f"Transcriptomics arrays ({_ST_SPOTS} spots, {_ST_ROWS} in a row)",
                    found=f"{len(coords)} spots and no stated scale; taken for spots {ST_PITCH_UM:g} µm apart",
                    hint=f"If they are bins, pass `mpp=` to `pp.patches`, or {_STATE_BINS}",
                )
            )
    if np.isfinite(derived) and not _fits(value, derived):
        warn(
            message(
                f"Expected the scale of section {library!r} to fit the pitch of its spots",
                found=f"{value:.4g} µm per px ({origin}), where the {label} of {pitch_um:g} µm gives {derived:.4g}",
                hint="Check the stated scale and the units of the coordinates"
                + (f", or, if these are bins, {_STATE_BINS}" if technology == "st" else ""),
            )
        )
    ratio = stated.spot_px / pitch_px if stated.spot_px and technology in {"visium", "st"} else _SPOT_PER_PITCH[0]
    touching = technology == "st" and _fits(ratio, 1.0)
    if touching or not _SPOT_PER_PITCH[0] <= ratio <= _SPOT_PER_PITCH[1]:
        warn(
            message(
                f"Expected the coordinates of section {library!r} in px of the full-resolution image",
                found=f"spots {pitch_px:.4g} px apart, but {stated.spot_px:.4g} px wide by the scale factors",
                hint=f"If these are bins, side by side, {_STATE_BINS}"
                if touching
                else "Divide the coordinates by the scale factor that they were multiplied with",
            )
        )
    if not np.isfinite(pitch_um):
        pitch_um, spot_um, technology = _from_spot(value, stated.spot_px)
    spot_um = spot_um if spot_diameter is None else float(spot_diameter)
    return Scale(value, origin, pitch_um, spot_um, technology, mpp is not None, spot_diameter is not None)


def _fits(value: float, derived: float) -> bool:
    """Whether a scale is that of the pitch."""
    return bool(abs(value / derived - 1) <= _TOLERANCE)


def _technology(kind: str, bin_um: float | None) -> tuple[str, float, float, str]:
    if bin_um is not None:
        return "hd", bin_um, bin_um, "bin size"
    if kind == "hex":
        return "visium", VISIUM_PITCH_UM, VISIUM_SPOT_UM, "Visium pitch"
    if kind == "square":
        return "st", ST_PITCH_UM, ST_SPOT_UM, "Spatial Transcriptomics pitch"
    return "unknown", float("nan"), float("nan"), "pitch"


def _larger_than_st(coords: NDArray[np.float64], pitch_px: float) -> bool:
    """Whether a square lattice has more spots than the largest Spatial Transcriptomics array, or is wider."""
    coords = coords[np.isfinite(coords).all(axis=1)]
    return len(coords) > _ST_SPOTS or bool(np.ptp(coords, axis=0).max() > 1.1 * _ST_ROWS * pitch_px)


def _from_spot(mpp: float, spot_px: float | None) -> tuple[float, float, str]:
    """Guess the array from the size of its spots, where too few are left to see the lattice."""
    diameter = mpp * spot_px if spot_px is not None else float("nan")
    if 0.9 * VISIUM_SPOT_UM <= diameter <= 1.35 * VISIUM_SPOT_UM:  # Space Ranger's diameter is 65 to 70 µm
        return VISIUM_PITCH_UM, VISIUM_SPOT_UM, "visium"
    if 0.9 * ST_SPOT_UM <= diameter <= 1.1 * ST_SPOT_UM:
        return ST_PITCH_UM, ST_SPOT_UM, "st"
    return float("nan"), diameter, "unknown"


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
