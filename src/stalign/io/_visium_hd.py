"""Reading of Visium HD folders: square bins, or segmented cells."""

from __future__ import annotations

import re
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import LIBRARY, Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.io._files import folder, listing, read_json, scale_factors
from stalign.io._hd_cells import MAPPINGS, OUTLINES, count_nuclei, place_cells, read_outlines
from stalign.io._hd_images import read_images
from stalign.io._hd_tables import counts, damaged, known
from stalign.io._positions import read_positions

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

_FACTORS = "spatial/scalefactors_json.json"
_BINS = ("filtered_feature_bc_matrix.h5", "spatial/tissue_positions.parquet", _FACTORS)
_CELLS = ("filtered_feature_cell_matrix.h5", OUTLINES["cells"], _FACTORS)
_SLICE = "feature_slice.h5"


def read_visium_hd(
    path: str | Path,
    *,
    bin_size: int = 8,
    cells: bool | str = False,
    image: str | Path | None = None,
    library_id: str | None = None,
) -> SpatialData:
    """Read the bins or the segmented cells of a Visium HD section from the folder that Space Ranger 3 or 4 wrote.

    Parameters
    ----------
    path
        The `outs` folder, or the one above it.
    bin_size
        Edge of the bins in µm, such as 2, 8 or 16.
    cells
        True reads segmented cells (Space Ranger 4) instead of bins; "nuclei" their nuclei, each with the sum of the
        squares of 2 µm in it.
    image
        Path of the full-resolution image; None looks for it in the folder and does without.
    library_id
        Name of the section; None takes it from the name of the feature slice file or the folder.

    Returns
    -------
    SpatialData with

    - the table `square_<bin size>um`, `cell_segmentations` or `nucleus_segmentations`: raw counts, CSR float32;
      `var["gene_name"]`, `var["gene_ids"]`; of bins `obs["array_row"]`, `obs["array_col"]`, `obs["in_tissue"]`, int64
    - `obsm["spatial"]` of the table: (n, 2) float64, x and y of the centres in px of the full-resolution image
    - `uns["spatial"][region]["scalefactors"]` of the table, with `microns_per_pixel`, of bins `bin_size_um`, and of
      cells `spot_diameter_fullres`, the median diameter of circles of their area
    - shapes `<library>_square_<bin size>um`, squares that follow the array, or `<library>_cell_segmentations`,
      polygons, and beside these `<library>_nucleus_segmentations`, where the folder has them, by the name of their cell
    - images `<library>_full_image` (multi-scale, and read by region where it is a TIFF), `<library>_hires_image` and
      `<library>_lowres_image`, where there are some

    Raises
    ------
    FileNotFoundError
        If the folder or files are missing; the message lists them all.
    ValueError
        If `bin_size` is no whole number, `cells` is anything else, there are no bins of that size, a file is damaged,
        counts and positions are of other bins, or there are several full-resolution images.

    Notes
    -----
    Names of elements are those of `spatialdata_io.visium_hd`, whose objects work as well. Letters of `library_id` that
    SpatialData does not take in names become `_`.

    Examples
    --------
    >>> import stalign as st
    >>> folder = st.datasets.write_toy_hd("toy_hd", side_um=240)
    >>> sdata = st.io.read_visium_hd(folder, bin_size=16)
    >>> list(sdata.shapes)
    ['toy_hd_square_016um']
    """
    if isinstance(bin_size, bool) or not isinstance(bin_size, Integral):
        hint = "Pass one size such as `bin_size=8`, and read others by further calls"
        raise ValueError(message("Expected `bin_size` to be one whole number of µm", found=repr(bin_size), hint=hint))
    if not isinstance(cells, bool) and cells != "nuclei":
        expected = "Expected `cells` to be True, False or 'nuclei'"
        raise ValueError(message(expected, found=repr(cells)))
    root = _outs(folder(path))
    library = _element_name(str(library_id or _library(root)))
    if cells:
        name, where = ("nucleus" if cells == "nuclei" else "cell") + "_segmentations", root / "segmented_outputs"
        table, shapes, factors, nuclei = _cells(root, where, nuclei=cells == "nuclei")
        instance = "cell_id"
    else:
        name, where = f"square_{bin_size:03d}um", _bins(root, int(bin_size))
        _require(where, _BINS, cells=False)
        table, factors, nuclei = counts(where / _BINS[0]), _factors(where), {}
        if factors.get("bin_size_um", bin_size) != bin_size:
            found = f"{factors['bin_size_um']:g} in {where / _FACTORS}"
            raise ValueError(message(f"Expected bins of {bin_size} µm by the scale factors", found=found))
        table, shapes = _place_bins(table, where / _BINS[1])
        instance = "location_id"
    region = f"{library}_{name}"
    table.uns[Keys.UNS_SPATIAL] = {region: {"scalefactors": factors, "metadata": {}}}
    sdata = _assemble(table, shapes, name, region, instance, factors, library)
    if nuclei:
        sdata.shapes[f"{library}_nucleus_segmentations"] = _beside(sdata.shapes[region], nuclei)
    for key, element in read_images(root, where, image, library, factors).items():
        sdata.images[key] = element
    what = "nuclei" if cells == "nuclei" else "cells" if cells else f"bins of {bin_size} µm"
    logger.info("Read %d %s and %d genes.", table.n_obs, what, table.n_vars)
    return sdata


def _outs(root: Path) -> Path:
    """Find the folder with the bins, or say what else this one is."""
    outer = [root.parent] if root.name in {"binned_outputs", "segmented_outputs"} else []
    for place in (*outer, root, root / "outs"):
        if (place / "binned_outputs").is_dir() or (place / "segmented_outputs").is_dir() or _sizes(place):
            return place
    packed = [
        name for name in listing(root) if re.fullmatch(r"(binned|segmented)_outputs\.(tar|tar\.gz|tgz|zip)", name)
    ]
    hint = f"Unpack {' and '.join(packed)}" if packed else "Pass the `outs` folder of Space Ranger"
    if (root / "filtered_feature_bc_matrix.h5").is_file() and (root / "spatial").is_dir():
        above = root.parent.parent if root.parent.name == "binned_outputs" else root.parent
        hint = "`stalign.io.read_visium` reads a folder of spots"
        if re.fullmatch(r"square_\d{3}um", root.name):
            size = int(root.name[7:10])
            hint = f"Pass {above} with `bin_size={size}`; `stalign.io.read_visium` reads a folder of bins as an AnnData"
    expected = f"Expected the binned outputs of Visium HD in {root} (binned_outputs or square_*um)"
    raise FileNotFoundError(message(expected, found="no such folder", available=listing(root), hint=hint))


def _sizes(where: Path) -> list[str]:
    """Names of the folders of bins."""
    return sorted(p.name for p in where.glob("square_*um") if p.is_dir())


def _bins(root: Path, bin_size: int) -> Path:
    where = root / "binned_outputs"
    where = where if _sizes(where) or not _sizes(root) else root
    name, sizes = f"square_{bin_size:03d}um", _sizes(where)
    if name not in sizes:
        hint = "`stalign.pp.rebin` makes larger bins of smaller ones" if sizes else ""
        if not sizes and (root / "segmented_outputs").is_dir():
            hint = "Pass `cells=True` for the segmented cells"
        raise ValueError(
            message(f"Expected bins of {bin_size} µm in {where}", found=repr(name), available=sizes, hint=hint)
        )
    return where / name


def _require(where: Path, files: tuple[str, ...], *, cells: bool) -> None:
    missing = [name for name in files if not (where / name).is_file()]
    if missing:
        hint = "Copy them from the folder that Space Ranger wrote"
        if cells and not where.is_dir():
            hint = "Cells are segmented by Space Ranger 4 and later; pass `bin_size=` for bins"
        raise FileNotFoundError(
            message(
                f"Expected {', '.join(files)} in {where}",
                found=f"no {' and no '.join(missing)}" if where.is_dir() else "no such folder",
                available=listing(where if where.is_dir() else where.parent),
                hint=hint,
            )
        )


def _library(root: Path) -> str:
    """Name of the section by the feature slice file, or else the folder."""
    files = [file.name for file in root.glob(f"*_{_SLICE}") if not file.name.startswith(".")]  # `._` is macOS's
    prefixes = {name.removesuffix(f"_{_SLICE}") for name in files}
    if len(prefixes) == 1:
        return prefixes.pop()
    return root.parent.name if root.name == "outs" else root.name


def _element_name(library: str) -> str:
    return re.sub(r"[^\w.-]", "_", library, flags=re.ASCII).lstrip("_.-") or LIBRARY


def _factors(where: Path) -> dict[str, Any]:
    return scale_factors(read_json(where / _FACTORS), str(where / _FACTORS))


def _place_bins(table: AnnData, file: Path) -> tuple[AnnData, Any]:
    """The bins with their positions, and squares that follow the array."""
    from pyarrow import ArrowInvalid
    from shapely import polygons

    try:
        positions = read_positions(file)
    except (OSError, ArrowInvalid) as error:
        raise damaged(file, "the positions of the bins, in parquet", error) from error
    table = known(table, positions.index, "positions")
    placed = positions.loc[table.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        table.obs[name] = placed[name].astype(np.int64)
    xy = placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64, copy=True)
    table.obsm[Keys.SPATIAL] = xy
    array = positions[["array_col", "array_row"]].to_numpy(dtype=np.float64)
    at = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    steps = np.linalg.lstsq(array - array.mean(axis=0), at - at.mean(axis=0), rcond=None)[0] / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ steps
    return table, polygons(xy[:, None] + corners)


def _cells(root: Path, where: Path, *, nuclei: bool) -> tuple[AnnData, Any, dict[str, Any], dict[str, Any]]:
    """Cells or nuclei: their table, outlines and scale factors; and, of cells, the outlines of their nuclei."""
    if not nuclei:
        _require(where, _CELLS, cells=True)
        factors, file = _factors(where), where / OUTLINES["nuclei"]
        table, shapes = place_cells(counts(where / _CELLS[0]), read_outlines(where / _CELLS[1]), factors)
        found = read_outlines(file) if file.is_file() else {}
        return table, shapes, factors, {name: found[name] for name in table.obs_names if name in found}
    _require(where, (OUTLINES["nuclei"], _FACTORS), cells=True)
    _require(root, (MAPPINGS,), cells=True)
    squares = _bins(root, 2)
    _require(squares, _BINS[:1], cells=False)
    factors, outlines = _factors(where), read_outlines(where / OUTLINES["nuclei"])
    table = count_nuclei(squares / _BINS[0], root / MAPPINGS, list(outlines))
    return *place_cells(table, outlines, factors), factors, {}


def _beside(cells: Any, nuclei: dict[str, Any]) -> Any:
    """Outlines of nuclei, placed as those of their cells."""
    from geopandas import GeoDataFrame
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import get_transformation

    frame = GeoDataFrame(geometry=list(nuclei.values()), index=list(nuclei))
    return ShapesModel.parse(frame, transformations=get_transformation(cells, get_all=True))


def _assemble(
    table: AnnData, shapes: Any, name: str, region: str, instance: str, factors: dict[str, Any], library: str
) -> SpatialData:
    from geopandas import GeoDataFrame
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    table.obs[instance] = np.arange(table.n_obs) if instance == "location_id" else table.obs_names.to_numpy()
    table.obs["region"] = pd.Categorical([region] * table.n_obs)
    placed = {library: Identity()}
    for key in ("hires", "lowres"):
        if f"tissue_{key}_scalef" in factors:
            scale = float(factors[f"tissue_{key}_scalef"])
            placed[f"{library}_downscaled_{key}"] = Scale([scale, scale], axes=("x", "y"))
    frame = GeoDataFrame(geometry=shapes, index=table.obs[instance].to_numpy())
    return SpatialData(
        shapes={region: ShapesModel.parse(frame, transformations=placed)},
        tables={name: TableModel.parse(table, region=region, region_key="region", instance_key=instance)},
    )
