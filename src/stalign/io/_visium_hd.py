"""Reading of Visium HD folders."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stalign._constants import Keys
from stalign._optional import require
from stalign._settings import logger
from stalign._validate import message
from stalign.io._files import first, folder

if TYPE_CHECKING:
    from pathlib import Path

    from spatialdata import SpatialData


def read_visium_hd(
    path: str | Path, *, bin_size: int = 8, image: str | Path | None = None, library_id: str | None = None
) -> SpatialData:
    """Read the bins of a Visium HD section from the folder that Space Ranger 3 or 4 wrote.

    Parameters
    ----------
    path
        The `outs` folder.
    bin_size
        Edge of the bins in µm: 2, 8 or 16.
    image
        Path of the full-resolution image; None looks for it in the folder and does without.
    library_id
        Name of the section; None takes it from the names of the files.

    Returns
    -------
    SpatialData with the table `square_<bin size>um`, the bins as shapes and the images, of which the full-resolution
    one is lazy and multi-scale. `uns["spatial"][region]["scalefactors"]` of the table has the scale factors with
    `bin_size_um` and `microns_per_pixel`.

    Raises
    ------
    FileNotFoundError
        If the folder, the bins or their scale factors are missing.
    ValueError
        If there are no bins of that size.
    ImportError
        If spatialdata-io is not installed.

    Notes
    -----
    The files are read by `spatialdata_io.visium_hd`.

    Examples
    --------
    >>> import stalign as st
    >>> sdata = st.io.read_visium_hd("path/to/outs", bin_size=16)  # doctest: +SKIP
    """
    root = folder(path)
    name = f"square_{bin_size:03d}um"
    bins = first(root, ["binned_outputs", "square_*um"], what="the binned outputs")
    bins = bins if bins.name == "binned_outputs" else root
    sizes = sorted(found.name for found in bins.glob("square_*um"))
    if name not in sizes:
        raise ValueError(message(f"Expected bins of {bin_size} µm in {bins}", found=repr(name), available=sizes))
    factors = first(bins / name / "spatial", ["scalefactors_json.json"], what="the scale factors of the bins")
    reader = require("spatialdata_io", purpose="Reading Visium HD")
    sdata = reader.visium_hd(
        root,
        dataset_id=library_id,
        bin_size=bin_size,
        load_segmentations_only=False,
        fullres_image_file=image,
    )
    table = sdata.tables[name]
    region = str(table.obs[table.uns["spatialdata_attrs"]["region_key"]].iloc[0])
    scalefactors = json.loads(factors.read_text(encoding="utf-8"))
    table.uns[Keys.UNS_SPATIAL] = {region: {"scalefactors": scalefactors, "metadata": {}}}
    for other in [key for key in sdata.tables if key != name]:
        del sdata.tables[other]
    logger.info("Read %d bins of %d µm and %d genes.", table.n_obs, bin_size, table.n_vars)
    return sdata
