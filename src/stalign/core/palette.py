"""Colours for domains that readers with any colour vision can tell apart."""

from __future__ import annotations

import colorsys

# Okabe and Ito 2008, without black, ordered so that neighbours differ in lightness as well as in hue
OKABE_ITO = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def palette(n: int) -> list[str]:
    """Get distinct colours.

    The first seven are those of Okabe and Ito, which stay apart under every form of colour blindness. Further ones take
    hues a golden section apart, in turn light and dark; beyond twenty or so no palette can be told apart.

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
    colors = list(OKABE_ITO)
    step = 0
    while len(colors) < n:
        hue = (0.11 + step * 0.6180339887498949) % 1.0
        light = (0.35, 0.65, 0.5)[step % 3]
        color = "#" + "".join(f"{round(255 * value):02X}" for value in colorsys.hls_to_rgb(hue, light, 0.6))
        if color not in colors:
            colors.append(color)
        step += 1
    return colors[:n]
