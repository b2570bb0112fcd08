"""Positions of spots in an AnnData, in the forms that other tools leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

_ACROSS: Final = {"x", "col", "column", "imagecol", "pxl_col_in_fullres", "pxl_col", "xaxis"}
_DOWN: Final = {"y", "row", "imagerow", "pxl_row_in_fullres", "pxl_row", "yaxis"}


def positions(table: AnnData, rows: NDArray[np.intp], name: str) -> NDArray[np.float64]:
    """Read the positions of a section's spots.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the spots in the table, (n,).
    name
        Name of the section, for messages.

    Returns
    -------
    A copy of x and y (n, 2) in coordinate px; both are NaN where one is. The columns of a DataFrame are told by their
    names where these are x and y, or col and row.

    Raises
    ------
    KeyError
        If there are no coordinates.
    ValueError
        If they are not x and y, no real numbers, or hold a third coordinate that varies in the section.
    """
    if Keys.SPATIAL not in table.obsm:
        raise KeyError(
            message(
                f"Expected coordinates in obsm[{Keys.SPATIAL!r}]",
                found="none",
                available=table.obsm.keys(),
                hint="Put x and y in px of the full-resolution image there",
            )
        )
    coords = _numbers(table.obsm[Keys.SPATIAL])
    if coords.ndim != 2 or coords.shape[1] not in (2, 3):
        expected = f"Expected x and y in obsm[{Keys.SPATIAL!r}]"
        raise ValueError(message(expected, found=f"shape {coords.shape}", hint="Keep two columns, x and y"))
    coords = coords[rows]
    if coords.shape[1] == 3:
        depth = coords[np.isfinite(coords[:, 2]), 2]
        if len(depth) and np.ptp(depth) > 0:
            raise ValueError(
                message(
                    f"Expected x and y in obsm[{Keys.SPATIAL!r}]",
                    found=f"a third column that varies in section {name!r}, from {depth.min():g} to {depth.max():g}",
                    hint="Keep x and y, and tell sections at different depths apart by a column of obs",
                )
            )
    coords = coords[:, :2].copy()
    coords[~np.isfinite(coords).all(axis=1)] = np.nan
    return coords


def _numbers(stored: Any) -> NDArray[np.float64]:
    """The stored values as numbers, x first."""
    if isinstance(stored, pd.DataFrame):
        names = [str(column).strip().lower() for column in stored]
        across = [i for i, column in enumerate(names) if column in _ACROSS]
        down = [i for i, column in enumerate(names) if column in _DOWN]
        if len(across) == len(down) == 1:
            stored = stored.iloc[:, [across[0], down[0]]]
        stored = stored.to_numpy()
    elif hasattr(stored, "toarray"):
        stored = stored.toarray()
    elif hasattr(stored, "compute"):
        stored = stored.compute()
    kind = np.asarray(stored).dtype
    if kind.kind in "cmM":
        raise ValueError(message(f"Expected numbers in obsm[{Keys.SPATIAL!r}]", found=f"values of {kind}"))
    try:
        return np.asarray(stored, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(message(f"Expected numbers in obsm[{Keys.SPATIAL!r}]", found=str(error))) from error
