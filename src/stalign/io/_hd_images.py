"""The images of a Visium HD section as elements of a SpatialData, the full-resolution one read by region."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.data.pixels import read_file
from stalign.io._files import listing
from stalign.io._visium import full_scale

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIFF = {".tif", ".tiff", ".btf", ".qptiff", ".svs", ".ndpi"}
_OTHER = {".png", ".jpg", ".jpeg"}
_LEVELS = (2, 2, 2, 2)  # each level of the full-resolution image over the next
_CHUNK = 2048  # px, edge of the parts that are computed at a time


def read_images(
    root: Path, where: Path, image: str | Path | None, library: str, factors: Mapping[str, Any]
) -> dict[str, Any]:
    """Read the images of a section.

    Parameters
    ----------
    root
        The `outs` folder.
    where
        Folder of the bins or cells, which may have images of its own.
    image
        Path of the full-resolution image, or None to look for it.
    library
        Name of the section.
    factors
        Scale factors.

    Returns
    -------
    Elements by name: `<library>_full_image`, multi-scale, `<library>_hires_image` and `<library>_lowres_image`, those
    that are there.

    Raises
    ------
    FileNotFoundError
        If `image` is not there.
    ValueError
        If there are several full-resolution images, one is of another shape than the images that Space Ranger made of
        it, or an image cannot be read.
    """
    from spatialdata.transformations import Identity, Scale

    found: dict[str, Any] = {}
    full, smaller = _full(root, image), {}
    for key in ("hires", "lowres"):
        files = [place / f"tissue_{key}_image.png" for place in (root / "spatial", where / "spatial")]
        file = next((file for file in files if file.is_file()), None)
        if file is None or f"tissue_{key}_scalef" not in factors:
            continue
        grow = 1 / float(factors[f"tissue_{key}_scalef"])
        placed = {f"{library}_downscaled_{key}": Identity(), library: Scale([grow, grow], axes=("x", "y"))}
        smaller[key] = read_file(file)
        found[f"{library}_{key}_image"] = _element(smaller[key], placed)
    if full is None:
        logger.info("There is no full-resolution image in %s; pass its path as `image=` to use it.", root)
        return found
    pixels = _pixels(full)
    shrink = 1 / full_scale(full, smaller, dict(factors))
    at = Identity() if shrink == 1 else Scale([shrink, shrink], axes=("x", "y"))
    return {f"{library}_full_image": _element(pixels, {library: at}, scale_factors=_LEVELS), **found}


def _full(root: Path, image: str | Path | None) -> Path | None:
    if image is not None:
        file = Path(image).expanduser().resolve()
        if not file.is_file():
            there = listing(file if file.is_dir() else file.parent)
            found = f"{'the folder' if file.is_dir() else 'nothing at'} {file}"
            raise FileNotFoundError(message("Expected an image file", found=found, available=there))
        return file
    groups = (root / "microscope_image").glob("*"), root.glob("tissue_image.*"), root.glob("*_tissue_image.*")
    for group in groups:
        files = sorted(f for f in group if f.suffix.lower() in _TIFF | _OTHER and not f.name.startswith("."))
        if len(files) > 1:
            names = [file.name for file in files]
            hint = "Pass the path of the one that Space Ranger was run on as `image=`"
            expected = f"Expected one full-resolution image in {files[0].parent}"
            raise ValueError(message(expected, found=f"{len(files)}", available=names, hint=hint))
        if files:
            return files[0]
    return None


def _pixels(file: Path) -> Any:
    """Pixels (height, width, channels) of an image; of a TIFF a dask array that reads the tiles it needs."""
    if file.suffix.lower() not in _TIFF:
        return read_file(file)
    import dask.array as da
    import tifffile
    import zarr

    try:
        with tifffile.TiffFile(file) as tiff:
            axes, shape = tiff.series[0].levels[0].axes, tiff.series[0].levels[0].shape
            tiled = tiff.series[0].keyframe.is_tiled
        edges = {"Y": _CHUNK if tiled else _CHUNK // 4, "X": _CHUNK if tiled else -1}  # strips are read whole
        source = zarr.open(tifffile.imread(file, aszarr=True, level=0), mode="r")
        array = da.from_array(source, chunks=tuple(edges.get(axis, -1) for axis in axes))
    except (tifffile.TiffFileError, OSError, LookupError, ValueError) as error:
        found = f"{file}, which can't be read ({type(error).__name__}: {error})"
        raise ValueError(message("Expected a TIFF", found=found, hint="Check that the file is whole")) from error
    axes = axes.replace("S", "C")
    if not {"Y", "X"} <= set(axes) or any(n > 1 for axis, n in zip(axes, shape, strict=True) if axis not in "YXC"):
        raise ValueError(message("Expected an image of rows, columns and channels", found=f"axes {axes} of {file}"))
    array = array[tuple(slice(None) if axis in "YXC" else 0 for axis in axes)]
    order = [axis for axis in axes if axis in "YXC"]
    if "C" not in order:
        array, order = array[..., None], [*order, "C"]
    return array.transpose([order.index(axis) for axis in "YXC"])


def _element(pixels: Any, placed: Mapping[str, Any], *, scale_factors: tuple[int, ...] | None = None) -> Any:
    from spatialdata.models import Image2DModel

    pixels = pixels[..., :3] if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels  # no opacity
    if scale_factors is not None:
        smallest = int(np.log2(max(min(pixels.shape[:2]), 1)))
        scale_factors = scale_factors[:smallest]
    return Image2DModel.parse(
        pixels.transpose(2, 0, 1),
        dims=("c", "y", "x"),
        c_coords=["r", "g", "b"] if pixels.shape[2] == 3 else None,
        scale_factors=list(scale_factors) if scale_factors else None,
        transformations=dict(placed),
    )
