"""Larger bins of a Visium HD section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, whole
from stalign.data import open_sections
from stalign.data.slots import write
from stalign.data.table import is_spatialdata, read_counts, table_of

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import Section

_ARRAY = ("array_row", "array_col")


def rebin(
    data: AnnData | SpatialData,
    um: int = 32,
    *,
    min_counts: int = 1,
    layer: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
) -> AnnData | SpatialData:
    """Sum the bins of a Visium HD section into larger ones.

    Parameters
    ----------
    data
        Bins as AnnData, or SpatialData with a table of bins that annotates shapes. It gains one column of obs.
    um
        Edge of the new bins in µm, a multiple of that of the bins.
    min_counts
        Fewest counts of a bin that is marked as having counts.
    layer
        Layer of the raw counts; None for `.X`.
    library_key
        Column of obs that tells the sections of an AnnData apart.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    A new AnnData; or a new SpatialData with the same images, one table `square_<um>um` and its squares. No bin is left
    out, and rows are ordered by section, row and column of the array.

    Reads
    -----
    - `.X` or a layer, (n_obs, n_vars): raw counts
    - `obs["array_row"]`, `obs["array_col"]`, (n_obs,) int
    - `obsm["spatial"]`, (n_obs, 2) float, px of the full-resolution image; of a SpatialData, the shapes
    - `bin_size_um` of the scale factors, or the name of the table or shapes

    Writes
    ------
    In `data`:

    - `obs["square_<um>um"]`, categorical: the new bin that each bin belongs to

    In the new object:

    - `.X`, (n_bins, n_vars) CSR float32: the sums
    - `obs["array_row"]`, `obs["array_col"]`, `obs["bins_summed"]`, int64; `obs["bin_has_counts"]`, bool
    - `obsm["spatial"]`, (n_bins, 2) float64: centres of the whole squares, also where some of their bins are missing
    - `uns["spatial"]`: as it was, with `bin_size_um` and `spot_diameter_fullres` of the new bins

    Raises
    ------
    TypeError
        If `data` is neither AnnData nor SpatialData, or `min_counts` is no whole number.
    KeyError
        If columns, layer or table are not there, or several sections are not told apart.
    ValueError
        If the spots are no bins of a stated size, `um` is no multiple of it, `min_counts` is below 1, a row or column
        of the array is no whole number, or a SpatialData's table annotates no shapes or several.

    Examples
    --------
    >>> import stalign
    >>> bins = stalign.datasets.toy_hd(8, side_um=320)
    >>> larger = stalign.pp.rebin(bins, 32)
    >>> int(larger.obs["bins_summed"].max()), larger.uns["spatial"]["toy_hd"]["scalefactors"]["bin_size_um"]
    (16, 32.0)
    >>> bins.obs_names[0], bins.obs["square_032um"].iloc[0]
    ('s_008um_00001_00005-1', 's_032um_00000_00001-1')
    """
    if isinstance(um, bool) or not isinstance(um, Integral) or um < 1:
        raise ValueError(message("Expected `um` to be a whole number of µm", found=repr(um)))
    whole(min_counts, name="min_counts", least=1)
    table, name = table_of(data, table_key), f"square_{um:03d}um"
    missing = [column for column in _ARRAY if column not in table.obs]
    if missing:
        hint = "Bins as Space Ranger writes them have their row and column on the array"
        raise KeyError(message("Expected columns array_row and array_col in obs", found=f"no {missing[0]}", hint=hint))
    views = open_sections(data, table_key=table_key, library_key=library_key, image=False)
    factors = {_times(view, int(um)) for view in views}
    if len(factors) > 1:
        raise ValueError(message("Expected bins of one size", found=f"{len(factors)} sizes", hint="Split the sections"))
    times = factors.pop()
    parents = _parents(table, views, times, int(um))
    new = _summed(table, parents, layer=layer, min_counts=min_counts)
    centres, edges = _fit(table, views, parents, times)
    if Keys.SPATIAL in table.obsm:
        new.obsm[Keys.SPATIAL] = centres
    if library_key is not None:
        first = parents.drop_duplicates("parent").set_index("parent").loc[new.obs_names, "position"].to_numpy()
        new.obs[library_key] = table.obs[library_key].to_numpy()[first]
    if isinstance(table.uns.get(Keys.UNS_SPATIAL), Mapping):
        new.uns[Keys.UNS_SPATIAL] = {
            _renamed(key, name): _enlarged(entry, times, int(um)) for key, entry in table.uns[Keys.UNS_SPATIAL].items()
        }
    result: AnnData | SpatialData = new
    if is_spatialdata(data):
        result = _with_squares(data, table, new, name, centres, edges)
    write(data, {"obs": {name: parents["parent"].astype("category")}}, table_key=table_key)
    poor = int((~new.obs[Keys.HAS_COUNTS]).sum())
    logger.info(
        "Summed %d bins into %d of %d µm, %d of them with fewer than %d counts: added obs[%r] to the small ones.",
        table.n_obs, new.n_obs, um, poor, max(min_counts, 1), name,
    )  # fmt: skip
    return result


def _times(view: Section, um: int) -> int:
    """Small bins along the edge of a new one."""
    if view.technology != "hd":
        hint = "Write their edge in µm as `bin_size_um` into the scale factors of `uns['spatial']`"
        expected = f"Expected section {view.name!r} to have bins of a stated size"
        raise ValueError(message(expected, found=f"spots of kind {view.technology!r}", hint=hint))
    times = um / view.pitch_um
    if times < 2 or abs(times - round(times)) > 1e-6:
        expected = f"Expected `um` to be a multiple of the bins of {view.pitch_um:g} µm"
        raise ValueError(message(expected, found=um, available=[f"{view.pitch_um * n:g}" for n in (2, 4, 8)]))
    return round(times)


def _parents(table: AnnData, views: list[Section], times: int, um: int) -> pd.DataFrame:
    """New bin of each bin: its name, its row and column, and the bin's position in the table."""
    import pandas as pd

    array = table.obs[list(_ARRAY)].to_numpy(dtype=np.float64)
    if not np.array_equal(array, np.rint(array)):
        raise ValueError(message("Expected array_row and array_col to be whole numbers", found="fractions or NaN"))
    above = np.floor(array / times).astype(np.int64)
    suffix = np.full(table.n_obs, "1", dtype=object)
    for view in views:
        suffix[view.rows] = "1" if len(views) == 1 else view.name
    names = [f"s_{um:03d}um_{r:05d}_{c:05d}-{end}" for (r, c), end in zip(above, suffix, strict=True)]
    columns = {"parent": names, "row": above[:, 0], "column": above[:, 1], "position": np.arange(table.n_obs)}
    frame = pd.DataFrame(columns, index=table.obs_names)
    frame["section"] = 0
    for number, view in enumerate(views):
        frame.iloc[view.rows, frame.columns.get_loc("section")] = number
    return frame


def _unique(parents: pd.DataFrame) -> pd.DataFrame:
    return parents.drop_duplicates("parent").sort_values(["section", "row", "column"], kind="stable")


def _fit(
    table: AnnData, views: list[Section], parents: pd.DataFrame, times: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres (m, 2) of the new bins and half of their edges (m, 2, 2), along columns and rows, by the whole array."""
    array = table.obs[["array_col", "array_row"]].to_numpy(dtype=np.float64)
    new = _unique(parents)
    centres, edges = np.full((len(new), 2), np.nan), np.full((len(new), 2, 2), np.nan)
    for number, view in enumerate(views):
        rows, coords = view.rows[view.valid], view.positions[view.valid]
        middle, at = array[rows].mean(axis=0), coords.mean(axis=0)
        step = np.linalg.lstsq(array[rows] - middle, coords - at, rcond=None)[0]
        own = (new["section"] == number).to_numpy()
        place = (new.loc[own, ["column", "row"]].to_numpy() + 0.5) * times - 0.5
        centres[own] = (place - middle) @ step + at
        edges[own] = step * times / 2
    return centres, edges


def _summed(table: AnnData, parents: pd.DataFrame, *, layer: str | None, min_counts: int) -> AnnData:
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    counts = sparse.csr_matrix(read_counts(table, layer=layer)[0])
    new = _unique(parents)
    index = pd.Index(new["parent"]).get_indexer(parents["parent"])
    shape = len(new), table.n_obs
    ones = np.ones(table.n_obs, dtype=counts.dtype)
    summed = sparse.csr_matrix((ones, (index, np.arange(table.n_obs))), shape=shape) @ counts
    obs = pd.DataFrame(
        {
            "array_row": new["row"].to_numpy(),
            "array_col": new["column"].to_numpy(),
            "in_tissue": np.ones(len(new), dtype=np.int64),
            Keys.N_BINS: np.bincount(index, minlength=len(new)),
            Keys.HAS_COUNTS: np.asarray(summed.sum(axis=1)).ravel() >= min_counts,
        },
        index=pd.Index(new["parent"].astype(str).to_numpy()),
    )
    return AnnData(summed, obs=obs, var=table.var.copy())


def _enlarged(entry: Any, times: int, um: int) -> Any:
    """Entry of uns["spatial"] with the scale factors of larger bins."""
    if not isinstance(entry, Mapping):
        return entry
    factors = {**entry.get("scalefactors", {}), "bin_size_um": float(um)}
    if "spot_diameter_fullres" in factors:
        factors["spot_diameter_fullres"] = float(factors["spot_diameter_fullres"]) * times
    return {**entry, "scalefactors": factors}


def _renamed(key: str, name: str) -> str:
    return re.sub(r"square_\d{3}um", name, str(key))


def _with_squares(
    data: SpatialData,
    table: AnnData,
    new: AnnData,
    name: str,
    centres: NDArray[np.float64],
    edges: NDArray[np.float64],
) -> SpatialData:
    """A SpatialData of the images, the new squares and the new table."""
    from geopandas import GeoDataFrame
    from shapely import polygons
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import get_transformation

    corners = centres[:, None] + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ edges
    attrs = table.uns["spatialdata_attrs"]
    names = table.obs[attrs["region_key"]].astype(str)
    regions = list(names.unique())
    if len(regions) > 1:
        raise ValueError(message("Expected a table of one section", found=f"{len(regions)}", available=regions))
    if regions[0] not in data.shapes:
        hint = "Read the section with `stalign.io.read_visium_hd`, whose tables annotate squares"
        expected, found = "Expected a table that annotates squares", f"{regions[0]!r}, which is no element of shapes"
        raise ValueError(message(expected, found=found, available=data.shapes, hint=hint))
    region = _renamed(regions[0], name)
    region = region if region != regions[0] else f"{regions[0]}_{name}"
    new.obs["location_id"] = np.arange(new.n_obs)
    new.obs["region"] = region
    new.obs["region"] = new.obs["region"].astype("category")
    squares = GeoDataFrame(geometry=polygons(corners), index=new.obs["location_id"].to_numpy())
    transformations = get_transformation(data.shapes[regions[0]], get_all=True)
    return SpatialData(
        images=dict(data.images),
        shapes={region: ShapesModel.parse(squares, transformations=transformations)},
        tables={name: TableModel.parse(new, region=region, region_key="region", instance_key="location_id")},
    )
