"""The table of a container: its libraries and counts."""

from __future__ import annotations

import sys
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stalign._constants import LIBRARY
from stalign._validate import message, warn

if TYPE_CHECKING:
    from spatialdata import SpatialData


def is_spatialdata(data: object) -> bool:
    """Say whether an object is a SpatialData, without importing spatialdata.

    Parameters
    ----------
    data
        Any object.

    Returns
    -------
    True for a SpatialData.
    """
    module = sys.modules.get("spatialdata")
    return module is not None and isinstance(data, module.SpatialData)


def table_of(data: AnnData | SpatialData, table_key: str | None = None) -> AnnData:
    """Get the table that stalign reads from and writes to.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table.
    table_key
        Name of the table in a SpatialData; not needed where there is one, or one called `table`.

    Returns
    -------
    The AnnData itself, or the SpatialData's table; no copy.

    Raises
    ------
    TypeError
        If `data` is neither.
    ValueError
        If the table is backed by a file.
    KeyError
        If the table is not there or `table_key` is needed to choose.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import table_of
    >>> adata = stalign.datasets.toy(n_rows=8)
    >>> table_of(adata) is adata
    True
    """
    if isinstance(data, AnnData):
        table = data
    elif is_spatialdata(data):
        table = _pick_table(data, table_key)
    else:
        hint = ""
        if isinstance(data, list | tuple | dict):
            hint = (
                "Call the function for each of them, or join them with `anndata.concat({name: section, ...}, "
                "label='library', index_unique='-', uns_merge='unique')` and pass `library_key='library'`"
            )
        elif isinstance(data, str | PathLike):
            hint = "Read it first, with `stalign.io.read_h5ad` or `stalign.io.read_visium`"
        raise TypeError(message("Expected an AnnData or a SpatialData", found=type(data).__name__, hint=hint))
    lazy = not isinstance(table.obs, pd.DataFrame)
    if table.isbacked or lazy:
        found = "an AnnData that is read lazily" if lazy else "a backed AnnData"
        hint = "Call `data = data.to_memory()` first"
        raise ValueError(message("Expected a table in memory", found=found, hint=hint))
    return table


def _pick_table(data: SpatialData, table_key: str | None) -> AnnData:
    names = sorted(data.tables)
    if table_key is not None and table_key not in names:
        raise KeyError(message("Expected `table_key` to name a table", found=repr(table_key), available=names))
    if table_key is None:
        if len(names) == 1:
            table_key = names[0]
        elif "table" in names:
            table_key = "table"
        else:
            raise KeyError(
                message("Expected one table", found=f"{len(names)} tables", available=names, hint="Pass `table_key=`")
            )
    return data.tables[table_key]


def library_column(table: AnnData, library_key: str | None) -> tuple[list[str], np.ndarray]:
    """Get the library of each row.

    Parameters
    ----------
    table
        The table.
    library_key
        Column of obs with a library per spot, or None for one library.

    Returns
    -------
    The library names, and for each row the position of its library in them, (n_obs,) intp.

    Raises
    ------
    KeyError
        If the column is missing.
    ValueError
        If a row has no library.
    """
    if library_key is None:
        return [LIBRARY], np.zeros(table.n_obs, dtype=np.intp)
    if library_key not in table.obs:
        raise KeyError(
            message(
                "Expected `library_key` to name a column of obs",
                found=repr(library_key),
                available=label_columns(table),
                hint="Pass the column that tells the sections apart",
            )
        )
    column = table.obs[library_key]
    if column.isna().any():
        raise ValueError(
            message(
                f"Expected a library for every spot in obs[{library_key!r}]",
                found=f"{int(column.isna().sum())} missing values",
                hint="Fill them, or drop those spots",
            )
        )
    if isinstance(column.dtype, pd.CategoricalDtype):
        present = set(column.unique())
        values = [value for value in column.cat.categories if value in present]
    else:
        values = sorted(column.unique(), key=lambda value: (str(type(value)), value))
    names = [str(value) for value in values]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            message(
                f"Expected each section of obs[{library_key!r}] under one name",
                found=f"several values that read {twice!r}",
                hint=f"Make them text: `data.obs[{library_key!r}] = data.obs[{library_key!r}].astype(str)`",
            )
        )
    return names, pd.Index(values, dtype=object).get_indexer(pd.Index(column.to_numpy(), dtype=object))


def label_columns(table: AnnData) -> list[str]:
    """List the columns of obs that could name libraries or labels: categorical or text.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The names, in order.
    """
    return [name for name in table.obs if not pd.api.types.is_numeric_dtype(table.obs[name].dtype)]


def check_labels(table: AnnData, column: str, *, name: str) -> None:
    """Check that a column of obs holds labels rather than measurements.

    Parameters
    ----------
    table
        The table.
    column
        The column, which is there.
    name
        The parameter's name, for the message.

    Raises
    ------
    ValueError
        If it holds numbers that are not whole.
    """
    values = table.obs[column].dtype
    if not pd.api.types.is_float_dtype(values):
        return
    numbers = table.obs[column].dropna().to_numpy(dtype=np.float64)
    if (numbers % 1 != 0).any():
        raise ValueError(
            message(
                f"Expected `{name}` to name a column of labels",
                found=f"numbers in obs[{column!r}], such as {numbers[numbers % 1 != 0][0]:.4g}",
                available=label_columns(table),
                hint="Turn them into a categorical if they are labels",
            )
        )


def _layers(table: AnnData) -> list[str]:
    """Names of the layers; from anndata 0.13 on, X is among them under the name None."""
    return [name for name in table.layers if name is not None]


def has_counts(table: AnnData, layer: str | None = None) -> bool:
    """Say whether there is a count matrix at all.

    Parameters
    ----------
    table
        The table.
    layer
        Layer to look for, or None for X.

    Returns
    -------
    False where X is None or there are no genes.

    Raises
    ------
    KeyError
        If `layer` is not there.
    """
    if layer is not None and layer not in table.layers:
        raise KeyError(message("Expected `layer` to name a layer", found=repr(layer), available=_layers(table)))
    return table.n_vars > 0 and (layer is not None or table.X is not None)


def read_counts(
    table: AnnData, *, layer: str | None = None, total_counts: str | None = None
) -> tuple[sparse.csr_matrix, np.ndarray | None]:
    """Read raw counts, and check that they are.

    Parameters
    ----------
    table
        The table; it is not changed.
    layer
        Layer with raw counts, or None for X.
    total_counts
        Column of obs with each spot's total over all genes, where the matrix holds only some of them.

    Returns
    -------
    Counts, CSR (n_obs, n_vars) float32, and totals (n_obs,) float64 or None.

    Raises
    ------
    KeyError
        If the layer or the column is not there.
    ValueError
        If there are no counts, or they are complex, negative, NaN or infinite, or the totals are.

    Warns
    -----
    UserWarning
        If the counts are not whole numbers.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import read_counts
    >>> counts, totals = read_counts(stalign.datasets.toy(n_rows=8))
    >>> counts.dtype, totals is None
    (dtype('float32'), True)
    """
    where = "X" if layer is None else f"layers[{layer!r}]"
    if not has_counts(table, layer):
        raise ValueError(message(f"Expected raw counts in {where}", found="no matrix", hint="Pass `layer=`"))
    matrix = table.X if layer is None else table.layers[layer]
    if hasattr(matrix, "compute"):
        matrix = matrix.compute()
    if np.iscomplexobj(matrix):
        raise ValueError(message(f"Expected raw counts in {where}", found=f"values of {matrix.dtype}"))
    counts = sparse.csr_matrix(matrix, dtype=np.float32)
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    values = counts.data
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(message(f"Expected finite counts in {where}", found=f"{bad} NaN or infinite values"))
    if values.size and values.min() < 0:
        raise ValueError(
            message(
                f"Expected raw counts in {where}",
                found=f"negative values down to {values.min():.3g}",
                hint="This looks like scaled data; pass the layer with raw counts as `layer=`",
            )
        )
    if values.size and not np.array_equal(values, np.rint(values)):
        hint = "Pass the layer with raw counts as `layer=` if these are normalised; they are used as they are"
        if table.raw is not None:
            hint += ". Are they in `.raw`? `data.layers['counts'] = data.raw[:, data.var_names].X` makes a layer of it"
        expected, found = f"Expected raw counts in {where}", "values that are not whole numbers"
        warn(message(expected, found=found, available=_layers(table), hint=hint))
    return counts, read_totals(table, total_counts)


def read_totals(table: AnnData, total_counts: str | None) -> np.ndarray | None:
    """Read each spot's total count from obs.

    Parameters
    ----------
    table
        The table.
    total_counts
        Column of obs, or None.

    Returns
    -------
    Totals (n_obs,) float64, or None where no column is named.

    Raises
    ------
    KeyError
        If the column is not there.
    ValueError
        If it holds anything but finite numbers from 0.
    """
    if total_counts is None:
        return None
    numeric = [name for name in table.obs if pd.api.types.is_numeric_dtype(table.obs[name].dtype)]
    if total_counts not in table.obs:
        raise KeyError(
            message("Expected `total_counts` to name a column of obs", found=repr(total_counts), available=numeric)
        )
    if total_counts not in numeric:
        raise ValueError(
            message(f"Expected numbers in obs[{total_counts!r}]", found=str(table.obs[total_counts].dtype))
        )
    totals = table.obs[total_counts].to_numpy(dtype=np.float64)
    bad = ~(np.isfinite(totals) & (totals >= 0))
    if bad.any():
        raise ValueError(
            message(
                f"Expected totals from 0 in obs[{total_counts!r}]", found=f"{int(bad.sum())} negative or missing values"
            )
        )
    return np.asarray(totals)
