"""What a panel of tissue is made of: the image, spots at their true size, a scale bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from stalign._validate import message
from stalign.core.niches import nearest
from stalign.pl._bar import scale_bar
from stalign.pl._canvas import PANEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from stalign.data import Section

RASTER_FROM = 50_000  # spots above which a panel is painted as one image
_RASTER_PX = 1600  # px, longest side of that image
_IMAGE_PX = 1400  # px, longest side of the image under the spots
_DARK = 0.45  # brightness from 0 to 1 below which a scale bar is white
_SAMPLE = 5000  # bins whose neighbours say how the lattice is turned
_TITLE = 0.3  # inches above a panel


@dataclass(frozen=True)
class Tissue:
    """A section in the units of a panel: µm where the scale is known, coordinate px otherwise.

    Parameters
    ----------
    section
        The section.
    unit
        µm per coordinate px, or 1.
    xy
        Positions of the spots, (n, 2); NaN where there is none.
    diameter
        Diameter of a spot.
    turn
        Angle of the lattice of bins against the x axis, in radians, between -45 and 45 degrees; 0 for other spots.
    """

    section: Section
    unit: float
    xy: NDArray[np.float64]
    diameter: float
    turn: float = 0.0

    @property
    def in_um(self) -> bool:
        """Whether the panel is in µm."""
        return bool(np.isfinite(self.section.coord_mpp))

    def from_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert px of the section's image, (..., 2), to units of the panel."""
        image = self.section.image
        if image is None:
            return pixels
        return image.to_coords(pixels) * self.unit


def tissue(section: Section) -> Tissue:
    """Put a section into the units of a panel.

    Parameters
    ----------
    section
        The section.

    Returns
    -------
    The section, with a guess of the spots' diameter where it is unknown: nine tenths of the distance to the next spot.
    """
    known = np.isfinite(section.coord_mpp)
    unit = float(section.coord_mpp) if known else 1.0
    xy = section.coords * unit
    diameter = float(section.spot_diameter_um) if known else float("nan")
    if not np.isfinite(diameter):
        diameter = 0.9 * _spacing(xy)
    turn = _turn(xy) if section.technology == "hd" else 0.0
    return Tissue(section, unit, xy, diameter, turn)


def _spacing(xy: NDArray[np.float64]) -> float:
    valid = xy[np.isfinite(xy).all(axis=1)]
    sample = valid if len(valid) <= RASTER_FROM else valid[:RASTER_FROM]
    if len(sample) < 2:
        return 1.0
    distance = np.linalg.norm(sample - sample[nearest(sample, 1)[:, 0]], axis=1)
    return float(np.median(distance)) or 1.0


def _turn(xy: NDArray[np.float64]) -> float:
    """Angle of a square lattice against the x axis, in radians; 0 where it is less than a twentieth of a degree."""
    valid = xy[np.isfinite(xy).all(axis=1)]
    if len(valid) < 2:
        return 0.0
    sample = valid[np.linspace(0, len(valid) - 1, min(len(valid), _SAMPLE)).astype(np.intp)]
    distance, index = KDTree(valid).query(sample, k=2)
    near = distance[:, 1] < 1.25 * np.median(distance[:, 1])
    step = (valid[index[:, 1]] - sample)[near]
    angle = float(np.angle(np.exp(4j * np.arctan2(step[:, 1], step[:, 0])).mean()) / 4)
    return angle if abs(angle) > np.deg2rad(0.05) else 0.0


def panel_size(places: Sequence[Tissue], *, bar: bool) -> tuple[list[float], float]:
    """Choose the size of panels that fit their sections, all of one height and about one area.

    Parameters
    ----------
    places
        The sections, one per panel.
    bar
        Whether the panels have a scale bar.

    Returns
    -------
    Widths in inches, one per panel, and the height with the title.
    """
    views = [_view(place, bar=bar) for place in places]
    shapes = [float(np.clip((x1 - x0) / (y1 - y0), 0.4, 2.5)) for x0, y0, x1, y1 in views]
    height = max(PANEL / np.sqrt(shape) for shape in shapes)
    return [float(height * shape) for shape in shapes], float(height) + _TITLE


def _view(place: Tissue, *, bar: bool) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the spots with a margin, and room for a scale bar below them, in units of the panel."""
    valid = place.xy[np.isfinite(place.xy).all(axis=1)]
    if not len(valid):
        raise ValueError(
            message(f"Expected spots of section {place.section.name!r} to have positions", found="NaN or none for all")
        )
    margin = 1.5 * place.diameter
    (x0, y0), (x1, y1) = valid.min(axis=0) - margin, valid.max(axis=0) + margin
    below = 0.08 * float(y1 - y0) if bar and place.in_um else 0.0
    return float(x0), float(y0), float(x1), float(y1) + below


def frame(
    ax: Axes,
    place: Tissue,
    *,
    image: bool | float,
    view: tuple[float, float, float, float] | None = None,
    bar: bool = True,
) -> None:
    """Prepare a panel: limits, image and scale bar.

    Parameters
    ----------
    ax
        The panel.
    place
        The section.
    image
        Opacity of the image, where there is one; 0 or False leaves it out.
    view
        x0, y0, x1, y1 to show, in units of the panel; by default the spots with a margin.
    bar
        Whether to draw a scale bar, where the scale is known.

    Raises
    ------
    ValueError
        If no spot has a position.
    """
    view = _view(place, bar=bar) if view is None else view
    dark = None
    if image and place.section.image is not None:
        dark = _draw_image(ax, place, view, float(image))
    ax.set_xlim(view[0], view[2])
    ax.set_ylim(view[3], view[1])  # y grows downwards, as in the image
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if bar and place.in_um:
        scale_bar(ax, view, dark=dark)


def _draw_image(ax: Axes, place: Tissue, view: tuple[float, float, float, float], opacity: float) -> bool | None:
    """Draw what the panel shows of the image, no finer than a panel can show.

    Returns
    -------
    Whether it is dark where the scale bar comes; None where it does not reach.
    """
    from matplotlib.colors import to_rgb

    picture = place.section.image
    if picture is None:
        return None
    corners = picture.to_windows(np.array([view]) / place.unit).reshape(2, 2)
    side = float((corners[1] - corners[0]).max())
    if side < 0.3 * max(picture.shape):  # a close-up: cut it, as the thumbnail would be coarse
        centre = corners.mean(axis=0)
        window = np.concatenate([centre - side / 2, centre + side / 2])
        pixels = picture.patches(window[None], int(min(_IMAGE_PX, max(1, np.ceil(side)))))[0]
        edges = place.from_pixels(window.reshape(2, 2))
    else:
        pixels, _ = picture.thumbnail(_IMAGE_PX)
        edges = place.from_pixels(np.array([[0.0, 0.0], [picture.shape[1], picture.shape[0]]]))
    pixels = picture.along_coords(pixels)
    (x0, y0), (x1, y1) = edges.min(axis=0), edges.max(axis=0)
    ax.imshow(pixels, extent=(x0, x1, y1, y0), interpolation="antialiased", zorder=0, aspect="auto", alpha=opacity)
    ax.patch.set_visible(True)  # what shows through
    width, height = view[2] - view[0], view[3] - view[1]
    corners = np.array([[view[0], view[3] - 0.1 * height], [view[0] + 0.3 * width, view[3]]])
    px = (corners - np.array([x0, y0])) / np.array([x1 - x0, y1 - y0]) * pixels.shape[1::-1]
    (left, top), (right, bottom) = np.maximum(px.astype(int), 0)
    under = pixels[top:bottom, left:right, :3]
    if not under.size:
        return None
    return bool(opacity * under.mean() / 255 + (1 - opacity) * np.mean(to_rgb(ax.get_facecolor())) < _DARK)


def spots(ax: Axes, place: Tissue, rgb: NDArray[np.float64], *, size: float = 1.0, alpha: float | None = None) -> None:
    """Draw spots at their true size: circles, squares for bins, one image where there are very many.

    Parameters
    ----------
    ax
        The panel.
    place
        The section.
    rgb
        Colour of each spot, (n, 3) or (n, 4), 0 to 1.
    size
        Multiple of the true diameter.
    alpha
        Opacity; None for that of `rgb`.
    """
    from matplotlib.collections import EllipseCollection, PolyCollection

    valid = np.isfinite(place.xy).all(axis=1)
    xy, rgb, diameter = place.xy[valid], rgb[valid], place.diameter * size
    if len(xy) > RASTER_FROM:
        _paint(ax, xy, rgb, diameter, alpha, squares=place.section.technology == "hd", turn=place.turn)
        return
    style: dict[str, Any] = {
        "facecolors": rgb,
        "edgecolors": "none",
        "alpha": alpha,
        "zorder": 2,
        "rasterized": len(xy) > 2000,
    }
    if place.section.technology == "hd":
        corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ _rotation(place.turn).T * diameter / 2
        ax.add_collection(PolyCollection(list(xy[:, None] + corner), **style), autolim=False)
        return
    circles = EllipseCollection(diameter, diameter, 0, units="xy", offsets=xy, offset_transform=ax.transData, **style)
    ax.add_collection(circles, autolim=False)


def _rotation(turn: float) -> NDArray[np.float64]:
    """Matrix (2, 2) that turns x towards y."""
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def _paint(
    ax: Axes,
    xy: NDArray[np.float64],
    rgb: NDArray[np.float64],
    diameter: float,
    alpha: float | None,
    *,
    squares: bool,
    turn: float,
) -> None:
    """Paint spots into one RGBA image: each px takes the colour of the nearest spot, if it lies in that spot.

    The image lies along the lattice of bins, and is turned as a whole.
    """
    from matplotlib.transforms import Affine2D
    from scipy.ndimage import distance_transform_cdt, distance_transform_edt

    xy = xy @ _rotation(turn)
    low, high = xy.min(axis=0) - diameter, xy.max(axis=0) + diameter
    px = float((high - low).max()) / _RASTER_PX
    width, height = (int(np.ceil(extent / px)) for extent in high - low)
    column, row = np.floor((xy - low) / px).astype(np.intp).T
    color = np.zeros((height, width, 4), dtype=np.float32)
    color[row, column] = np.concatenate([rgb[:, :3], np.ones((len(rgb), 1))], axis=1)
    empty = np.ones((height, width), dtype=bool)
    empty[row, column] = False
    if squares:  # as many px as reach from the middle of a bin to its edge, so that neighbours leave no gap
        distance, nearest_px = distance_transform_cdt(empty, metric="chessboard", return_indices=True)
        inside = distance <= np.ceil((diameter / px - 1) / 2)
    else:
        distance, nearest_px = distance_transform_edt(empty, return_indices=True)
        inside = distance <= max(diameter / px / 2, 0.5)
    picture = color[nearest_px[0], nearest_px[1]] * inside[..., None]
    extent = (low[0], low[0] + width * px, low[1] + height * px, low[1])
    painted = ax.imshow(picture, extent=extent, interpolation="nearest", zorder=2, alpha=alpha, aspect="auto")
    if turn:
        painted.set_transform(Affine2D().rotate(turn) + ax.transData)
