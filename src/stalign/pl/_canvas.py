"""Figures and panels: who makes them, who shows them, and what is returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stalign._validate import message, whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 3.6  # inches, side of a panel; the legend comes beside it


def canvas(
    n: int,
    *,
    ax: Axes | Sequence[Axes] | None,
    ncols: int,
    width: float | Sequence[float] = PANEL,
    height: float = PANEL,
    beside: float | Sequence[float] = 0.0,
) -> tuple[Figure, list[Axes]]:
    """Make panels, or take those of the user.

    Parameters
    ----------
    n
        How many panels.
    ax
        The user's Axes, n of them, or None for a new figure.
    ncols
        Panels in a row of a new figure.
    width
        Width of the panels in inches, or one per panel; a column is as wide as the widest of its panels.
    height
        Height of a panel in inches, with its title.
    beside
        Room for a legend beside the panels in inches, or one per panel.

    Returns
    -------
    The figure and its n Axes.

    Raises
    ------
    ValueError
        If `ax` holds another number of Axes, or `ncols` is below 1.
    """
    from matplotlib import pyplot as plt

    whole(ncols, name="ncols")
    if ax is not None:
        axes: list[Axes] = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(axes) != n:
            raise ValueError(message(f"Expected `ax` to hold {n} Axes, one per panel", found=len(axes)))
        return cast("Figure", axes[0].figure), axes
    ncols = min(ncols, n)
    nrows = -(-n // ncols)
    widths, margins = (_columns(value, n, ncols) for value in (width, beside))
    figure, grid = plt.subplots(
        nrows,
        ncols,
        figsize=(sum(widths) + sum(margins), height * nrows),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"width_ratios": widths},
    )
    for spare in grid.ravel()[n:]:
        spare.set_axis_off()
    return figure, list(grid.ravel()[:n])


def _columns(value: float | Sequence[float], n: int, ncols: int) -> list[float]:
    """The largest value of each column, of one value or one per panel."""
    values = np.broadcast_to(np.asarray(value, dtype=np.float64), n)
    return [float(values[column::ncols].max()) for column in range(ncols)]


def finish(figure: Figure, axes: list[Axes], *, show: bool | None, return_fig: bool) -> Any:
    """Show a figure or hand it back.

    Parameters
    ----------
    figure
        The figure.
    axes
        Its panels.
    show
        Whether to show it; None shows it where the backend can, which is in notebooks and on desktops.
    return_fig
        Whether to return the figure.

    Returns
    -------
    The figure if `return_fig`, None if it was shown, else its Axes: one, or a list where there are several.
    """
    from matplotlib import pyplot as plt

    if return_fig:
        return figure
    if show is None:
        show = can_show()
    if not show:
        return axes[0] if len(axes) == 1 else axes
    if can_show():
        plt.show()
    return None


def can_show() -> bool:
    """Say whether the backend shows figures, rather than only writing files."""
    import matplotlib
    from matplotlib.backends.registry import BackendFilter, backend_registry

    backend = matplotlib.get_backend().lower()
    return "inline" in backend or backend in {
        name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    }


def entitle(
    ax: Axes, title: str | Sequence[str] | None, default: str, index: int = 0, n: int = 1, **style: Any
) -> None:
    """Give a panel its title.

    Parameters
    ----------
    ax
        The panel.
    title
        What the user gave: one title for all, one per panel, or None.
    default
        The title to use otherwise. It may come from the data, so that it is not read as mathematics.
    index
        Number of the panel.
    n
        How many panels there are.
    style
        Properties of the text.

    Raises
    ------
    ValueError
        If a list of titles has another length.
    """
    if title is not None and not isinstance(title, str) and len(title) != n:
        raise ValueError(message(f"Expected {n} titles, one per panel", found=len(title)))
    given = title if title is None or isinstance(title, str) else title[index]
    ax.set_title(default if given is None else given, parse_math=given is not None, **style)


def short(name: str, most: int = 40) -> str:
    """Cut the middle out of a name that is too long for a title."""
    half = (most - 1) // 2
    return name if len(name) <= most else f"{name[:half]}…{name[-half:]}"
