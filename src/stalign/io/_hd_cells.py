"""Segmented cells and nuclei of Visium HD."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.io._hd_tables import counts, damaged, known

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

OUTLINES = {"cells": "cell_segmentations.geojson", "nuclei": "nucleus_segmentations.geojson"}
MAPPINGS = "barcode_mappings.parquet"
_POLYGONS = {"Polygon", "MultiPolygon"}
_COLUMNS = ["square_002um", "cell_id", "in_nucleus"]


def read_outlines(file: Path) -> dict[str, Any]:
    """Read the outlines of cells or nuclei, by the name of their cell in the table; only polygons count."""
    from shapely.geometry import shape

    try:
        features = json.loads(file.read_text(encoding="utf-8"))["features"]
        found = {_name(f["properties"]["cell_id"]): f["geometry"] for f in features}
        shapes = {name: shape(geometry) for name, geometry in found.items() if geometry}
        return {name: one for name, one in shapes.items() if one.geom_type in _POLYGONS and not one.is_empty}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(file, "the outlines of cells as Space Ranger writes them, in GeoJSON", error) from error


def _name(cell_id: Any) -> str:
    """Name of a cell in the table, by its number or name in the outlines."""
    text = str(cell_id)
    return text if text.startswith("cellid_") else f"cellid_{int(float(text)):09d}-1"


def place_cells(table: AnnData, outlines: dict[str, Any], factors: dict[str, Any]) -> tuple[AnnData, Any]:
    """The cells with the centres of their outlines, and these; the scale factors gain the diameter."""
    from shapely import area, centroid, get_coordinates

    table = known(table, pd.Index(outlines, dtype=object), "outlines")
    shapes = np.array([outlines[name] for name in table.obs_names], dtype=object)
    table.obsm[Keys.SPATIAL] = get_coordinates(centroid(shapes))
    factors.pop("bin_size_um", None)  # of the squares that the cells were summed from
    factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(area(shapes) / np.pi)))
    return table, shapes


def count_nuclei(matrix: Path, mappings: Path, names: list[str]) -> AnnData:
    """Sum the squares of 2 µm that lie in each nucleus.

    Parameters
    ----------
    matrix
        Counts of the squares of 2 µm.
    mappings
        Which cell each square belongs to, and whether it lies in the nucleus.
    names
        The cells.

    Returns
    -------
    Cells x genes, CSR float32; a nucleus without counts is there.

    Raises
    ------
    ValueError
        If a file is damaged, or the two are not of one section.
    """
    from anndata import AnnData
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table
    from scipy import sparse

    try:
        pairs = read_table(mappings, columns=_COLUMNS, filters=[("in_nucleus", "=", True)]).to_pandas()
    except (OSError, ArrowException) as error:
        raise damaged(mappings, f"the columns {', '.join(_COLUMNS)} as Space Ranger writes them", error) from error
    squares = counts(matrix)
    column = pd.Index(squares.obs_names).get_indexer(pairs["square_002um"])
    row = pd.Index(names).get_indexer(pairs["cell_id"])
    both = (column >= 0) & (row >= 0)
    if len(pairs) and names and not both.any():
        raise ValueError(
            message(
                f"Expected {mappings} and {matrix} of one section",
                found=f"{pairs['square_002um'].iloc[0]!r} in the one, {squares.obs_names[0]!r} in the other",
            )
        )
    shape = len(names), squares.n_obs
    inside = sparse.csr_matrix((np.ones(int(both.sum()), np.float32), (row[both], column[both])), shape=shape)
    return AnnData(inside @ squares.X, obs=pd.DataFrame(index=names), var=squares.var.copy())
