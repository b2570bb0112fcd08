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


def hd_to_spatialdata(adata: AnnData, outlines: np.ndarray | None) -> SpatialData:
    """Put a Visium HD section into a SpatialData, with the names that spatialdata-io gives.

    Parameters
    ----------
    adata
        The section, with one library.
    outlines
        (n, m, 2) outlines of cells in px, closed; None for square bins.

    Returns
    -------
    SpatialData with an image `<library>_hires_image`, shapes `<library>_square_<size>um` or
    `<library>_cell_segmentations`, and a table of that name without the library.
    """
    from geopandas import GeoDataFrame
    from shapely import box, polygons
    from spatialdata import SpatialData
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    library = next(iter(adata.uns[Keys.UNS_SPATIAL]))
    slide = adata.uns[Keys.UNS_SPATIAL][library]
    factors, images = slide["scalefactors"], {}
    if "hires" in slide["images"]:
        grow = 1 / factors["tissue_hires_scalef"]
        images[f"{library}_hires_image"] = Image2DModel.parse(
            np.moveaxis(slide["images"]["hires"], -1, 0),
            dims=("c", "y", "x"),
            c_coords=["r", "g", "b"],
            transformations={library: Scale([grow, grow], axes=("x", "y"))},
        )
    table = adata.copy()
    if outlines is None:
        name, instance = f"square_{int(factors['bin_size_um']):03d}um", "location_id"
        table.obs[instance] = np.arange(table.n_obs)
        low, high = (table.obsm[Keys.SPATIAL] + sign * factors["spot_diameter_fullres"] / 2 for sign in (-1, 1))
        shapes = GeoDataFrame(geometry=box(*low.T, *high.T), index=table.obs[instance].to_numpy())
    else:
        name, instance = "cell_segmentations", "cell_id"
        table.obs[instance] = table.obs_names.to_numpy()
        shapes = GeoDataFrame(geometry=polygons(outlines), index=table.obs_names.to_numpy())
    region = f"{library}_{name}"
    table.obs["region"] = region
    table.obs["region"] = table.obs["region"].astype("category")
    table.uns[Keys.UNS_SPATIAL] = {region: {key: slide[key] for key in ("scalefactors", "metadata")}}
    return SpatialData(
        images=images,
        shapes={region: ShapesModel.parse(shapes, transformations={library: Identity()})},
        tables={name: TableModel.parse(table, region=region, region_key="region", instance_key=instance)},
    )
