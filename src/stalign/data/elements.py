"""Sections of a SpatialData: regions of the table, centroids, image levels and transformations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.data.images import SectionImage
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
        Name of the image element, or None for the finest image in that coordinate system.

    Returns
    -------
    The place.

    Raises
    ------
    KeyError
        If the element, the image or the coordinate system is not there.
    ValueError
        If a library's spots belong to several elements.
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
    own = get_transformation(element, get_all=True)
    systems = {name: affine(value) for name, value in own.items()}
    images = [image_key] if image_key is not None else list(data.images)
    reach = {name: set(get_transformation(data.images[name], get_all=True)) for name in images}
    system = _system(systems, reach, coordinate_system, library)
    centroids = get_centroids(element, coordinate_system=system).compute()
    wanted = table.obs[attrs["instance_key"]].to_numpy()[rows]
    where = centroids.index.get_indexer(wanted)
    coords = centroids[["x", "y"]].to_numpy(dtype=np.float64)[where]
    coords[(where < 0) | ~np.isfinite(coords).all(axis=1)] = np.nan
    under = [name for name in images if system in reach[name]]
    best = _finest(data, under, system)
    radius = np.median(element["radius"]) if "radius" in getattr(element, "columns", []) else None
    size = float(np.sqrt(abs(np.linalg.det(systems[system][:2, :2]))))
    return Place(library, region, system, coords, best, None if radius is None else float(2 * radius), size)


def _system(own: dict[str, NDArray[np.float64]], reach: dict[str, set[str]], wanted: str | None, library: str) -> str:
    shared = [name for name in own if any(name in systems for systems in reach.values())]
    if wanted is not None:
        if wanted not in own:
            raise KeyError(
                message(
                    f"Expected `coordinate_system` to be one of section {library!r}",
                    found=repr(wanted),
                    available=shared or own,
                )
            )
        return wanted
    if not shared and len(reach) == 1:
        image = next(iter(reach))
        raise KeyError(
            message(
                f"Expected a coordinate system shared by section {library!r} and image {image!r}",
                found=f"{sorted(own)} and {sorted(reach[image])}",
                hint="Set one with spatialdata.transformations.set_transformation",
            )
        )
    usable = shared or list(own)
    return min(usable, key=lambda name: (not np.allclose(own[name], np.eye(3)), name != "global", name))


def affine(transformation: Any) -> NDArray[np.float64]:
    """Get a transformation as a matrix.

    Parameters
    ----------
    transformation
        A transformation of spatialdata.

    Returns
    -------
    Matrix (3, 3) on (x, y, 1).
    """
    return np.asarray(transformation.to_affine_matrix(input_axes=("x", "y"), output_axes=("x", "y")), dtype=np.float64)


def _levels(element: Any) -> list[Any]:
    """Arrays (c, y, x) of an image element, finest first."""
    if hasattr(element, "dims"):
        if isinstance(element.dims, tuple):
            return [element]
    return [next(iter(element[name].values())) for name in element]


def _finest(data: SpatialData, names: list[str], system: str) -> str | None:
    if not names:
        return None
    sizes = {name: _step(data.images[name], system, name)[0] for name in names}
    return min(names, key=lambda name: (sizes[name], name))


def _step(element: Any, system: str, name: str) -> tuple[float, NDArray[np.float64]]:
    """Coordinate px per image px, and the position of the image's corner in coordinate px."""
    from spatialdata.transformations import get_transformation

    matrix = affine(get_transformation(element, to_coordinate_system=system))
    x, y = matrix[0, 0], matrix[1, 1]
    if not (np.allclose(matrix[[0, 1], [1, 0]], 0, atol=1e-9 * abs(x)) and np.isclose(x, y, rtol=1e-3) and x > 0):
        raise ValueError(
            message(
                f"Expected image {name!r} to be placed in {system!r} by scale and translation",
                found=f"the matrix {np.round(matrix[:2], 6).tolist()}",
                hint="Use the image's own frame as `coordinate_system=`, or transform the element",
            )
        )
    return float(np.sqrt(x * y)), matrix[:2, 2]


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


def image(data: SpatialData, found: Place, mpp: float, want_mpp: float | None) -> SectionImage | None:
    """Open a region's image at the level that is fine enough.

    Parameters
    ----------
    data
        The SpatialData.
    found
        Where the region lies.
    mpp
        µm per coordinate px.
    want_mpp
        µm per px that will be needed, or None for the finest level.

    Returns
    -------
    The image, or None where no image lies under the spots.

    Raises
    ------
    ValueError
        If the image's transformation is more than scale and translation.
    """
    if found.image_key is None:
        return None
    element = data.images[found.image_key]
    step, corner = _step(element, found.system, found.image_key)
    levels = _levels(element)
    full = levels[0].sizes["x"]
    choice = 0
    for index, level in enumerate(levels):
        if want_mpp is not None and mpp * step * full / level.sizes["x"] <= want_mpp * (1 + 1e-6):
            choice = index
    level = levels[choice].transpose("c", "y", "x")
    scale = float(f"{level.sizes['x'] / (full * step):.12g}")
    offset = (float(0.0 - corner[0] * scale), float(0.0 - corner[1] * scale))
    shape = (int(level.sizes["y"]), int(level.sizes["x"]))
    return SectionImage(found.image_key, level.data, scale, offset, mpp / scale, shape, channels_first=True)
