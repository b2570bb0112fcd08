"""Counts of Visium HD, and errors that name the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign._settings import logger
from stalign._validate import message

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData


def damaged(file: Path, what: str, error: Exception) -> ValueError:
    """Make the error of a file that can't be read."""
    found = f"{file}, which can't be read ({type(error).__name__}: {error})"
    return ValueError(message(f"Expected {what}", found=found, hint="Check that the file is whole, or copy it again"))


def counts(file: Path) -> AnnData:
    """Read a matrix of counts, with unique symbols."""
    import warnings

    import scanpy

    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        try:
            table = scanpy.read_10x_h5(file)
        except (OSError, KeyError, ValueError) as error:
            raise damaged(file, "the counts as Space Ranger writes them, in HDF5", error) from error
    table.var["gene_name"] = table.var_names.astype(str)
    table.var_names_make_unique()
    return table


def known(table: AnnData, names: pd.Index, what: str) -> AnnData:
    """Bins or cells of the table that have a position."""
    known = table.obs_names.isin(names)
    if not known.any():
        some = [repr(str(index[0])) if len(index) else "nothing" for index in (table.obs_names, names)]
        raise ValueError(
            message(
                f"Expected the barcodes of the counts among the {what}",
                found=f"counts with {some[0]}, {what} with {some[1]}",
                hint="Check that both files are of one section and one size of bins",
            )
        )
    if not known.all():
        logger.warning("%d of %d barcodes have no %s and are left out.", int((~known).sum()), table.n_obs, what)
    return table if known.all() else table[known].copy()
