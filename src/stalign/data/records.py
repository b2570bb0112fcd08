"""What stalign noted in uns: tables with a row per section, as names of users are no keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.data.names import APART

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def record(table: AnnData, *path: str) -> Mapping[str, Any]:
    """Read a record of stalign, whatever else is in its place.

    Parameters
    ----------
    table
        The table.
    path
        Keys in uns, from the outermost.

    Returns
    -------
    The record, or an empty mapping where there is none.
    """
    found: Any = table.uns
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def facts(table: AnnData, *path: str) -> Mapping[str, Any]:
    """Read a record with its parameters and what was found in one mapping, as earlier files hold them.

    Parameters
    ----------
    table
        The table.
    path
        Keys in uns, from the outermost.

    Returns
    -------
    Parameters and results by name, or an empty mapping where there is no record.
    """
    return {**record(table, *path), **record(table, *path, "params")}


def result_record(params: Mapping[str, Any], **found: Any) -> dict[str, Any]:
    """Make the record of a result as scanpy has it: what was asked for under `params`, what was found beside it.

    Parameters
    ----------
    params
        The parameters; those that are None are left out.
    found
        What was found, by name.

    Returns
    -------
    The record, for uns.
    """
    return {"params": {name: value for name, value in params.items() if value is not None}, **found}


def section_table(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Make the table of a record, in types that h5ad and zarr hold.

    Parameters
    ----------
    rows
        Facts of each section, with its name as `section`: text, numbers and truth values. Missing text is "", missing
        numbers are NaN.

    Returns
    -------
    A row per section, numbered from "0".
    """
    table = pd.DataFrame([dict(row) for row in rows])
    table.index = table.index.astype(str)
    return table


def section_row(table: AnnData, entry: str, section: str) -> Mapping[str, Any]:
    """Look up what a record of uns["stalign"] says of a section.

    Parameters
    ----------
    table
        The table.
    entry
        The record: `patches` or `embed`.
    section
        Name of the section.

    Returns
    -------
    Its facts, or an empty mapping.
    """
    noted = record(table, Keys.UNS, entry).get("sections")
    if not isinstance(noted, pd.DataFrame) or "section" not in noted:
        return {}
    rows = noted[noted["section"].astype(str) == section]
    return rows.iloc[0].to_dict() if len(rows) == 1 else {}


def window_numbers(stored: Any) -> NDArray[np.float64] | None:
    """Read windows, whatever else is in their place.

    Parameters
    ----------
    stored
        What obsm holds, of n rows.

    Returns
    -------
    Windows (n, 4), x0 y0 x1 y1 in px of the image; None where these are none.
    """
    try:
        windows = np.asarray(stored, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return windows if windows.ndim == 2 and windows.shape[1] == 4 else None


def check_writable(table: AnnData, *keys: str) -> None:
    """Check that entries of uns can take stalign's records, before any work.

    Parameters
    ----------
    table
        The table.
    keys
        Keys in uns.

    Raises
    ------
    ValueError
        If something else is there.
    """
    for key in keys:
        found = table.uns.get(key)
        if found is not None and not isinstance(found, Mapping):
            raise ValueError(
                message(
                    f"Expected uns[{key!r}] to be a mapping, in which stalign keeps its record",
                    found=type(found).__name__,
                    hint=f"Rename it or delete it: `del adata.uns[{key!r}]`",
                )
            )


def check_key(key: str, *, name: str) -> None:
    """Check that a result can be stored under a name, also in h5ad and zarr.

    Parameters
    ----------
    key
        The name.
    name
        Name of the parameter, for the message.

    Raises
    ------
    TypeError
        If it is no text.
    ValueError
        If it is empty or holds "/", a backslash or NUL, which h5ad or zarr do not keep.
    """
    if not isinstance(key, str):
        raise TypeError(message(f"Expected `{name}` to be a name", found=repr(key)))
    plain = APART.sub("_", key)
    if not key or plain != key or key in {".", ".."}:
        hint = f"Use another character, such as {plain!r}" if plain.strip("_.") else ""
        raise ValueError(
            message(f"Expected `{name}` to be a name without a slash or backslash", found=repr(key), hint=hint)
        )
