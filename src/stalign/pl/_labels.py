"""Columns of labels: their order, their colours, and the pairing of domains with a truth."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.palette import palette as default_palette
from stalign.core.scores import match_labels

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

NO_LABEL = "#B3B3B3"  # readable on black and on white
_MANY = 100  # labels beyond which a column of numbers is no column of labels
_NONE = ("", "nan", "None", "NA")  # what files write where there is no label
Palette = str | Sequence[str] | Mapping[str, str] | None


@dataclass(frozen=True)
class Labels:
    """A column of labels with an order and colours.

    Parameters
    ----------
    key
        Name of the column.
    names
        The labels, in the order of the legend.
    codes
        Position of each spot's label in `names`, (n,) intp; -1 where there is none.
    colors
        One `#RRGGBB` per name.
    """

    key: str
    names: list[str]
    codes: NDArray[np.intp]
    colors: list[str]

    def rgb(self) -> NDArray[np.float64]:
        """Colours of the spots, (n, 3)."""
        from matplotlib.colors import to_rgb

        table = np.array([to_rgb(color) for color in [*self.colors, NO_LABEL]])
        return np.asarray(table[self.codes])


def default_key(table: AnnData) -> str:
    """Name the column of domains, or say how to get one.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The column's name.

    Raises
    ------
    KeyError
        If there is none.
    """
    if Keys.DOMAIN not in table.obs:
        raise KeyError(
            message(
                f"Expected domains in obs[{Keys.DOMAIN!r}]",
                found="none",
                available=table.obs.columns,
                hint="Call `stalign.tl.domains(data, n_domains)` first, or name a column with `key=`",
            )
        )
    return Keys.DOMAIN


def read_labels(table: AnnData, key: str, *, palette: Palette = None) -> Labels:
    """Read a column of labels.

    Parameters
    ----------
    table
        The table.
    key
        Name of the column of obs.
    palette
        Colours: a list, a mapping from label to colour, the name of a colour map, or None for those stored in
        `uns[f"{key}_colors"]` and else the default.

    Returns
    -------
    The labels: in the order of the categories for a categorical, in natural order otherwise.

    Raises
    ------
    KeyError
        If the column is not there.
    ValueError
        If it holds measurements rather than labels, or the palette does not cover it.
    """
    if key not in table.obs:
        raise KeyError(message("Expected a column of obs", found=repr(key), available=table.obs.columns))
    column = table.obs[key]
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.cat.remove_categories([name for name in column.cat.categories if str(name) in _NONE])
        values, codes = column.cat.categories, column.cat.codes.to_numpy().astype(np.intp)
        used = np.unique(codes[codes >= 0])
        names = [str(values[code]) for code in used]
        place = np.full(len(values) + 1, -1, dtype=np.intp)
        place[used] = np.arange(len(used))
        codes = place[codes]
        stored = _stored(table, key, table.obs[key].cat.categories, names)
    else:
        numeric = pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column)
        if numeric and column.nunique() > _MANY:
            raise ValueError(
                message(
                    f"Expected labels in obs[{key!r}]",
                    found=f"{column.nunique()} different numbers",
                    hint="Continuous values are plotted by squidpy.pl.spatial_scatter",
                )
            )
        text = column.map(str, na_action="ignore")
        text = text.mask(text.isin(_NONE))
        names = sorted(text.dropna().unique(), key=_natural)
        codes = pd.Index(names).get_indexer(text).astype(np.intp)
        stored = _stored(table, key, names, names)
    return Labels(key, names, codes, _colors(names, palette, stored, key))


def matched(truth: Labels, labels: Labels, *, palette: Palette = None) -> Labels:
    """Give domains the colours and the order of the true labels that they agree with most (the Hungarian method).

    Parameters
    ----------
    truth
        The true labels.
    labels
        The domains of the same spots.
    palette
        Colours the user chose; a mapping that names every domain is taken as it is.

    Returns
    -------
    The domains, in the order of their true labels, unmatched ones last and in colours that no true label has.
    """
    both = (truth.codes >= 0) & (labels.codes >= 0)
    if not both.any():
        return labels
    pairs = {
        int(name): int(true)
        for name, true in match_labels(truth.codes[both].astype(str), labels.codes[both].astype(str)).items()
    }
    order = sorted(range(len(labels.names)), key=lambda code: (code not in pairs, pairs.get(code, code)))
    if isinstance(palette, Mapping) and all(name in palette for name in labels.names):
        colors = [palette[labels.names[code]] for code in order]
    else:
        taken = {color.upper() for color in truth.colors}
        extra = (color for color in default_palette(len(truth.names) + 2 * len(order)) if color.upper() not in taken)
        colors = [truth.colors[pairs[code]] if code in pairs else next(extra) for code in order]
    place = np.full(len(order) + 1, -1, dtype=np.intp)
    place[order] = np.arange(len(order))
    return Labels(labels.key, [labels.names[code] for code in order], place[labels.codes], colors)


def colors_of(names: Sequence[str], palette: Palette = None) -> list[str]:
    """Choose one colour per name.

    Parameters
    ----------
    names
        What is to be told apart.
    palette
        Colours: a list, a mapping, the name of a colour map, or None for the default.

    Returns
    -------
    `#RRGGBB` for each name.
    """
    return _colors(list(names), palette, None, "palette")


def _natural(name: str) -> list[Any]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part]


def _stored(table: AnnData, key: str, categories: Sequence[Any], names: list[str]) -> list[str] | None:
    """Colours in uns, which are in the order of the categories."""
    colors = table.uns.get(f"{key}_colors")
    if colors is None or len(colors) < len(categories):
        return None
    by_name = {str(category): str(color) for category, color in zip(categories, colors, strict=False)}
    return [by_name[name] for name in names]


def _colors(names: list[str], palette: Palette, stored: list[str] | None, key: str) -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    if palette is None:
        chosen: Any = stored if stored is not None else default_palette(len(names))
    elif isinstance(palette, str):
        if palette not in colormaps:
            raise ValueError(message("Expected `palette` to name a colour map", found=repr(palette)))
        colormap = colormaps[palette]
        listed = getattr(colormap, "colors", None)
        few = listed is not None and len(names) <= len(listed) <= 40
        chosen = list(listed) if few and listed is not None else colormap(np.linspace(0, 1, max(len(names), 2)))
    elif isinstance(palette, Mapping):
        missing = [name for name in names if name not in palette]
        if missing:
            raise ValueError(
                message(f"Expected `palette` to hold a colour for every label of {key!r}", found=f"none for {missing}")
            )
        chosen = [palette[name] for name in names]
    else:
        if len(palette) < len(names):
            raise ValueError(
                message(f"Expected `palette` to hold {len(names)} colours for {key!r}", found=f"{len(palette)}")
            )
        chosen = palette
    return [to_hex(color).upper() for color, _ in zip(chosen, names, strict=False)]
