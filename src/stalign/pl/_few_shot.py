"""Curves of gene prediction over the share of training spots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._validate import message
from stalign.pl._canvas import canvas, entitle, finish
from stalign.pl._colors import chosen_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from stalign.pl._colors import Palette

MEAN = "training mean"
_NAMES = {"pearson": "Pearson", "mse": "MSE", "mae": "MAE"}


def few_shot(
    table: pd.DataFrame,
    metrics: str | Sequence[str] = ("pearson", "mse", "mae"),
    *,
    palette: Palette = None,
    title: str | Sequence[str] | None = None,
    ncols: int | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw the metrics of `tl.few_shot` over the share of training spots, a line per representation and model.

    Lines are means over folds and seeds, bands one standard deviation over seeds. The baseline, the mean of the
    training spots, is dashed.

    Parameters
    ----------
    table
        What `tl.few_shot` returned.
    metrics
        Columns to draw, one panel each.
    palette
        Colours of the representations: a list, a mapping, or the name of a colour map.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row; None for all in one.
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
    >>> table = pd.DataFrame(
    ...     {"use_rep": "X", "ratio": [0.1, 0.5], "seed": 0, "fold": 0, "model": "linear", "pearson": [0.1, 0.2]}
    ... )
    >>> ax = stalign.pl.few_shot(table, "pearson", show=False)
    >>> [float(value) for value in ax.lines[0].get_ydata()]
    [0.1, 0.2]
    """
    wanted = [metrics] if isinstance(metrics, str) else list(metrics)
    missing = [name for name in ("use_rep", "ratio", "seed", "model", *wanted) if name not in table]
    if missing or not wanted:
        expected = "Expected the columns of `tl.few_shot`"
        raise KeyError(message(expected, found=f"none called {', '.join(missing)}", available=table.columns))
    if not len(table):
        raise ValueError(message("Expected a table of scores", found="no rows", hint="Call `stalign.tl.few_shot`"))
    own_model = table["model"] != MEAN
    line_of = table["use_rep"].astype(str)
    if table.loc[own_model, "model"].nunique() > 1:
        line_of = line_of + ", " + table["model"].astype(str)
    reps = list(dict.fromkeys(line_of[own_model]))
    colors = chosen_colors(reps, palette)
    legend_width = 0.6 + 0.085 * max(map(len, [*reps, MEAN]))
    legend_widths = [0.0] * (len(wanted) - 1) + [legend_width]
    figure, axes = canvas(len(wanted), ax=ax, ncols=ncols or len(wanted), width=3.2, height=3.0, beside=legend_widths)
    for index, (panel, metric) in enumerate(zip(axes, wanted, strict=True)):
        base = table[~own_model].groupby("ratio")[metric].mean()
        for rep, color in zip(reps, colors, strict=True):
            own = table[own_model & (line_of == rep)]
            seeds = own.groupby(["ratio", "seed"])[metric].mean().groupby("ratio")
            mean, spread = seeds.mean(), seeds.std().fillna(0.0)
            panel.plot(mean.index, mean, marker="o", markersize=4, color=color, label=rep)
            panel.fill_between(mean.index, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0)
        if len(base):
            panel.plot(base.index, base, linestyle="--", marker=".", color="#808080", label=MEAN)
        panel.set_xlabel("share of the training spots")
        panel.set_ylabel(_NAMES.get(metric, metric))
        panel.set_xticks(sorted(table["ratio"].unique()))
        entitle(panel, title, "", index, len(wanted))
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        if index == len(wanted) - 1:
            listed = panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
            for text in listed.get_texts():
                text.set_parse_math(False)
    return finish(figure, axes, show=show, return_fig=return_fig)
