"""The toy section as SpatialData, laid out as spatialdata-io lays out Visium."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stalign._constants import Keys

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


def to_spatialdata(parts: list[AnnData], libraries: list[str]) -> SpatialData:
    """Put sections into one SpatialData.

    Parameters
    ----------
    parts
        The sections as AnnData.
    libraries
        Their names.

    Returns
    -------
    SpatialData with an image `<library>_hires_image` and circles `<library>` per section, each pair in a coordinate
    system of the library's name (px of full resolution), and one table, `table`.
    """
    from anndata import concat
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    images, shapes, tables = {}, {}, []
    for adata, library in zip(parts, libraries, strict=True):
        slide = adata.uns[Keys.UNS_SPATIAL][library]
        factors = slide["scalefactors"]
        if "hires" in slide["images"]:
            grow = 1 / factors["tissue_hires_scalef"]
            images[f"{library}_hires_image"] = Image2DModel.parse(
                np.moveaxis(slide["images"]["hires"], -1, 0),
                dims=("c", "y", "x"),
                c_coords=["r", "g", "b"],
                transformations={library: Scale([grow, grow], axes=("x", "y"))},
            )
        shapes[library] = ShapesModel.parse(
            adata.obsm[Keys.SPATIAL],
            geometry=0,
            radius=factors["spot_diameter_fullres"] / 2,
            index=np.arange(adata.n_obs),
            transformations={library: Identity()},
        )
        table = adata.copy()
        table.obs["region"] = library
        table.obs["spot_id"] = np.arange(adata.n_obs)
        tables.append(table)
    table = concat(tables) if len(tables) > 1 else tables[0]
    table.uns[Keys.UNS_SPATIAL] = {
        library: {key: part.uns[Keys.UNS_SPATIAL][library][key] for key in ("scalefactors", "metadata")}
        for part, library in zip(parts, libraries, strict=True)
    }
    table.obs["region"] = table.obs["region"].astype("category")
    table = TableModel.parse(table, region=libraries, region_key="region", instance_key="spot_id")
    return SpatialData(images=images, shapes=shapes, tables={"table": table})
