"""Domains over the tissue."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message, opacity
from stalign.data import open_sections, table_of
from stalign.pl._canvas import canvas, entitle, finish, short
from stalign.pl._labels import NO_LABEL_COLOR, Labels, default_key, resolve
from stalign.pl._tissue import frame, panel_size, spots, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from stalign.pl._colors import Palette

_LINE = 28  # letters in a line of a legend
_ROWS = 16  # lines of a legend
_LISTED = 6 * _ROWS  # labels that a legend lists


def domains(
    data: AnnData | SpatialData,
    key: str | Sequence[str] | None = None,
    *,
    truth: str | None = None,
    reference: str | None = None,
    image: bool | float = 0.6,
    scale_bar: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    palette: Palette = None,
    size: float = 1.0,
    alpha: float | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw domains over the H&E image, one panel per section, with the truth beside them where there is one.

    Parameters
    ----------
    data
        One or more sections. It is not changed.
    key
        Column of obs, or several to compare; None for the domains that `tl.domains` wrote.
    truth
        Column of obs with true labels, drawn first. Domains keep their colours, so that a domain has one colour in all
        figures of an object: each true label takes that of the domain (of the first column of `key`) that it agrees
        with most (Hungarian matching over all sections), and one that nobody else has where there is none. Labels with
        colours of their own in `uns[f"{truth}_colors"]` keep these.
    reference
        Column of obs whose colours the domains take in this figure, matched in the same way, without being drawn: to
        compare several columns, or sections, by the colours of one.
    image
        Opacity of the image under the spots, where there is one, from 0 to 1; True draws it as it is, False not at all.
    scale_bar
        Whether to draw a scale bar in µm, where the scale is known.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    mpp
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    palette
        Colours: a list or the name of a colour map (of the `reference`, where there is one), a mapping from label to
        colour, or None for those in `uns[f"{key}_colors"]`, where there are as many as categories, and else a palette
        that is safe for colour-blind readers.
    size
        Multiple of the true diameter of the spots.
    alpha
        Opacity of the spots; None for 1.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row; None for one row per section, or four in a row where each section has one panel.
    ax
        Axes to draw on, one per panel: section by section, the truth first.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `obs[key]`, `obs[truth]`: labels; spots that `tl.score` takes for unlabelled are grey
    - `uns[f"{key}_colors"]`, one colour per category: names, hex, or rows of RGB(A) from 0 to 1 or 0 to 255
    - `obsm["spatial"]`, `uns["spatial"]`

    Raises
    ------
    KeyError
        If a column, table or image does not exist, or there are no domains yet.
    ValueError
        If a column holds no labels, the palette is too short, or `ax` has another number of panels.

    Notes
    -----
    Above 50,000 spots a panel is painted as one image. Legends list whole numbers, such as domains, in their order,
    other labels in the order of the categories, and at most 96 of them.

    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> ax = stalign.pl.domains(adata, "domain", show=False)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['L1', 'L2/3', 'L4', 'L5/6', 'WM']
    """
    image = opacity(image, name="image")
    table = table_of(data, table_key)
    columns: list[Any] = [default_key(table)] if key is None else list(key) if isinstance(key, list | tuple) else [key]
    if not columns:
        raise ValueError(message("Expected `key` to name a column of obs", found="an empty list"))
    shown = resolve(table, columns, truth, reference, palette)
    views = open_sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, image=image > 0, want_mpp=4.0
    )
    n = len(views) * len(shown)
    ncols = ncols if ncols is not None else len(shown) if len(shown) > 1 else 4
    places = [tissue(view) for view in views]
    widths, height = panel_size(np.repeat(np.array(places, dtype=object), len(shown)).tolist(), bar=scale_bar)
    each = len(shown) > 1 or len(views) <= 2 or ax is not None  # whether each panel has a legend, or each full row one
    legend_widths = [
        legend_width([labels]) if each or (index + 1) % min(ncols, n) == 0 else 0.0
        for index, labels in enumerate(shown * len(views))
    ]
    figure, axes = canvas(n, ax=ax, ncols=ncols, width=widths, height=height, beside=legend_widths)
    for i, (view, place) in enumerate(zip(views, places, strict=True)):
        for j, labels in enumerate(shown):
            panel = axes[i * len(shown) + j]
            frame(panel, place, image=image, bar=scale_bar)
            part = labels.part(view.rows)
            spots(panel, place, part.rgb(), size=size, alpha=alpha)
            index = i * len(shown) + j
            if legend_widths[index]:
                legend(panel, part if each else labels)
            names = [view.name] * (len(views) > 1) + [labels.key] * (len(views) == 1 or len(shown) > 1)
            default = ": ".join(map(short, names))
            entitle(panel, title, default, index, n)
    return finish(figure, axes, show=show, return_fig=return_fig)


def legend_width(shown: Sequence[Labels]) -> float:
    """Estimate the room that the widest legend needs.

    Parameters
    ----------
    shown
        Labels of the panels.

    Returns
    -------
    Inches.
    """
    lines = [line for labels in shown for name in labels.names[:_LISTED] for line in wrapped(name).split("\n")]
    longest = max(map(len, lines), default=0)
    several = max(1 + (min(max(len(labels.names), 1), _LISTED) - 1) // _ROWS for labels in shown)
    return several * (0.35 + 0.085 * max(longest, 6))


def wrapped(name: str) -> str:
    """Break a long name into lines of a legend, and cut one that is very long."""
    return textwrap.fill(name, _LINE, max_lines=3, placeholder=" …") if len(name) > _LINE else name


def legend(ax: Axes, labels: Labels) -> None:
    """List the labels of a panel beside it, with the number of spots that have none.

    Parameters
    ----------
    ax
        The panel.
    labels
        What it shows.
    """
    from matplotlib.lines import Line2D

    entries = [(wrapped(name), color) for name, color in zip(labels.names, labels.colors, strict=True)]
    if len(entries) > _LISTED:
        entries = [*entries[: _LISTED - 1], (f"… and {len(entries) - _LISTED + 1:,} more", "none")]
    missing = int((labels.codes < 0).sum())
    if missing:
        entries.append((f"no label ({missing:,})", NO_LABEL_COLOR))
    handles = [
        Line2D([], [], marker="o", linestyle="none", markersize=7, markeredgecolor="none", color=color)
        for _, color in entries
    ]
    listed = ax.legend(
        handles=handles, labels=["" for _ in entries], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False,
        handletextpad=0.2, borderaxespad=0.3, ncols=1 + (len(handles) - 1) // _ROWS, fontsize="medium",
    )  # fmt: skip
    for text, (name, _) in zip(listed.get_texts(), entries, strict=True):
        text.set_parse_math(False)  # names come from the data
        text.set_text(name)  # here, as a legend leaves out what begins with an underscore
