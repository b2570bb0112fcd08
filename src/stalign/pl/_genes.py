"""Measured against predicted expression."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message, opacity
from stalign.core.scores import per_gene
from stalign.data import facts, open_sections, table_of
from stalign.pl._canvas import canvas, entitle, finish, short
from stalign.pl._records import seen_in_training, split_of, within
from stalign.pl._tissue import frame, panel_size, spots, tissue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import Section

TRUTH = "truth"  # layer of measured expression that tl.predict_genes writes
_BAR = 0.9  # inches, room for a colour bar
_LINE = 44  # letters in a line of the caption under a panel
_LINE_HEIGHT = 0.17  # inches
_MISSING = (0.7, 0.7, 0.7, 1.0)


def genes(
    data: AnnData | SpatialData,
    names: str | Sequence[str] | None = None,
    *,
    n: int = 3,
    image: bool | float = False,
    scale_bar: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    palette: str = "viridis",
    size: float = 1.6,
    alpha: float | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw predicted expression beside what was measured, on one colour scale.

    Parameters
    ----------
    data
        What `tl.predict_genes` returned. It is not changed.
    names
        One gene or several; None for the `n` that can best be relied on by what the reference alone tells, or, if
        that is not known, that were predicted best or vary most.
    n
        How many genes, where `names` is None.
    image
        Opacity of the image under the spots, where there is one, from 0 to 1; False leaves it out.
    scale_bar
        Whether to draw a scale bar in µm, where the scale is known.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    mpp
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    palette
        Name of a colour map.
    size
        Multiple of the true diameter of the spots; above 1 by default, to make a map that can be read.
    alpha
        Opacity of the spots.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row; None for one row per gene and section, or four in a row where nothing was measured.
    ax
        Axes to draw on, one per panel: gene by gene, section by section, measured before predicted.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `.X`, (n_obs, n_genes) float: predicted expression
    - `layers["truth"]`, (n_obs, n_genes) float: measured expression, where there is some
    - `var["reliability"]`, `var["reliable"]`, `uns["stalign"]["predict_genes"]`, where they are there
    - `obsm["spatial"]`, `uns["spatial"]`
    - `uns["stalign"]["predict_genes"]`, `uns["stalign"]["embed"]`: for the caption

    Raises
    ------
    KeyError
        If a gene, column or table does not exist, or there are no coordinates.
    ValueError
        If there are no genes, the colour map is unknown, or `ax` has another number of panels.

    Notes
    -----
    The scale runs from the 1st to the 99th percentile of both panels of a pair. Pearson's r in the title is that of the
    section shown. Spots without a value are grey. A line under the figure says which genes are shown and why, and from
    what their reliability is told; genes that are not reliable say so in their title. Under a prediction stands what it
    was fitted to, and whether the weights behind its features were trained on a section of this name, where that is
    recorded.

    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> adata.layers["truth"] = adata.X
    >>> measured, predicted = stalign.pl.genes(adata, "MOBP", show=False)
    >>> predicted.get_title()
    'MOBP predicted, r = 1.00'
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    image = opacity(image, name="image")
    table = table_of(data, table_key)
    if palette not in colormaps:
        raise ValueError(message("Expected `palette` to name a colour map", found=repr(palette)))
    chosen = _pick(table, names, n)
    columns = table.var_names.get_indexer(chosen)
    kinds = [("measured", table.layers[TRUTH])] if TRUTH in table.layers else []
    kinds.append(("predicted", table.X))
    views = open_sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, image=image > 0, want_mpp=4.0
    )
    count = len(chosen) * len(views) * len(kinds)
    ncols = ncols if ncols is not None else len(kinds) if len(kinds) > 1 else 4
    places = [tissue(view) for view in views]
    order = [place for _ in chosen for place in places for _ in kinds]
    widths, height = panel_size(order, bar=scale_bar)
    captions = [_caption(table, view) for view in views]
    height += _LINE_HEIGHT * max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    bars = [_BAR if (index + 1) % len(kinds) == 0 else 0.0 for index in range(count)]
    figure, axes = canvas(count, ax=ax, ncols=ncols, width=widths, height=height, beside=bars)
    panels = iter(enumerate(axes))
    for gene, column in zip(chosen, columns, strict=True):
        for view, place, caption in zip(views, places, captions, strict=True):
            values = [_dense(matrix, view.rows, int(column)) for _, matrix in kinds]
            low, high = _limits(values)
            scale = ScalarMappable(Normalize(low, high), palette)
            pair = []
            for (kind, _), value in zip(kinds, values, strict=True):
                index, panel = next(panels)
                rgba = scale.to_rgba(np.nan_to_num(value))
                rgba[~np.isfinite(value)] = _MISSING
                frame(panel, place, image=image, bar=scale_bar)
                spots(panel, place, rgba, size=size, alpha=alpha)
                where = "" if len(views) == 1 else f"{short(view.name)}: "
                more = f"{_correlation(values)}{_warning(table, gene)}" if kind == "predicted" else ""
                default = f"{where}{gene} {kind}{more}"
                entitle(panel, title, default, index, count)
                if kind == "predicted":
                    panel.set_xlabel(caption, fontsize="small", parse_math=False)
                pair.append(panel)
            figure.colorbar(scale, ax=pair, shrink=0.8, label=_unit(table))
    reason = _reason(table, chosen, named=names is not None)
    if reason and ax is None:
        figure.supxlabel(reason, fontsize="small", wrap=True, parse_math=False)
    return finish(figure, axes, show=show, return_fig=return_fig)


def _caption(table: AnnData, view: Section) -> str:
    """What a prediction was fitted to, and whether the weights knew the section, in short lines."""
    lines = [split_of(table), *seen_in_training(table, {view.name: view.rows})]
    return "\n".join(textwrap.fill(line.rstrip("."), _LINE) for line in lines if line)


def _pick(table: AnnData, names: str | Sequence[str] | None, n: int) -> list[str]:
    if names is not None:
        chosen = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in chosen if name not in table.var_names]
        if unknown:
            raise KeyError(message("Expected a gene", found=repr(unknown[0]), available=table.var_names))
    elif order := next((name for name in ("reliability", "pearson") if name in table.var), None):
        chosen = table.var[order].sort_values(ascending=False, kind="stable").index[:n].tolist()
    else:
        mean = np.asarray(table.X.mean(axis=0)).ravel()
        square = table.X.multiply(table.X) if hasattr(table.X, "multiply") else table.X**2
        spread = np.asarray(square.mean(axis=0)).ravel() - mean**2
        chosen = table.var_names[np.argsort(-spread, kind="stable")[:n]].tolist()
    if not chosen:
        raise ValueError(
            message("Expected at least one gene", found="none", hint="Pass what tl.predict_genes returned")
        )
    return [str(name) for name in chosen]


def _dense(matrix: Any, rows: NDArray[np.intp], column: int) -> NDArray[np.float64]:
    values = matrix[rows][:, [column]]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return values.astype(np.float64).ravel()


def _limits(values: list[NDArray[np.float64]]) -> tuple[float, float]:
    together = np.concatenate(values)
    together = together[np.isfinite(together)]
    if not len(together):
        return 0.0, 1.0
    low, high = np.percentile(together, (1, 99))
    return float(low), float(high) if high > low else float(low) + 1.0


def _correlation(values: list[NDArray[np.float64]]) -> str:
    if len(values) < 2:
        return ""
    pearson = float(per_gene(values[0][:, None], values[1][:, None])["pearson"][0])
    return f", r = {pearson:.2f}" if np.isfinite(pearson) else ", r undefined"


def _unit(table: AnnData) -> str:
    target = facts(table, Keys.UNS, "predict_genes").get("target")
    return "log1p of counts" if target == "counts" else "log1p of counts per 10,000"


def _warning(table: AnnData, gene: str) -> str:
    """Mark a gene that can't be relied on."""
    if "reliable" not in table.var or bool(table.var["reliable"][gene]):
        return ""
    return " (not reliable)"


def _reason(table: AnnData, chosen: Sequence[str], *, named: bool) -> str:
    """Say which genes are shown, why, and what their reliability is told from."""
    if "reliability" not in table.var:
        return ""
    record = facts(table, Keys.UNS, "predict_genes")
    values = ", ".join(f"{gene} {table.var['reliability'][gene]:.2f}" for gene in chosen)
    why = "as asked for" if named else f"the most reliable of {table.n_vars}"
    patients = {0: ", patients unknown", 1: " of one patient"}.get(record.get("n_patients", -1), "")
    told = f"held-out {record.get('held_out', 'part')}s of the reference{patients}"
    return f"Genes {why}. Reliability, mean Pearson over {told}: {values}.{within(record)}"
