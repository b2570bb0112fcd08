"""Annotations over the tissue: the labels that were given, those that were found, and how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message
from stalign.data import open_sections, table_of
from stalign.pl._canvas import canvas, entitle, finish
from stalign.pl._domains import legend, legend_width
from stalign.pl._labels import NO_LABEL_COLOR, Labels, read_labels
from stalign.pl._tissue import frame, panel_size, spots, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from spatialdata import SpatialData

    from stalign.pl._colors import Palette

_BAR = 0.9  # inches beside a panel of confidence
CONFIDENCE_MAP = "viridis"


def annotate(
    data: AnnData | SpatialData,
    key: str | None = None,
    *,
    truth: str | None = None,
    confidence: bool = True,
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
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw an annotation over the H&E image, with the truth and the confidence beside it, one row per section.

    Parameters
    ----------
    data
        One or more sections that `tl.annotate` was called on. It is not changed.
    key
        Column of obs with the annotation; None for `stalign_annotation`.
    truth
        Column of obs with the labels that are known, drawn first; labels of the same name have the same colour.
    confidence
        Whether to draw the confidence, from 0 to 1.
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
        Colours: a list, a mapping from label to colour, the name of a colour map, or None for those of the annotation.
    size
        Multiple of the true diameter of the spots.
    alpha
        Opacity of the spots; None for 1.
    title
        One title for all panels or one per panel.
    ax
        Axes to draw on, one per panel: section by section, truth, annotation, confidence.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `obs["stalign_annotation"]`, `obs["stalign_annotation_confidence"]`, `obs[truth]`: spots without are grey
    - `uns["stalign_annotation_colors"]`, `obsm["spatial"]`, `uns["spatial"]`

    Raises
    ------
    KeyError
        If a column or image does not exist, or there is no annotation yet.
    ValueError
        If a column holds no labels, the palette is too short, or `ax` has another number of panels.

    Notes
    -----
    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.annotate(adata, "domain")
    >>> truth, found, sure = stalign.pl.annotate(adata, truth="domain", show=False)
    >>> found.get_title()
    'stalign_annotation'
    """
    table = table_of(data, table_key)
    key = Keys.ANNOTATION if key is None else key
    if key not in table.obs:
        hint = "Call `stalign.tl.annotate` first"
        raise KeyError(
            message("Expected an annotation in obs", found=repr(key), available=table.obs.columns, hint=hint)
        )
    found = read_labels(table, key, palette=palette)
    shown = [found]
    if truth is not None:
        shown = [_like(found, read_labels(table, truth)), found]
    sure_key = f"{key}_confidence"
    if confidence and sure_key not in table.obs:
        raise KeyError(message("Expected a confidence in obs", found=repr(sure_key), available=table.obs.columns))
    views = open_sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, image=image > 0, want_mpp=4.0
    )
    each = len(shown) + bool(confidence)
    n = each * len(views)
    places = [tissue(view) for view in views]
    widths, height = panel_size(np.repeat(np.array(places, dtype=object), each).tolist(), bar=scale_bar)
    legend_widths = [*(legend_width([labels]) for labels in shown), *([_BAR] if confidence else [])] * len(views)
    figure, axes = canvas(n, ax=ax, ncols=each, width=widths, height=height, beside=legend_widths)
    for i, (view, place) in enumerate(zip(views, places, strict=True)):
        name = "" if len(views) == 1 else f"{view.name}: "
        for j, labels in enumerate(shown):
            panel = axes[i * each + j]
            frame(panel, place, image=image, bar=scale_bar)
            part = Labels(labels.key, labels.names, labels.codes[view.rows], labels.colors)
            spots(panel, place, part.rgb(), size=size, alpha=alpha)
            legend(panel, part)
            entitle(panel, title, name + labels.key, i * each + j, n)
        if confidence:
            panel = axes[(i + 1) * each - 1]
            frame(panel, place, image=image, bar=scale_bar)
            values = table.obs[sure_key].to_numpy(dtype=np.float64)[view.rows]
            spots(panel, place, _shades(values), size=size, alpha=alpha)
            _bar(panel)
            entitle(panel, title, f"{name}confidence", (i + 1) * each - 1, n)
    return finish(figure, axes, show=show, return_fig=return_fig)


def _like(found: Labels, truth: Labels) -> Labels:
    """Give true labels the colours of the annotation's labels of the same name."""
    known = dict(zip(found.names, found.colors, strict=True))
    colors = [known.get(name, color) for name, color in zip(truth.names, truth.colors, strict=True)]
    return Labels(truth.key, truth.names, truth.codes, colors)


def _shades(values: np.ndarray) -> np.ndarray:
    """Colours of a confidence from 0 to 1, (n, 3); grey where there is none."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    rgb = np.asarray(colormaps[CONFIDENCE_MAP](np.nan_to_num(np.clip(values, 0, 1))))[:, :3]
    rgb[~np.isfinite(values)] = to_rgb(NO_LABEL_COLOR)
    return rgb


def _bar(panel: Axes) -> None:
    """Put the scale of the confidence beside a panel."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    panel.figure.colorbar(ScalarMappable(Normalize(0, 1), CONFIDENCE_MAP), ax=panel, shrink=0.6, pad=0.02)
