"""Colours of labels: those stored beside a column, those the user chose, and the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.core.labels import as_text
from stalign.core.palette import palette as default_palette

if TYPE_CHECKING:
    from anndata import AnnData

Palette = str | Sequence[str] | Mapping[str, str] | None


def stored_colors(table: AnnData, key: str, categories: Sequence[str]) -> dict[str, str] | None:
    """Read the colours that scanpy and others keep beside a column of obs.

    Parameters
    ----------
    table
        The table.
    key
        Name of the column.
    categories
        Its categories as text, all of them, in the order that colours are stored in.

    Returns
    -------
    `#RRGGBB` of each category; None where there are no colours, another number of them than of categories, or what is
    there is no list of colours. The log says so.
    """
    slot = f"{key}_colors"
    values = table.uns.get(slot)
    if values is None:
        return None
    if isinstance(values, Mapping):
        by_name = {as_text(name): color for name, color in values.items()}
        values = [by_name[name] for name in categories if name in by_name]
    try:
        found = _rows(values)
    except (TypeError, ValueError):
        found = []
    colors = [_hex(color) for color in found]
    if len(colors) == len(categories) and None not in colors:
        return {name: str(color) for name, color in zip(categories, colors, strict=True)}
    wrong = [value for value, color in zip(found, colors, strict=True) if color is None]
    what = (
        f"'{wrong[0]}', which is no colour"
        if wrong
        else f"{len(colors)} colours for {len(categories)} categories"
        if found
        else f"{type(values).__name__}, which is no list of colours"
    )
    logger.warning("uns[%r] holds %s: the default colours are used.", slot, what)
    return None


def chosen_colors(names: Sequence[str], palette: Palette = None, *, key: str = "palette") -> list[str]:
    """Choose one colour per name.

    Parameters
    ----------
    names
        What is to be told apart.
    palette
        Colours: a list, a mapping, the name of a colour map, or None for the default.
    key
        What has these names, for messages.

    Returns
    -------
    `#RRGGBB` for each name.

    Raises
    ------
    ValueError
        If the palette is too short, names no colour map, or holds what is no colour.
    """
    from matplotlib import colormaps

    if palette is None:
        return default_palette(len(names))
    if isinstance(palette, str):
        if palette not in colormaps:
            raise ValueError(message("Expected `palette` to name a colour map", found=repr(palette)))
        colormap = colormaps[palette]
        listed = getattr(colormap, "colors", None)
        few = listed is not None and len(names) <= len(listed) <= 40
        chosen: Any = list(listed) if few and listed is not None else colormap(np.linspace(0, 1, max(len(names), 2)))
    elif isinstance(palette, Mapping):
        by_name = {as_text(name): color for name, color in palette.items()}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise ValueError(
                message(f"Expected `palette` to hold a colour for every label of {key!r}", found=f"none for {missing}")
            )
        chosen = [by_name[name] for name in names]
    else:
        if len(palette) < len(names):
            raise ValueError(
                message(f"Expected `palette` to hold {len(names)} colours for {key!r}", found=f"{len(palette)}")
            )
        chosen = palette
    colors = [_hex(color) for color, _ in zip(chosen, names, strict=False)]
    if None in colors:
        found = repr(chosen[colors.index(None)])
        raise ValueError(message("Expected `palette` to hold colours", found=found, hint="Such as '#0072B2' or 'red'"))
    return [str(color) for color in colors]


def other_colors(n: int, taken: Sequence[str]) -> list[str]:
    """Choose n colours of the default palette that are not taken."""
    used = {color.upper() for color in taken}
    return [color for color in default_palette(n + len(used)) if color not in used][:n]


def _rows(values: Any) -> list[Any]:
    """List stored colours; rows of numbers from 0 to 255 become rows from 0 to 1."""
    if isinstance(values, str | bytes):
        return [values]
    try:
        array = np.asarray(values)
    except ValueError:  # names and rows in one list
        return list(values)
    if array.ndim == 2 and array.dtype.kind in "uif" and array.shape[1] in {3, 4}:
        numbers = array.astype(np.float64)
        if numbers.size and numbers.max() > 1 and (numbers == np.round(numbers)).all():
            numbers = numbers / 255
        return list(numbers[:, :3])
    return list(array) if array.ndim == 1 else []


def _hex(color: Any) -> str | None:
    """Write a colour as `#RRGGBB`, without its opacity; None for what is no colour."""
    from matplotlib.colors import to_hex

    if isinstance(color, bytes):
        color = color.decode("utf-8", "replace")
    try:
        if isinstance(color, str):
            color = color.strip()
        elif not np.isfinite(np.asarray(color, dtype=np.float64)).all():
            return None
        return str(to_hex(color)).upper()
    except (TypeError, ValueError):
        return None
