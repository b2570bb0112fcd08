"""Writing of results: the one place that changes a table, in place or in a copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd
from anndata import AnnData

from stalign._validate import message
from stalign.data.records import check_writable, record
from stalign.data.table import table_of

if TYPE_CHECKING:
    from spatialdata import SpatialData

_SLOTS = ("obs", "var", "obsm", "varm", "obsp", "layers", "uns")


def write(
    data: AnnData | SpatialData,
    slots: Mapping[str, Mapping[str, Any]],
    *,
    copy: bool = False,
    table_key: str | None = None,
) -> AnnData | SpatialData | None:
    """Write results to the table, in place or to a copy; all of them or, after an error, none.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    slots
        Values by slot and key, such as `{"obsm": {"X_stalign": array}}`. Mappings in uns are merged with those there,
        one level deep.
    copy
        Whether to leave `data` as it is and return a changed copy, which shares the images, shapes and labels of a
        SpatialData.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    The changed copy, or None where `copy` is False.

    Raises
    ------
    ValueError
        If a slot is unknown, a value does not have a row per spot (or per gene), it is a pandas object with another
        index, or a record would replace something in uns that is no mapping.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import write
    >>> adata = stalign.datasets.toy(n_rows=8)
    >>> other = write(adata, {"obs": {"number": range(adata.n_obs)}}, copy=True)
    >>> "number" in other.obs, "number" in adata.obs
    (True, False)
    """
    table = table_of(data, table_key)
    for slot, values in slots.items():
        for key, value in values.items():
            _check_rows(table, slot, key, value)
    check_writable(table, *(key for key, value in slots.get("uns", {}).items() if isinstance(value, Mapping)))
    target = _copy(data, table) if copy else data
    table = table_of(target, table_key)
    for slot, values in slots.items():
        for key, value in values.items():
            if slot == "uns" and isinstance(value, Mapping):
                value = {**record(table, key), **value}
            getattr(table, slot)[key] = value
    return target if copy else None


def merged(*slots: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Join values by slot and key; mappings in uns are merged, one level deep.

    Parameters
    ----------
    slots
        Values by slot and key.

    Returns
    -------
    All of them.
    """
    joined: dict[str, dict[str, Any]] = {}
    for some in slots:
        for slot, values in some.items():
            for key, value in values.items():
                there = joined.setdefault(slot, {}).get(key)
                if slot == "uns" and isinstance(value, Mapping) and isinstance(there, Mapping):
                    value = {**there, **value}
                joined[slot][key] = value
    return joined


def _check_rows(table: AnnData, slot: str, key: str, value: Any) -> None:
    if slot not in _SLOTS:
        raise ValueError(message("Expected a slot of AnnData", found=repr(slot), available=_SLOTS))
    if slot == "uns":
        return
    expected = table.n_vars if slot in {"var", "varm"} else table.n_obs
    found = value.shape[0] if hasattr(value, "shape") else len(value)
    if slot == "obsp" and tuple(value.shape) != (expected, expected):
        raise ValueError(message(f"Expected shape ({expected}, {expected}) for obsp[{key!r}]", found=str(value.shape)))
    index = table.var_names if slot in {"var", "varm"} else table.obs_names
    if isinstance(value, pd.Series | pd.DataFrame) and not value.index.equals(index):
        raise ValueError(message(f"Expected the index of the table for {slot}[{key!r}]", found="another index"))
    if found != expected:
        raise ValueError(message(f"Expected {expected} rows for {slot}[{key!r}]", found=str(found)))


def _copy(data: AnnData | SpatialData, table: AnnData) -> AnnData | SpatialData:
    if isinstance(data, AnnData):
        return data.copy()
    from spatialdata import SpatialData

    return SpatialData(
        images=dict(data.images),
        labels=dict(data.labels),
        points=dict(data.points),
        shapes=dict(data.shapes),
        tables={name: value.copy() if value is table else value for name, value in data.tables.items()},
        attrs=dict(data.attrs),
    )
