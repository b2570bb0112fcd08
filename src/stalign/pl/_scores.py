"""Scores of methods on sections, with their spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._validate import message
from stalign.pl._canvas import canvas, entitle, finish
from stalign.pl._colors import chosen_colors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from stalign.pl._colors import Palette

_METHOD = ("method", "weights", "encoder")
_SECTION = ("section", "library", "dataset")
_METRICS = ("ARI", "NMI")


def scores(
    table: pd.DataFrame | Mapping[str, pd.DataFrame] | Sequence[pd.DataFrame],
    metrics: str | Sequence[str] | None = None,
    *,
    method_key: str | None = None,
    library_key: str | None = None,
    palette: Palette = None,
    size: float = 16.0,
    alpha: float = 0.85,
    title: str | Sequence[str] | None = None,
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw scores as bars of means, with a dot per run and a whisker of one standard deviation.

    Parameters
    ----------
    table
        What `tl.score` returned, or a table of runs with columns such as method, section, seed and ARI; several tables
        as a list, or as a mapping from method to table.
    metrics
        Columns to draw, one panel each; None for ARI and NMI, or whichever is there.
    method_key
        Column that tells methods apart; None for `method`, `weights` or `encoder`.
    library_key
        Column that tells sections apart; None for `section`, `library` or `dataset`.
    palette
        Colours of the methods: a list, a mapping, or the name of a colour map.
    size
        Area of the dots of single runs in points².
    alpha
        Opacity of the bars.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row; None for two, or one where there are many bars.
    ax
        Axes to draw on, one per metric.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        If the table is empty, or `ax` has another number of panels.

    Examples
    --------
    >>> import pandas as pd
    >>> import stalign
    >>> runs = pd.DataFrame({"method": ["a", "a", "b"], "section": "s", "seed": [0, 1, 0], "ARI": [0.4, 0.6, 0.3]})
    >>> ax = stalign.pl.scores(runs, show=False)
    >>> [round(float(bar.get_height()), 2) for bar in ax.patches]
    [0.5, 0.3]
    """
    runs = _together(table)
    wanted = [metrics] if isinstance(metrics, str) else list(metrics or [m for m in _METRICS if m in runs])
    missing = [name for name in [*wanted, method_key, library_key] if name is not None and name not in runs]
    if missing or not wanted:
        found = repr(missing[0]) if missing else "neither ARI nor NMI"
        raise KeyError(message("Expected columns of the table", found=found, available=runs.columns))
    method, runs = _column(runs, method_key, _METHOD, "stalign")
    section, runs = _column(runs, library_key, _SECTION, "")
    methods, libraries = (list(dict.fromkeys(runs[column])) for column in (method, section))
    colors = chosen_colors(methods, palette)
    width = min(max(2.6, 0.5 * len(methods) * len(libraries) + 1.8), 12.0)
    ncols = ncols if ncols is not None else 2 if width <= 7 else 1
    legend_width = 0.5 + 0.085 * max(map(len, methods)) if len(methods) > 1 else 0.0
    legend_widths = [0.0] * (len(wanted) - 1) + [legend_width]
    figure, axes = canvas(len(wanted), ax=ax, ncols=ncols, width=width, height=3.4, beside=legend_widths)
    for index, (panel, metric) in enumerate(zip(axes, wanted, strict=True)):
        for place, name in enumerate(methods):
            own = runs[runs[method] == name]
            groups = [own.loc[own[section] == lib, metric].dropna().to_numpy(float) for lib in libraries]
            offset = (place - (len(methods) - 1) / 2) * 0.8 / len(methods)
            _bars(panel, groups, offset, 0.72 / len(methods), colors[place], name, size=size, alpha=alpha)
        panel.set_xticks(range(len(libraries)), libraries, parse_math=False)
        if max(map(len, libraries)) * len(libraries) > 14 * width:
            panel.tick_params(axis="x", rotation=30)
        panel.set_xlim(-0.6, len(libraries) - 0.4)
        panel.axhline(0, color="#808080", linewidth=0.8)
        panel.set_ylabel(metric)
        entitle(panel, title, "", index, len(wanted))
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        if len(methods) > 1 and index == len(wanted) - 1:
            listed = panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
            for text in listed.get_texts():
                text.set_parse_math(False)
    return finish(figure, axes, show=show, return_fig=return_fig)


def _together(table: pd.DataFrame | Mapping[str, pd.DataFrame] | Sequence[pd.DataFrame]) -> pd.DataFrame:
    if isinstance(table, pd.DataFrame):
        runs = table
    elif isinstance(table, Mapping):
        parts = [part.assign(method=name) for name, part in table.items()]
        runs = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    else:
        runs = pd.concat(list(table), ignore_index=True) if len(table) else pd.DataFrame()
    if not len(runs):
        raise ValueError(message("Expected a table of scores", found="no rows", hint="Call `stalign.tl.score` first"))
    return runs


def _column(runs: pd.DataFrame, given: str | None, usual: tuple[str, ...], otherwise: str) -> tuple[str, pd.DataFrame]:
    name = given or next((column for column in usual if column in runs), usual[0])
    texts = [str(value) for value in runs[name]] if name in runs else otherwise  # astype(str) of pandas 3 keeps NaN
    return name, runs.assign(**{name: texts})


def _bars(
    ax: Axes, groups: list[np.ndarray], offset: float, width: float, color: str, name: str, *, size: float, alpha: float
) -> None:
    """One method: a bar, its runs and their spread for each section."""
    from matplotlib import rcParams

    ink = rcParams["text.color"]
    present = [(x, values) for x, values in enumerate(groups) if len(values)]
    where = np.array([x + offset for x, _ in present])
    means = np.array([values.mean() for _, values in present])
    ax.bar(where, means, width, color=color, alpha=alpha, label=name, linewidth=0)
    for x, (_, values) in zip(where, present, strict=True):
        if len(values) > 1:
            ax.errorbar(x, values.mean(), values.std(ddof=1), color=ink, linewidth=1.2, capsize=3)
            spread = np.linspace(-0.25, 0.25, len(values)) * width
            ax.scatter(x + spread, values, s=size, facecolors="none", edgecolors=ink, linewidths=0.8, zorder=3)
        top = max(values.max(), values.mean() + (values.std(ddof=1) if len(values) > 1 else 0), 0)
        ax.annotate(f"{values.mean():.2f}", (x, top), xytext=(0, 3), textcoords="offset points", ha="center",
                    fontsize="small")  # fmt: skip
