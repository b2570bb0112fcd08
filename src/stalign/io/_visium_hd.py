"""Reading of Visium HD folders: square bins, or segmented cells."""

from __future__ import annotations

import json
import re
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import LIBRARY, Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.io._files import folder, listing
from stalign.io._hd_images import read_images
from stalign.io._visium import read_positions

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

_FACTORS = "spatial/scalefactors_json.json"
_BINS = ("filtered_feature_bc_matrix.h5", "spatial/tissue_positions.parquet", _FACTORS)
_CELLS = ("filtered_feature_cell_matrix.h5", "cell_segmentations.geojson", _FACTORS)
_SLICE = "feature_slice.h5"


def read_visium_hd(
    path: str | Path,
    *,
    bin_size: int = 8,
    cells: bool = False,
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
        Whether to read segmented cells (Space Ranger 4) instead of bins.
    image
        Path of the full-resolution image; None looks for it in the folder and does without.
    library_id
        Name of the section; None takes it from the name of the feature slice file or the folder.

    Returns
    -------
    SpatialData with

    - the table `square_<bin size>um` or `cell_segmentations`: raw counts, CSR float32; `var["gene_name"]`,
      `var["gene_ids"]`; of bins `obs["array_row"]`, `obs["array_col"]`, `obs["in_tissue"]`, int64
    - `obsm["spatial"]` of the table: (n, 2) float64, x and y of the centres in px of the full-resolution image
    - `uns["spatial"][region]["scalefactors"]` of the table, with `microns_per_pixel`, of bins `bin_size_um`, and of
      cells `spot_diameter_fullres`, the median diameter of circles of their area
    - shapes `<library>_square_<bin size>um`, squares that follow the array, or `<library>_cell_segmentations`, polygons
    - images `<library>_full_image` (multi-scale, and read by region where it is a TIFF), `<library>_hires_image` and
      `<library>_lowres_image`, where there are some

    Raises
    ------
    FileNotFoundError
        If the folder or files are missing; the message lists them all.
    ValueError
        If `bin_size` is no whole number, there are no bins of that size, a file is damaged, counts and positions are of
        other bins, or there are several full-resolution images.

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
    root = _outs(folder(path))
    where, name, files = (
        (root / "segmented_outputs", "cell_segmentations", _CELLS)
        if cells
        else (_bins(root, int(bin_size)), f"square_{bin_size:03d}um", _BINS)
    )
    _require(where, files, cells=cells)
    table = _counts(where / files[0])
    factors = _json(where / _FACTORS)
    library = _element_name(library_id or _library(root))
    region = f"{library}_{name}"
    if cells:
        table, shapes = _place_cells(table, where / files[1], factors)
        instance = "cell_id"
    else:
        if factors.get("bin_size_um", bin_size) != bin_size:
            found = f"{factors['bin_size_um']:g} in {where / _FACTORS}"
            raise ValueError(message(f"Expected bins of {bin_size} µm by the scale factors", found=found))
        table, shapes = _place_bins(table, where / files[1])
        instance = "location_id"
    table.uns[Keys.UNS_SPATIAL] = {region: {"scalefactors": factors, "metadata": {}}}
    sdata = _assemble(table, shapes, name, region, instance, factors, library)
    for key, element in read_images(root, where, image, library, factors).items():
        sdata.images[key] = element
    logger.info("Read %d %s and %d genes.", table.n_obs, "cells" if cells else f"bins of {bin_size} µm", table.n_vars)
    return sdata


def _outs(root: Path) -> Path:
    """Find the folder with the bins, or say what else this one is."""
    for known in (root, root / "outs"):
        if (known / "binned_outputs").is_dir() or (known / "segmented_outputs").is_dir() or _sizes(known):
            return known
    hint = "Pass the `outs` folder of Space Ranger"
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
    where = where if where.is_dir() else root
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


def _damaged(file: Path, what: str, error: Exception) -> ValueError:
    found = f"{file}, which can't be read ({type(error).__name__}: {error})"
    return ValueError(message(f"Expected {what}", found=found, hint="Check that the file is whole, or copy it again"))


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(file, "the scale factors as Space Ranger writes them, in JSON", error) from error


def _counts(file: Path) -> AnnData:
    import warnings

    import scanpy

    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        try:
            table = scanpy.read_10x_h5(file)
        except (OSError, KeyError, ValueError) as error:
            raise _damaged(file, "the counts as Space Ranger writes them, in HDF5", error) from error
    table.var["gene_name"] = table.var_names.astype(str)
    table.var_names_make_unique()
    return table


def _known(table: AnnData, names: pd.Index, what: str) -> AnnData:
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


def _place_bins(table: AnnData, file: Path) -> tuple[AnnData, Any]:
    """The bins with their positions, and squares that follow the array."""
    from pyarrow import ArrowInvalid
    from shapely import polygons

    try:
        positions = read_positions(file)
    except (OSError, ArrowInvalid) as error:
        raise _damaged(file, "the positions of the bins, in parquet", error) from error
    table = _known(table, positions.index, "positions")
    placed = positions.loc[table.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        table.obs[name] = placed[name].astype(np.int64)
    xy = placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    table.obsm[Keys.SPATIAL] = xy
    array = positions[["array_col", "array_row"]].to_numpy(dtype=np.float64)
    at = positions[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    steps = np.linalg.lstsq(array - array.mean(axis=0), at - at.mean(axis=0), rcond=None)[0] / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ steps
    return table, polygons(xy[:, None] + corners)


def _place_cells(table: AnnData, file: Path, factors: dict[str, Any]) -> tuple[AnnData, Any]:
    """The cells with the centres of their outlines, and these; the scale factors gain the diameter."""
    from shapely import area, centroid, get_coordinates
    from shapely.geometry import shape

    try:
        features = json.loads(file.read_text(encoding="utf-8"))["features"]
        outlines = {f"cellid_{int(f['properties']['cell_id']):09d}-1": shape(f["geometry"]) for f in features}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(file, "the outlines of cells as Space Ranger writes them, in GeoJSON", error) from error
    table = _known(table, pd.Index(outlines, dtype=object), "outlines")
    shapes = np.array([outlines[name] for name in table.obs_names], dtype=object)
    table.obsm[Keys.SPATIAL] = get_coordinates(centroid(shapes))
    factors["spot_diameter_fullres"] = float(np.median(2 * np.sqrt(area(shapes) / np.pi)))
    return table, shapes


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
