"""Training curves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._validate import message
from stalign.pl._canvas import canvas, entitle, finish
from stalign.pl._colors import chosen_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from stalign.pl._colors import Palette

_FILE = "metrics.csv"
_INDEX = ("step", "epoch")
_PREFIXES = ("train", "val", "valid", "validation")
_TOTAL = "loss"
_SMOOTH_FROM = 100  # points above which a running mean is drawn over the single values


def training(
    metrics: str | Path | pd.DataFrame,
    names: str | Sequence[str] | None = None,
    *,
    palette: Palette = None,
    size: float = 1.6,
    alpha: float = 0.3,
    title: str | Sequence[str] | None = None,
    ncols: int = 3,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw losses against steps: the total, its terms, and whatever else was logged.

    Parameters
    ----------
    metrics
        The `metrics.csv` of a run, a folder that holds one, or the table.
    names
        Quantities to draw, one panel each, without `train_` or `val_`; None for the total loss, its terms together in
        one panel, and each other quantity.
    palette
        Colours of the curves of a panel: a list, a mapping, or the name of a colour map.
    size
        Width of lines in points.
    alpha
        Opacity of single values where a running mean is drawn over them.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one per panel.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Raises
    ------
    FileNotFoundError
        If there is no `metrics.csv`.
    KeyError
        If a quantity was not logged.
    ValueError
        If the table holds no numbers, or `ax` has another number of panels.

    Notes
    -----
    Curves of more than 100 values get a running mean over a fiftieth of them. Validation is dashed.

    Examples
    --------
    >>> import pandas as pd
    >>> import stalign
    >>> log = pd.DataFrame({"step": range(5), "loss": [5, 4, 3, 2, 1], "spot": [2, 2, 1, 1, 0], "niche": 1.0})
    >>> total, terms = stalign.pl.training(log, show=False)
    >>> [line.get_label() for line in terms.lines]
    ['spot', 'niche']
    """
    table = metrics if isinstance(metrics, pd.DataFrame) else _read(Path(metrics))
    curves = _curves(table)
    panels = _panels(curves, names)
    figure, axes = canvas(len(panels), ax=ax, ncols=ncols, width=4.0, height=3.0)
    for index, (panel, (name, members)) in enumerate(zip(axes, panels.items(), strict=True)):
        quantities = list(dict.fromkeys(quantity for quantity, _ in members))
        colors = dict(zip(quantities, chosen_colors(quantities, palette), strict=True))
        for quantity, stage in members:
            dashed = stage not in {"", "train"}
            label = stage or quantity if len(quantities) == 1 else f"{quantity} ({stage})" if dashed else quantity
            _curve(panel, curves[quantity, stage], label, colors[quantity], dashed=dashed, size=size, alpha=alpha)
        panel.set_xlabel("step" if "step" in table else "epoch" if "epoch" in table else "row")
        entitle(panel, title, name, index, len(panels))
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
        if len(members) > 1:
            panel.legend(frameon=False, fontsize="small")
    return finish(figure, axes, show=show, return_fig=return_fig)


def _read(path: Path) -> pd.DataFrame:
    """Read one file, or those of all starts of the run in a folder that was logged to last."""
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(message("Expected the metrics of a run", found=f"no file {path}"))
        return pd.read_csv(path)
    found = sorted(path.rglob(_FILE), key=lambda file: file.stat().st_mtime)
    if not found:
        raise FileNotFoundError(message(f"Expected a {_FILE} below {path}", found="none"))
    starts = [file for file in found if file.parent.parent == found[-1].parent.parent]
    return pd.concat([pd.read_csv(file) for file in starts], ignore_index=True)


def _split(column: str) -> tuple[str, str]:
    """Quantity and stage of a column: ("loss", "train") of `loss/total`, `train_loss` and `train/loss`."""
    stage, name = "", column
    for prefix in ("loss/", *(p + mark for p in _PREFIXES for mark in "/_")):
        if column.startswith(prefix):
            name = column.removeprefix(prefix)
            stage = "train" if prefix[:-1] in {"loss", "train"} else "val"
            break
    return _TOTAL if name == "total" else name, stage


def _curves(table: pd.DataFrame) -> dict[tuple[str, str], pd.Series]:
    """Curves by quantity and stage, indexed by step."""
    axis = next((name for name in _INDEX if name in table), None)
    curves = {}
    for column in table.columns:
        if column in _INDEX or not pd.api.types.is_numeric_dtype(table[column]):
            continue
        values = table[column].set_axis(table[axis] if axis else table.index).dropna()
        values = values[~values.index.duplicated(keep="last")].sort_index()  # a resumed run repeats steps
        if len(values):
            curves[_split(str(column))] = values
    if not curves:
        raise ValueError(message("Expected columns of numbers, such as loss", found=list(table.columns)))
    return curves


def _panels(
    curves: dict[tuple[str, str], pd.Series], names: str | Sequence[str] | None
) -> dict[str, list[tuple[str, str]]]:
    """Curves of each panel."""
    quantities = list(dict.fromkeys(quantity for quantity, _ in curves))
    if names is not None:
        chosen = [names] if isinstance(names, str) else list(names)
        unknown = [name for name in chosen if name not in quantities]
        if unknown:
            raise KeyError(message("Expected a logged quantity", found=repr(unknown[0]), available=quantities))
        return {name: [pair for pair in curves if pair[0] == name] for name in chosen}
    panels: dict[str, list[tuple[str, str]]] = {_TOTAL: [], "terms": []}
    for quantity, stage in curves:
        term = quantity in {"spot", "niche", "spot_niche"} or quantity.startswith("loss_")
        panels.setdefault("terms" if term else quantity, []).append((quantity, stage))
    return {name: members for name, members in panels.items() if members}


def _curve(ax: Axes, values: pd.Series, label: str, color: str, *, dashed: bool, size: float, alpha: float) -> None:
    style = "--" if dashed else "-"
    x, y = np.asarray(values.index, dtype=float), values.to_numpy(float)
    if len(y) > _SMOOTH_FROM:
        ax.plot(x, y, color=color, linewidth=0.6, alpha=alpha, label="_single values")
        y = values.rolling(max(2, len(y) // 50), min_periods=1, center=True).mean().to_numpy(float)
    marker = "o" if len(y) <= 20 else None
    ax.plot(x, y, color=color, linewidth=size, linestyle=style, marker=marker, markersize=3, label=label)
