"""Colours for domains that readers with any colour vision can tell apart, also over an H&E image."""

from __future__ import annotations

import colorsys

# The first six are those of Okabe and Ito 2008 without black, and without pink, which is lost on eosin. Each other
# is the colour farthest from all before it, and from eosin, in CIELAB under normal vision, deuteranopia and protanopia.
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#F0E442", "#961E1E", "#87F096", "#2D4B5A", "#96F0E1",
    "#6996A5", "#0096FF", "#87A55A", "#96E1FF", "#C3E169", "#87D2A5", "#004B78", "#004BA5", "#3C5A4B", "#B44B1E",
    "#69C3B4", "#007896", "#87694B", "#1E7878",
)  # fmt: skip


def palette(n: int) -> list[str]:
    """Get distinct colours.

    The first 24 keep a distance of 14 and more in CIELAB under every common form of colour blindness. Further ones take
    hues a golden section apart, in turn light and dark; no palette of that length can be told apart.

    Parameters
    ----------
    n
        How many colours.

    Returns
    -------
    Colours as `#RRGGBB`, n of them, all different; the first m of `palette(n)` are `palette(m)`.

    Examples
    --------
    >>> from stalign.core.palette import palette
    >>> palette(2)
    ['#0072B2', '#E69F00']
    """
    colors = list(COLORS)
    step = 0
    while len(colors) < n:
        hue = (0.11 + step * 0.6180339887498949) % 1.0
        light = (0.35, 0.65, 0.5)[step % 3]
        color = "#" + "".join(f"{round(255 * value):02X}" for value in colorsys.hls_to_rgb(hue, light, 0.6))
        if color not in colors:
            colors.append(color)
        step += 1
    return colors[:n]
