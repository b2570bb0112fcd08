"""What a panel of tissue is made of: the image, spots at their true size, a scale bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign.core.niches import nearest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from stalign.data.sections import SectionView

RASTER_FROM = 50_000  # spots above which a panel is painted as one image
_RASTER_PX = 1600  # px, longest side of that image
_IMAGE_PX = 1400  # px, longest side of the image under the spots
_STEPS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


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
    """

    section: SectionView
    unit: float
    xy: NDArray[np.float64]
    diameter: float

    @property
    def in_um(self) -> bool:
        """Whether the panel is in µm."""
        return bool(np.isfinite(self.section.coord_mpp))

    def from_pixels(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert px of the section's image, (..., 2), to units of the panel."""
        image = self.section.image
        if image is None:
            return pixels
        return (np.asarray(pixels, dtype=np.float64) - np.asarray(image.offset)) / image.scale * self.unit


def tissue(section: SectionView) -> Tissue:
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
    return Tissue(section, unit, xy, diameter)


def _spacing(xy: NDArray[np.float64]) -> float:
    valid = xy[np.isfinite(xy).all(axis=1)]
    sample = valid if len(valid) <= RASTER_FROM else valid[:RASTER_FROM]
    if len(sample) < 2:
        return 1.0
    distance = np.linalg.norm(sample - sample[nearest(sample, 1)[:, 0]], axis=1)
    return float(np.median(distance)) or 1.0


def frame(
    ax: Axes, place: Tissue, *, image: bool, view: tuple[float, float, float, float] | None = None, bar: bool = True
) -> None:
    """Prepare a panel: limits, image and scale bar.

    Parameters
    ----------
    ax
        The panel.
    place
        The section.
    image
        Whether to draw the image, where there is one.
    view
        x0, y0, x1, y1 to show, in units of the panel; by default the spots with a margin.
    bar
        Whether to draw a scale bar, where the scale is known.
    """
    if view is None:
        valid = place.xy[np.isfinite(place.xy).all(axis=1)]
        margin = 1.5 * place.diameter
        low, high = valid.min(axis=0) - margin, valid.max(axis=0) + margin
        room = 0.08 * float(high[1] - low[1]) if bar and place.in_um else 0.0  # for the bar, below the spots
        view = float(low[0]), float(low[1]), float(high[0]), float(high[1]) + room
    picture = place.section.image
    if image and picture is not None:
        _draw_image(ax, place, view)
    ax.set_xlim(view[0], view[2])
    ax.set_ylim(view[3], view[1])  # y grows downwards, as in the image
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
    if bar and place.in_um:
        scale_bar(ax, view, over_image=image and picture is not None)


def _draw_image(ax: Axes, place: Tissue, view: tuple[float, float, float, float]) -> None:
    """Draw what the panel shows of the image, no finer than a panel can show."""
    picture = place.section.image
    if picture is None:
        return
    corners = np.array([[view[0], view[1]], [view[2], view[3]]]) / place.unit * picture.scale + picture.offset
    side = float((corners[1] - corners[0]).max())
    if side < 0.3 * max(picture.shape):  # a close-up: cut it, as the thumbnail would be coarse
        centre = corners.mean(axis=0)
        window = np.concatenate([centre - side / 2, centre + side / 2])
        pixels = picture.patches(window[None], int(min(_IMAGE_PX, max(1, np.ceil(side)))))[0]
        (x0, y0), (x1, y1) = place.from_pixels(window.reshape(2, 2))
    else:
        pixels, _ = picture.thumbnail(_IMAGE_PX)
        (x0, y0), (x1, y1) = place.from_pixels(np.array([[0.0, 0.0], [picture.shape[1], picture.shape[0]]]))
    ax.imshow(pixels, extent=(x0, x1, y1, y0), interpolation="antialiased", zorder=0, aspect="auto")


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
        _paint(ax, xy, rgb, diameter, alpha, squares=place.section.technology == "hd")
        return
    style: dict[str, Any] = {
        "facecolors": rgb,
        "edgecolors": "none",
        "alpha": alpha,
        "zorder": 2,
        "rasterized": len(xy) > 2000,
    }
    if place.section.technology == "hd":
        corner = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * diameter / 2
        ax.add_collection(PolyCollection(list(xy[:, None] + corner), **style), autolim=False)
        return
    circles = EllipseCollection(diameter, diameter, 0, units="xy", offsets=xy, offset_transform=ax.transData, **style)
    ax.add_collection(circles, autolim=False)


def _paint(
    ax: Axes, xy: NDArray[np.float64], rgb: NDArray[np.float64], diameter: float, alpha: float | None, *, squares: bool
) -> None:
    """Paint spots into one RGBA image: each px takes the colour of the nearest spot, if it lies in that spot."""
    from scipy.ndimage import distance_transform_cdt, distance_transform_edt

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
    ax.imshow(picture, extent=extent, interpolation="nearest", zorder=2, alpha=alpha, aspect="auto")


def scale_bar(ax: Axes, view: tuple[float, float, float, float], *, over_image: bool) -> None:
    """Draw a scale bar of a round number of µm in the lower left corner.

    Parameters
    ----------
    ax
        A panel in µm.
    view
        x0, y0, x1, y1 of the panel in µm.
    over_image
        Whether it lies on an image, where it is outlined to be seen on any ground.
    """
    from matplotlib import patheffects, rcParams

    width, height = view[2] - view[0], view[3] - view[1]
    fitting = [step for step in _STEPS_UM if step <= 0.3 * width]
    length = fitting[-1] if fitting else _STEPS_UM[0]
    x, y = view[0] + 0.04 * width, view[3] - 0.025 * height
    color = "black" if over_image else rcParams["text.color"]
    outline = [patheffects.withStroke(linewidth=4, foreground="white")] if over_image else []
    ax.plot([x, x + length], [y, y], color=color, linewidth=2, zorder=5, path_effects=outline, solid_capstyle="butt")
    name = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    thin = [patheffects.withStroke(linewidth=2.5, foreground="white")] if over_image else []
    ax.text(
        x + length / 2, y - 0.015 * height, name, color=color, ha="center", va="bottom", fontsize="small", zorder=5,
        path_effects=thin,
    )  # fmt: skip
