"""Where the tissue is on an H&E slide, and a grid of spots to put on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import VISIUM_PITCH_UM, VISIUM_SPOT_UM
from stalign._validate import message

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_MPP = 8.0  # µm per px at which tissue is looked for
VISIUM = "visium"
_SMOOTH_UM = 12.0  # sigma of the blur before the threshold
_SATURATION = (0.05, 0.2)  # Otsu's threshold is kept within these: a slide may be all tissue or all glass
_DARK = 0.15  # value of HSV under which saturation means nothing: black ink, black rims
_CLOSE_UM = 24.0  # radius within which gaps are bridged
_HOLE_UM = 250.0  # holes up to the area of a square of this side are filled
_PIECE_UM = 200.0  # pieces under the area of a square of this side are no tissue
_RIM = 0.02  # share of the shorter side that the rim is wide
_EVEN = 10.0  # grey levels that glass varies by at most, in the median
_BRIGHT = 120  # grey level that glass has at least in every channel
_INK_UM = 60.0  # ink is that much wider than it looks
_INK_PIECE_UM = 120.0  # coloured spots under the area of a square of this side are no ink


@dataclass(frozen=True)
class Tissue:
    """Tissue of a slide.

    Parameters
    ----------
    mask
        Where tissue is, (h, w) bool.
    ink
        Where a pen has been, (h, w) bool; it is no tissue.
    threshold
        Saturation above which a pixel is tissue.
    """

    mask: NDArray[np.bool_]
    ink: NDArray[np.bool_]
    threshold: float


@dataclass(frozen=True)
class Grid:
    """Spots on a lattice.

    Parameters
    ----------
    coords
        Centres, (n, 2), x and y in µm.
    array
        Row and column of each spot, (n, 2) int; of a hexagonal lattice both even or both odd.
    pitch_um
        Distance of neighbours in µm.
    spot_um
        Diameter of a spot, or side of a square, in µm.
    square
        Whether the lattice is square.
    """

    coords: NDArray[np.float64]
    array: NDArray[np.intp]
    pitch_um: float
    spot_um: float
    square: bool


def find_tissue(rgb: NDArray[np.uint8], mpp: float) -> Tissue:
    """Find the tissue of an H&E image.

    Tissue is what is more saturated than Otsu's threshold after a slight blur. Glass has the colour of the image's rim
    if that is even and bright, and is white, grey or black otherwise. Ink of pens (green, blue, or a red brighter than
    eosin) and what is close to it is left out. Small holes are filled, larger ones stay; small pieces are left out.

    Parameters
    ----------
    rgb
        A small version of the slide, (h, w, 3) uint8.
    mpp
        Its µm per px, best about 8.

    Returns
    -------
    The tissue.
    """
    from scipy import ndimage
    from skimage import filters, morphology
    from skimage.color import rgb2hsv

    rgb = _on_white_glass(rgb)
    ink = _ink(rgb2hsv(rgb), mpp)
    smooth = ndimage.gaussian_filter(rgb.astype(np.float32), sigma=(_SMOOTH_UM / mpp, _SMOOTH_UM / mpp, 0))
    hsv = rgb2hsv(np.clip(smooth / 255, 0, 1))
    saturation = np.where(hsv[..., 2] > _DARK, hsv[..., 1], 0.0)
    seen = saturation[~ink]
    varies = seen.size > 0 and float(np.ptp(seen)) > 0
    threshold = float(np.clip(filters.threshold_otsu(seen) if varies else _SATURATION[1], *_SATURATION))
    mask = (saturation > threshold) & ~ink
    radius = max(1, round(_CLOSE_UM / mpp))
    padded = np.pad(mask, radius, mode="edge")  # else closing would eat into tissue at the rim
    mask = ndimage.binary_closing(padded, morphology.disk(radius))[radius:-radius, radius:-radius] & ~ink
    mask = _fill(mask, (_HOLE_UM / mpp) ** 2, ink)
    return Tissue(_large(mask, (_PIECE_UM / mpp) ** 2), ink, threshold)


def _on_white_glass(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn the colour of the glass, seen along the rim of the image, to white; as it is where the rim is not glass."""
    width = max(1, round(_RIM * min(rgb.shape[:2])))
    rim = np.concatenate(
        [part.reshape(-1, 3) for part in (rgb[:width], rgb[-width:], rgb[:, :width], rgb[:, -width:])]
    ).astype(np.float32)
    glass = np.median(rim, axis=0)
    even = np.median(np.abs(rim - glass)) < _EVEN and glass.min() > _BRIGHT
    return np.clip(rgb * (255 / glass), 0, 255).astype(np.uint8) if even else rgb


def _ink(hsv: NDArray[np.float64], mpp: float) -> NDArray[np.bool_]:
    """Find marks of green, blue and red pens, and a rim around them."""
    from scipy import ndimage
    from skimage import morphology

    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    green = (hue > 0.2) & (hue < 0.55) & (saturation > 0.25)
    blue = (hue >= 0.55) & (hue < 0.68) & (saturation > 0.6)
    red = ((hue < 0.03) | (hue > 0.97)) & (saturation > 0.7)
    found = _large((green | blue | red) & (value > _DARK), (_INK_PIECE_UM / mpp) ** 2)
    if not found.any():
        return found
    return np.asarray(ndimage.binary_dilation(found, morphology.disk(max(1, round(_INK_UM / mpp)))))


def _large(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    """Keep connected pieces of at least an area in px."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray((sizes >= area)[labels])


def _fill(mask: NDArray[np.bool_], area: float, ink: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes of at most an area in px that hold no ink; what touches the rim of the image is no hole."""
    from scipy import ndimage

    labels, count = ndimage.label(~mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    small = sizes <= area
    small[np.unique(rim)] = False
    small[np.unique(labels[ink])] = False
    return np.asarray(mask | small[labels])


def make_grid(kind: Any, width_um: float, height_um: float, *, origin: tuple[float, float] = (0.0, 0.0)) -> Grid:
    """Lay a lattice over a rectangle.

    Parameters
    ----------
    kind
        `visium`: a hexagonal lattice of spots of 55 µm, 100 µm apart; or a number: squares of that side in µm.
    width_um, height_um
        Size of the rectangle in µm.
    origin
        Its corner, x and y in µm.

    Returns
    -------
    The grid; centres lie at least half a pitch inside.

    Raises
    ------
    ValueError
        If `kind` is neither.
    """
    number = isinstance(kind, int | float | np.number) and not isinstance(kind, bool)
    if kind != VISIUM and not (number and 0 < kind < np.inf):
        raise ValueError(message("Expected `grid` to be 'visium' or a pitch in µm above 0", found=repr(kind)))
    square = kind != VISIUM
    pitch = float(kind) if square else VISIUM_PITCH_UM
    down = pitch if square else pitch * np.sqrt(3) / 2
    rows = np.arange(max(0, int(np.floor((height_um - pitch) / down + 1e-9)) + 1))
    steps = max(0, int(np.floor((width_um - pitch) / pitch + 1e-9)) + 1)
    row, step = (part.ravel() for part in np.meshgrid(rows, np.arange(steps), indexing="ij"))
    odd = row % 2 if not square else np.zeros_like(row)
    x = origin[0] + pitch / 2 + (step + odd / 2) * pitch
    y = origin[1] + pitch / 2 + row * down
    column = step if square else 2 * step + odd
    inside = x <= origin[0] + width_um - pitch / 2 + 1e-9 * pitch
    coords = np.column_stack([x, y])[inside]
    spot = pitch if square else VISIUM_SPOT_UM
    return Grid(coords, np.column_stack([row, column])[inside].astype(np.intp), pitch, spot, square)


def covered(mask: NDArray[np.bool_], coords: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """Measure the share of each spot that is on tissue.

    Parameters
    ----------
    mask
        Where tissue is, (h, w) bool.
    coords
        Centres, (n, 2), x and y in px of the mask, 0 at the left edge of its first pixel.
    side
        Side of a square around each, in px of the mask.

    Returns
    -------
    (n,) from 0 to 1.
    """
    from scipy import ndimage

    size = max(1, round(side))
    share = ndimage.uniform_filter(mask.astype(np.float32), size=size, mode="nearest")
    column, row = np.floor(coords).astype(np.intp).T
    return np.asarray(
        share[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)].clip(0, 1).astype(np.float64)
    )
