"""Columns of labels: their order, their colours, and the pairing of a truth with domains."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.labels import as_labels, as_text
from stalign.core.scores import match_labels
from stalign.pl._colors import Palette, chosen_colors, other_colors, stored_colors

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

NO_LABEL_COLOR = "#B3B3B3"  # readable on black and on white
_MANY = 100  # labels beyond which a column of numbers is no column of labels


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
    own
        Whether the user chose the colours or the object holds them, rather than that they are the default.
    """

    key: str
    names: list[str]
    codes: NDArray[np.intp]
    colors: list[str]
    own: bool = False

    def part(self, rows: NDArray[np.intp]) -> Labels:
        """The labels of some spots, with all names and colours."""
        return replace(self, codes=self.codes[rows])

    def rgb(self) -> NDArray[np.float64]:
        """Colours of the spots, (n, 3)."""
        from matplotlib.colors import to_rgb

        table = np.array([to_rgb(color) for color in [*self.colors, NO_LABEL_COLOR]])
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
    The labels that occur: whole numbers in their order; else in the order of the categories for a categorical, in
    natural order otherwise. What means "no label" for `tl.score` is none here.

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
    numeric = pd.api.types.is_float_dtype(column) or pd.api.types.is_integer_dtype(column)
    if numeric and column.nunique() > _MANY:
        raise ValueError(
            message(
                f"Expected labels in obs[{key!r}]",
                found=f"{column.nunique()} different numbers",
                hint="Continuous values are plotted by squidpy.pl.spatial_scatter",
            )
        )
    text = as_labels(column)
    present = {name for name in text if name is not None}
    ordered = False
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = [name or "" for name in as_labels(column.cat.categories, ignore=())]
        ordered = bool(column.cat.ordered)
    else:
        categories = sorted({name for name in as_labels(column, ignore=()) if name is not None}, key=_natural)
    names = [name for name in dict.fromkeys(categories) if name in present]
    if not ordered and all(name.isdecimal() for name in names):
        names = sorted(names, key=int)  # domains, whose numbers run along the tissue
    codes = pd.Index(names, dtype=object).get_indexer(text).astype(np.intp)
    stored = stored_colors(table, key, categories) if palette is None else None
    colors = chosen_colors(names, palette, key=key) if stored is None else [stored[name] for name in names]
    return Labels(key, names, codes, colors, own=palette is not None or stored is not None)


def paired(labels: Labels, guide: Labels) -> Labels:
    """Give labels the colours of those of a guide that they agree with most (the Hungarian method).

    Parameters
    ----------
    labels
        Labels to colour, such as a truth.
    guide
        Labels of the same spots whose colours stand, such as domains.

    Returns
    -------
    The labels in their own order; those without a partner have colours that nobody else has.
    """
    both = (labels.codes >= 0) & (guide.codes >= 0)
    pairs = match_labels(guide.codes[both].astype(str), labels.codes[both].astype(str)) if both.any() else {}
    rest = iter(other_colors(len(labels.names), guide.colors))
    colors = [guide.colors[int(pairs[str(k)])] if str(k) in pairs else next(rest) for k in range(len(labels.names))]
    return replace(labels, colors=colors)


def resolve(
    table: AnnData, columns: Sequence[str], truth: str | None, reference: str | None, palette: Palette
) -> list[Labels]:
    """Read the labels of the panels of a figure, the truth first, in colours that agree.

    Parameters
    ----------
    table
        The table.
    columns
        Columns of obs with domains, which keep their colours.
    truth
        Column with true labels; they take the colours of their partners in the first of `columns`, unless they have
        colours of their own.
    reference
        Column whose colours the domains take in this figure.
    palette
        Colours the user chose: a list or a colour map for the reference, else the domains, else the truth; a mapping
        for each column all of whose labels it names.

    Returns
    -------
    The labels.

    Raises
    ------
    KeyError
        If a column is not there.
    ValueError
        If a column holds measurements, or the palette covers none.
    """
    columns = [column for column in columns if column != truth]
    keys = list(dict.fromkeys(key for key in (reference, *columns, truth) if key is not None))
    read = {key: read_labels(table, key) for key in keys}
    if isinstance(palette, Mapping):
        known = {as_text(name) for name in palette}
        chosen = [key for key in keys if known.issuperset(read[key].names)]
        given = chosen or keys[:1]  # which says what is missing
    elif palette is not None:
        given = [reference] if reference is not None else columns or keys
    else:
        given = []
    read |= {key: read_labels(table, key, palette=palette) for key in given}
    found = [read[column] for column in columns]
    if reference is not None:
        fixed = set(given if isinstance(palette, Mapping) else ()) | {reference}
        found = [labels if labels.key in fixed else paired(labels, read[reference]) for labels in found]
    if truth is None:
        return found
    labels = read[truth]
    listed = palette is not None and not isinstance(palette, Mapping)
    own = truth in given or truth == reference or (labels.own and not listed)
    return [labels if own or not found else paired(labels, found[0]), *found]


def _natural(name: str) -> list[Any]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"(\d+)", name) if part
    ]
