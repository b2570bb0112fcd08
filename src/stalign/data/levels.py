"""Images of a SpatialData: which one lies under the spots, at which level, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.data.images import SLACK, SectionImage

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from spatialdata import SpatialData

_CHANNELS = 4  # images of more channels are no stained tissue: rasterised counts, immunofluorescence


def stained(data: SpatialData) -> list[str]:
    """List the images that can be tissue seen in colour or grey.

    Parameters
    ----------
    data
        The SpatialData.

    Returns
    -------
    Names of the images with 1 to 4 channels.
    """
    return [name for name, element in data.images.items() if arrays(element)[0].sizes["c"] <= _CHANNELS]


def arrays(element: Any) -> list[Any]:
    """Get the levels of an image element.

    Parameters
    ----------
    element
        A single-scale or multi-scale image.

    Returns
    -------
    DataArrays (c, y, x), finest first.
    """
    if isinstance(element.dims, tuple):
        return [element]
    return [next(iter(element[name].values())) for name in element]


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


def step(element: Any, system: str, name: str) -> tuple[float, NDArray[np.float64]]:
    """Find how large an image's pixels are and where its corner is.

    Parameters
    ----------
    element
        The image.
    system
        Coordinate system.
    name
        Name of the image, for the message.

    Returns
    -------
    Coordinate px per px of the finest level, and the position (x, y) of the image's corner in coordinate px.

    Raises
    ------
    ValueError
        If the image's transformation is more than scale and translation.
    """
    from spatialdata.transformations import get_transformation

    matrix = affine(get_transformation(element, to_coordinate_system=system))
    x, y = matrix[0, 0], matrix[1, 1]
    if not (x > 0 and np.isclose(x, y, rtol=1e-3) and np.allclose(matrix[[0, 1], [1, 0]], 0, atol=1e-6 * x)):
        raise ValueError(
            message(
                f"Expected image {name!r} to be placed in {system!r} by scale and translation",
                found=f"the matrix {np.round(matrix[:2], 6).tolist()}",
                hint="Use the image's own frame as `coordinate_system=`, or transform the element",
            )
        )
    return float(np.sqrt(x * y)), matrix[:2, 2]


def choose(data: SpatialData, names: list[str], system: str, coords: NDArray[np.float64], region: str) -> str | None:
    """Choose the image of a region: it lies under most spots, and is the finest of several.

    Parameters
    ----------
    data
        The SpatialData.
    names
        Names of the images in the coordinate system.
    system
        Coordinate system.
    coords
        Positions of the spots (n, 2), x and y in that system.
    region
        Name of the region; images named after it are preferred.

    Returns
    -------
    The name, or None where there is no image.

    Raises
    ------
    ValueError
        If several images of one resolution lie under the spots.
    """
    if len(names) <= 1:
        return names[0] if names else None
    steps: dict[str, float] = {}
    under: list[str] = []
    for name in names:
        try:
            size, corner = step(data.images[name], system, name)
        except ValueError as error:
            logger.info("Image %r is left out: %s", name, error)
            continue
        steps[name] = size
        finest = arrays(data.images[name])[0]
        pixels = (coords[np.isfinite(coords).all(axis=1)] - corner) / size
        inside = (pixels >= 0) & (pixels <= [finest.sizes["x"], finest.sizes["y"]])
        if len(pixels) and inside.all(axis=1).mean() > 0.5:
            under.append(name)
    under = [name for name in under if name.startswith(region)] or under or list(steps)
    best = [name for name in under if steps[name] <= min(steps[other] for other in under) * (1 + 1e-6)]
    if len(best) > 1:
        raise ValueError(
            message(
                f"Expected one image for region {region!r} in {system!r}",
                found=f"{len(best)} of the same resolution",
                available=best,
                hint="Pass `image_key=`, or a mapping from each library to its image",
            )
        )
    return best[0] if best else None


def image(data: SpatialData, name: str, system: str, *, mpp: float, want_mpp: float | None = None) -> SectionImage:
    """Open an image at the level that is fine enough.

    Parameters
    ----------
    data
        The SpatialData.
    name
        Name of the image.
    system
        Coordinate system of the spots.
    mpp
        µm per coordinate px.
    want_mpp
        µm per px that will be needed, or None for the finest level.

    Returns
    -------
    The image: the coarsest level of at most `want_mpp`, or the finest where none is.

    Raises
    ------
    ValueError
        If the image's transformation is more than scale and translation.
    """
    size, corner = step(data.images[name], system, name)
    levels = arrays(data.images[name])
    shrink = [_shrink(levels[0], level) for level in levels]
    choice = 0
    for index, factor in enumerate(shrink):
        if want_mpp is not None and mpp * size * factor <= SLACK * want_mpp:
            choice = index
    level = levels[choice].transpose("c", "y", "x")
    scale = float(f"{1 / (size * shrink[choice]):.12g}")  # undoes the rounding of stored inverse factors
    offset = (float(0.0 - corner[0] * scale), float(0.0 - corner[1] * scale))
    shape = (int(level.sizes["y"]), int(level.sizes["x"]))
    return SectionImage(name, level.data, scale, offset, mpp / scale, shape, channels_first=True)


def _shrink(full: Any, level: Any) -> float:
    """Px of the finest level per px of another; exact where it was made by whole factors that cut off the rest."""
    ratios = [full.sizes[axis] / level.sizes[axis] for axis in ("y", "x")]
    whole = round(sum(ratios) / 2)
    if all(full.sizes[axis] // whole == level.sizes[axis] for axis in ("y", "x")):
        return float(whole)
    return float(np.sqrt(ratios[0] * ratios[1]))
