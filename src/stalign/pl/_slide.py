"""What was taken for tissue on a slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.tissue import MASK_MPP, find_tissue
from stalign.data import facts, open_sections, table_of
from stalign.pl._canvas import canvas, entitle, finish, short
from stalign.pl._tissue import frame, spots, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from stalign.pl._tissue import Tissue

_WIDTH = 6.0  # inches
_SPOT = (0.0, 0.45, 0.7, 1.0)
_INK = "#d55e00"


def slide(
    data: AnnData | SpatialData,
    *,
    scale_bar: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    size: float = 1.0,
    alpha: float = 0.5,
    title: str | Sequence[str] | None = None,
    ncols: int = 3,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw whole slides with their spots, the outline of the tissue and what was taken for ink, as a check.

    Parameters
    ----------
    data
        What `io.read_slide` returned, or any section with an image. It is not changed.
    scale_bar
        Whether to draw a scale bar in µm.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    mpp
        µm per px of the coordinates; None as stated or derived.
    size
        Multiple of the true diameter of the spots.
    alpha
        Opacity of the spots.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one per section.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `obsm["spatial"]`, `uns["spatial"]`, `uns["stalign"]["slide"]`

    Raises
    ------
    KeyError
        If a column, table or image does not exist, or there are no coordinates.
    ValueError
        If a section has no image or scale, or `ax` has another number of panels.

    Notes
    -----
    Spots are blue, the outline of the tissue is black and that of ink orange. Outlines are found anew on a small copy
    of the image; a slide whose tissue came from elsewhere (`tissue` in `uns["stalign"]["slide"]`) has none.

    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> panel = stalign.pl.slide(stalign.datasets.toy(12), show=False)
    >>> panel.get_title().startswith("toy: 141 spots")
    True
    """
    table = table_of(data, table_key)
    views = open_sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, want_mpp=MASK_MPP
    )
    lacking = [view.name for view in views if view.image is None or not np.isfinite(view.coord_mpp)]
    if lacking:
        raise ValueError(message("Expected an image and a physical scale", found=f"neither or one of {lacking[0]!r}"))
    outlined = facts(table, Keys.UNS, "slide").get("tissue", "saturation") == "saturation"
    places = [tissue(view) for view in views]
    shape = np.max([view.image.shape for view in views], axis=0)  # type: ignore[union-attr]
    height = float(np.clip(_WIDTH * shape[0] / shape[1], 2.0, 3 * _WIDTH)) + 0.3
    figure, axes = canvas(len(views), ax=ax, ncols=ncols, width=_WIDTH, height=height)
    for index, (panel, place) in enumerate(zip(axes, places, strict=True)):
        image = place.section.image
        edges = place.from_pixels(np.array([[0.0, 0.0], image.shape[::-1]]))  # type: ignore[union-attr]
        (x0, y0), (x1, y1) = edges.min(axis=0), edges.max(axis=0)
        frame(panel, place, image=1.0, view=(x0, y0, x1, y1), bar=scale_bar)
        spots(panel, place, np.tile(_SPOT, (len(place.xy), 1)), size=size, alpha=alpha)
        if outlined:
            _outline(panel, place)
        valid = int(place.section.valid.sum())
        scale = f"{place.section.coord_mpp:.3g} µm per px ({place.section.mpp_origin})"
        default = f"{short(place.section.name)}: {valid} spots, {scale}"
        entitle(panel, title, default, index, len(views), fontsize="small")
    return finish(figure, axes, show=show, return_fig=return_fig)


def _outline(panel: Axes, place: Tissue) -> None:
    """Draw the outlines of tissue and ink."""
    image = place.section.image
    if image is None:
        return
    small, factor = image.thumbnail(max(1, round(max(image.shape) * min(1.0, image.mpp / MASK_MPP))))
    found = find_tissue(image.along_coords(small), image.mpp / factor)
    height, width = small.shape[:2]
    corners = place.from_pixels(np.array([[0.5, 0.5], [width - 0.5, height - 0.5]]) / factor)
    low, high, (height, width) = corners.min(axis=0), corners.max(axis=0), found.mask.shape
    x, y = np.linspace(low[0], high[0], width), np.linspace(low[1], high[1], height)
    for mask, color in ((found.mask, "black"), (found.ink, _INK)):
        if mask.any() and not mask.all() and min(mask.shape) > 1:
            panel.contour(x, y, mask.astype(float), levels=[0.5], colors=[color], linewidths=0.8, zorder=3)
