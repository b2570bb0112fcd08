"""Scale bars."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEPS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def scale_bar(ax: Axes, view: tuple[float, float, float, float], *, dark: bool | None) -> None:
    """Draw a scale bar of a round number of µm in the lower left corner.

    Parameters
    ----------
    ax
        A panel in µm.
    view
        x0, y0, x1, y1 of the panel in µm.
    dark
        Whether the image under it is dark; None where there is no image.
    """
    width, height = view[2] - view[0], view[3] - view[1]
    fitting = [step for step in _STEPS_UM if step <= 0.3 * width]
    length = fitting[-1] if fitting else _STEPS_UM[0]
    name = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    start = view[0] + 0.04 * width, view[3] - 0.025 * height
    draw_bar(ax, start, length, 0.015 * height, name, dark=dark, fontsize="small", centred=length > 0.2 * width)


def draw_bar(
    ax: Axes,
    start: tuple[float, float],
    length: float,
    gap: float,
    name: str,
    *,
    dark: bool | None,
    fontsize: str,
    centred: bool,
) -> None:
    """Draw a bar with its length above it, outlined on an image.

    Parameters
    ----------
    ax
        The panel.
    start
        x and y of the left end, in units of the panel.
    length
        Length of the bar, in units of the panel.
    gap
        Distance from the bar to its name.
    name
        What stands above it.
    dark
        Whether the image under it is dark; None where there is no image.
    fontsize
        Size of the name.
    centred
        Whether the name stands over the middle of the bar, rather than over its left end.
    """
    from matplotlib import patheffects, rcParams

    ink, paper = ("white", "black") if dark else ("black", "white")
    color = rcParams["text.color"] if dark is None else ink
    around = [] if dark is None else [patheffects.withStroke(linewidth=4, foreground=paper)]
    thin = [] if dark is None else [patheffects.withStroke(linewidth=2, foreground=paper)]
    x, y = start
    ax.plot([x, x + length], [y, y], color=color, linewidth=2, zorder=5, path_effects=around, solid_capstyle="butt")
    ax.text(
        x + length / 2 if centred else x, y - gap, name, color=color, ha="center" if centred else "left", va="bottom",
        fontsize=fontsize, zorder=5, path_effects=thin,
    )  # fmt: skip
