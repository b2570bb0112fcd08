"""Sections of a SpatialData: regions of the table, centroids and coordinate systems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.data.levels import affine, choose, stained
from stalign.data.scale import Stated, bin_size
from stalign.data.table import library_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData


@dataclass(frozen=True)
class Place:
    """Where a region lies.

    Parameters
    ----------
    library
        Name of the library.
    region
        Name of the annotated element.
    system
        Coordinate system that the element shares with its image.
    coords
        Centroids (n, 2), x and y in that system.
    image_key
        Name of the image element, or None.
    spot_px
        Diameter of a spot in the element's own px, or None.
    size
        Coordinate px per px of the element.
    """

    library: str
    region: str
    system: str
    coords: NDArray[np.float64]
    image_key: str | None
    spot_px: float | None
    size: float


def regions(table: AnnData) -> list[tuple[str, NDArray[np.intp]]]:
    """Split a SpatialData's table by the element that each row annotates.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    Name and rows (n,) intp of each region.

    Raises
    ------
    ValueError
        If the table annotates no element.
    """
    names, codes = library_column(table, _attrs(table)["region_key"])
    return [(name, np.flatnonzero(codes == index)) for index, name in enumerate(names)]


def _attrs(table: AnnData) -> dict[str, Any]:
    attrs = table.uns.get("spatialdata_attrs")
    if not attrs or attrs.get("region_key") not in table.obs or attrs.get("instance_key") not in table.obs:
        raise ValueError(
            message(
                "Expected a table that annotates spots",
                found="a table without region and instance keys",
                hint="Link it with spatialdata.models.TableModel.parse(table, region=, region_key=, instance_key=)",
            )
        )
    return attrs


def place(
    data: SpatialData,
    table: AnnData,
    rows: NDArray[np.intp],
    library: str,
    coordinate_system: str | None,
    *,
    image_key: str | None,
) -> Place:
    """Find a library's spots and the image that lies under them.

    Parameters
    ----------
    data
        The SpatialData.
    table
        Its table.
    rows
        Positions of the library's spots in the table, (n,).
    library
        Name of the library.
    coordinate_system
        Coordinate system to use, or None to choose: one in which the spots' own coordinates hold, else `global`, else
        the first that spots and image share.
    image_key
        Name of the image element, or None for the finest image under the spots in that coordinate system.

    Returns
    -------
    The place.

    Raises
    ------
    KeyError
        If the element, the image or the coordinate system is not there.
    ValueError
        If a library's spots belong to several elements, or several images lie under them.
    """
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    attrs = _attrs(table)
    names = table.obs[attrs["region_key"]].iloc[rows].astype(str).unique()
    if len(names) != 1:
        raise ValueError(
            message(f"Expected the spots of section {library!r} in one element", found=", ".join(map(repr, names)))
        )
    region = str(names[0])
    if region not in data:
        available = [*data.shapes, *data.labels, *data.points]
        raise KeyError(
            message("Expected the element that the table annotates", found=repr(region), available=available)
        )
    element = data[region]
    if image_key is not None and image_key not in data.images:
        raise KeyError(message("Expected `image_key` to name an image", found=repr(image_key), available=data.images))
    own = {name: affine(value) for name, value in get_transformation(element, get_all=True).items()}
    images = [image_key] if image_key is not None else stained(data)
    reach = {name: set(get_transformation(data.images[name], get_all=True)) for name in images}
    system = _system(own, reach, coordinate_system, library, image_key)
    centroids = get_centroids(element, coordinate_system=system).compute()
    where = centroids.index.get_indexer(table.obs[attrs["instance_key"]].to_numpy()[rows])
    coords = centroids[["x", "y"]].to_numpy(dtype=np.float64)[where]
    coords[(where < 0) | ~np.isfinite(coords).all(axis=1)] = np.nan
    best = image_key or choose(data, [name for name in images if system in reach[name]], system, coords, region)
    radius = np.median(element["radius"]) if "radius" in getattr(element, "columns", []) else None
    size = float(np.sqrt(abs(np.linalg.det(own[system][:2, :2]))))
    return Place(library, region, system, coords, best, None if radius is None else float(2 * radius), size)


def _system(
    own: dict[str, NDArray[np.float64]],
    reach: dict[str, set[str]],
    wanted: str | None,
    library: str,
    image_key: str | None,
) -> str:
    shared = [name for name in own if any(name in systems for systems in reach.values())]
    if wanted is not None and wanted not in (own if image_key is None else shared):
        raise KeyError(
            message(
                f"Expected `coordinate_system` to be one of section {library!r}"
                + (" and its image" if image_key else ""),
                found=repr(wanted),
                available=shared or own,
            )
        )
    if image_key is not None and not shared:
        raise KeyError(
            message(
                f"Expected a coordinate system shared by section {library!r} and image {image_key!r}",
                found=f"{sorted(own)} and {sorted(reach[image_key])}",
                hint="Set one with spatialdata.transformations.set_transformation",
            )
        )
    if wanted is not None:
        return wanted
    return min(shared or own, key=lambda name: (not np.allclose(own[name], np.eye(3)), name != "global", name))


def restate(stated: Stated, found: Place) -> Stated:
    """Bring what the table says about the scale into the region's coordinate system.

    Parameters
    ----------
    stated
        What the table says, in px of the element.
    found
        Where the region lies.

    Returns
    -------
    The statement, in px of the coordinate system.
    """
    mpp = None if stated.mpp is None else stated.mpp / found.size
    spot_px = found.spot_px if stated.spot_px is None else stated.spot_px
    spot_px = None if spot_px is None else spot_px * found.size
    return replace(stated, mpp=mpp, bin_um=stated.bin_um or bin_size(found.region), spot_px=spot_px)
