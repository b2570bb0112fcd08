"""Niches over the tissue: who is averaged with whom, and one of them up close."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message, opacity
from stalign.data import niche_of, open_sections, table_of
from stalign.pl._canvas import canvas, entitle, finish, short
from stalign.pl._tissue import RASTER_FROM, Tissue, frame, panel_size, spots, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

_SPOT = "#0072B2"
_NEIGHBOUR = "#E69F00"
_EDGE = "#2D4B5A"
_LEGEND = 1.3  # inches


def niches(
    data: AnnData | SpatialData,
    spot: str | Sequence[str] | None = None,
    *,
    zoom: bool = True,
    image: bool | float = True,
    scale_bar: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    palette: tuple[str, str] = (_SPOT, _NEIGHBOUR),
    size: float = 1.0,
    alpha: float = 0.9,
    title: str | Sequence[str] | None = None,
    ncols: int = 2,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the niche graph over the H&E image, and one niche up close.

    Parameters
    ----------
    data
        One or more sections with niches. It is not changed.
    spot
        Name of the spot to look at, or one per section; None for the spot nearest to the middle of the section.
    zoom
        Whether each section has a second panel, with the spot, its neighbours, the spot window (solid) and the niche
        window (dashed).
    image
        Opacity of the image, where there is one, from 0 to 1; True draws it as it is, False not at all.
    scale_bar
        Whether to draw a scale bar in µm, where the scale is known.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    mpp
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    palette
        Colours of the spot and of its neighbours.
    size
        Multiple of the true diameter of the spots.
    alpha
        Opacity of spots and edges.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row.
    ax
        Axes to draw on: one per section, or two with `zoom`.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `obsp["niche_connectivities"]`, (n_obs, n_obs) CSR, which has to be there; `uns["niches"]["params"]`, by which
      niches are drawn as they are for the spots that are left
    - `obsm["spatial"]`, `uns["spatial"]`

    Raises
    ------
    KeyError
        If there are no niches, or the spot does not exist.
    ValueError
        If the spot has no niche, or `ax` has another number of panels.

    Notes
    -----
    Edges of sections of more than 50,000 spots are left out of the overview.

    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.pp.niches(adata)
    >>> overview, closeup = stalign.pl.niches(adata, show=False)
    """
    image = opacity(image, name="image")
    table = table_of(data, table_key)
    if Keys.NICHE_GRAPH not in table.obsp:
        raise KeyError(
            message(
                f"Expected niches in obsp[{Keys.NICHE_GRAPH!r}]",
                found="none",
                available=table.obsp.keys(),
                hint="Call `stalign.pp.niches(data)` first",
            )
        )
    views = open_sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, image=image > 0, want_mpp=2.0
    )
    asked = [] if spot is None else [spot] if isinstance(spot, str) else list(spot)
    unknown = [name for name in asked if name not in table.obs_names]
    if unknown:
        raise KeyError(message("Expected the name of a spot", found=repr(unknown[0]), available=table.obs_names))
    per = 2 if zoom else 1
    places = [tissue(view) for view in views]
    widths, height = panel_size(places, bar=scale_bar)
    sizes = [side for width in widths for side in (width, min(width, height))[:per]]
    legend_widths = [_LEGEND if zoom and panel % 2 else 0.0 for panel in range(len(sizes))]
    figure, axes = canvas(len(sizes), ax=ax, ncols=ncols, width=sizes, height=height, beside=legend_widths)
    niche = niche_of(table)
    for i, (view, place) in enumerate(zip(views, places, strict=True)):
        own = view.niches(niche)
        names = table.obs_names[view.rows]
        focus = _focus(place, own, names, [name for name in asked if name in names])
        panel = axes[per * i]
        frame(panel, place, image=image, bar=scale_bar)
        _overview(panel, place, own, focus, palette, size=size, alpha=alpha)
        entitle(panel, title, short(view.name), per * i, len(axes))
        if zoom:
            _closeup(axes[2 * i + 1], place, own, focus, palette, image=image, bar=scale_bar, size=size, alpha=alpha)
            entitle(axes[2 * i + 1], title, f"niche of {short(str(names[focus]))}", 2 * i + 1, len(axes))
    return finish(figure, axes, show=show, return_fig=return_fig)


def _members(graph: csr_matrix, spot: int) -> NDArray[np.intp]:
    """Neighbours of a spot, without itself."""
    found = graph.indices[graph.indptr[spot] : graph.indptr[spot + 1]]
    return np.asarray(found[found != spot], dtype=np.intp)


def _focus(place: Tissue, graph: csr_matrix, names: Any, asked: list[str]) -> int:
    """Position of the spot to look at."""
    has = np.diff(graph.indptr) > 1
    if asked:
        spot = int(names.get_loc(asked[0]))
        if not has[spot]:
            raise ValueError(message("Expected a spot with a niche", found=f"{asked[0]!r}, which has no neighbours"))
        return spot
    usable = has & np.isfinite(place.xy).all(axis=1)
    if not usable.any():
        raise ValueError(message("Expected niches", found=f"no spot of {place.section.name!r} with a neighbour"))
    distance = np.linalg.norm(place.xy - np.median(place.xy[usable], axis=0), axis=1)
    return int(np.where(usable, distance, np.inf).argmin())


def _overview(
    ax: Axes, place: Tissue, graph: csr_matrix, focus: int, palette: tuple[str, str], *, size: float, alpha: float
) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Rectangle

    if graph.shape[0] <= RASTER_FROM:
        row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
        pairs = np.unique(np.sort(np.column_stack([row, graph.indices]), axis=1), axis=0)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        width = 1.0 if graph.shape[0] < 1500 else 0.5
        lines = LineCollection(
            list(place.xy[pairs]), colors=_EDGE, linewidths=width, alpha=alpha, zorder=2, rasterized=len(pairs) > 2000
        )
        ax.add_collection(lines, autolim=False)
    rgb = np.tile(to_rgb(_EDGE), (len(place.xy), 1))
    members = _members(graph, focus)
    rgb[members], rgb[focus] = to_rgb(palette[1]), to_rgb(palette[0])
    spots(ax, place, rgb, size=size * 0.55, alpha=alpha)
    x0, y0, x1, y1 = _around(place, focus, members)
    ax.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=palette[0], linewidth=1.8, zorder=4))


def _around(place: Tissue, focus: int, members: NDArray[np.intp]) -> tuple[float, float, float, float]:
    """A square around the niche with room on all sides."""
    group = place.xy[np.append(members, focus)]
    half = 0.75 * float((group.max(axis=0) - group.min(axis=0)).max()) + 1.5 * place.diameter
    x, y = (group.max(axis=0) + group.min(axis=0)) / 2
    return float(x - half), float(y - half), float(x + half), float(y + half)


def _closeup(
    ax: Axes,
    place: Tissue,
    graph: csr_matrix,
    focus: int,
    palette: tuple[str, str],
    *,
    image: bool | float,
    bar: bool,
    size: float,
    alpha: float,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle, Rectangle

    members = _members(graph, focus)
    view = _around(place, focus, members)
    frame(ax, place, image=image, view=view, bar=bar)
    inside = (place.xy > view[:2]).all(axis=1) & (place.xy < view[2:]).all(axis=1)
    for spot in np.flatnonzero(inside):
        color = palette[0] if spot == focus else palette[1] if spot in members else "#808080"
        width = 2.5 if spot == focus or spot in members else 1.0
        circle = Circle(
            tuple(place.xy[spot]), place.diameter * size / 2, fill=False, edgecolor=color, linewidth=width, alpha=alpha
        )
        ax.add_patch(circle)
    for spot in members:
        line = np.stack([place.xy[focus], place.xy[spot]])
        ax.plot(*line.T, color=palette[1], linewidth=2, alpha=alpha, zorder=3)
    half = place.diameter / 2
    whole = np.append(members, focus)
    for group, color in ((np.array([focus]), palette[0]), (whole, palette[1])):
        low, high = place.xy[group].min(axis=0) - half, place.xy[group].max(axis=0) + half
        width, height = (float(extent) for extent in high - low)
        box = Rectangle(
            (float(low[0]), float(low[1])), width, height, fill=False, edgecolor=color, linewidth=2, zorder=4
        )
        box.set_linestyle("--" if group is whole else "-")
        ax.add_patch(box)
    handles = [
        Line2D([], [], color=palette[0], linewidth=2, label="spot window"),
        Line2D([], [], color=palette[1], linewidth=2, linestyle="--", label="niche window"),
    ]
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0.3)
