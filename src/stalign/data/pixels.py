"""Pixels of any kind as 8-bit RGB, from memory and from image files."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.Image import Image

_PIL_LOCK = threading.Lock()


def full_scale(array: Any) -> float:
    """Find the value that stands for full intensity.

    Parameters
    ----------
    array
        Pixels of any shape, in memory or lazy.

    Returns
    -------
    255 for 8 bits; 4095 or 65535 for 16 bits, by the largest value; 1 or 255 for floats, likewise.

    Raises
    ------
    ValueError
        If the values are no intensities: negative, NaN, or floats above 255.
    """
    kind = np.dtype(array.dtype)
    if kind == np.uint8:
        return 255.0
    if kind == np.bool_:
        return 1.0
    if array.shape and 0 in array.shape:
        return 255.0
    low, high = float(np.asarray(array.min())), float(np.asarray(array.max()))
    steps = (1.0, 255.0) if kind.kind == "f" else (255.0, 4095.0, 65535.0)
    if not np.isfinite(high) or low < 0 or high > steps[-1] * (1 + 1e-6):
        raise ValueError(
            message(
                "Expected pixels of 8 or 16 bits, or floats from 0 to 1",
                found=f"{kind} from {low:g} to {high:g}",
                hint="Rescale the image",
            )
        )
    return next(step for step in steps if high <= step * (1 + 1e-6))


def to_rgb(array: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Convert pixels to 8-bit RGB.

    Parameters
    ----------
    array
        Pixels (H, W) or (H, W, c) with c = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); alpha is laid over white.
    white
        The value of full intensity.

    Returns
    -------
    RGB, (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in {1, 2, 3, 4}:
        raise ValueError(
            message("Expected an image with 1 to 4 channels", found=f"shape {array.shape}", hint="Pass an H&E image")
        )
    if array.dtype != np.uint8 or white != 255:
        array = np.rint(np.asarray(array, dtype=np.float32) * np.float32(255 / white)).clip(0, 255).astype(np.uint8)
    if array.shape[-1] in {2, 4}:
        alpha = array[..., -1:].astype(np.uint16)
        colour = array[..., :-1].astype(np.uint16)
        array = ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if array.shape[-1] == 1:
        array = np.repeat(array, 3, axis=-1)
    return np.ascontiguousarray(array)


@contextmanager
def _open(path: Path) -> Iterator[Image]:
    """Open a file with PIL; the guard against huge images is lifted for this call only."""
    from PIL import Image, UnidentifiedImageError

    with _PIL_LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            with Image.open(path) as image:
                yield image
        except UnidentifiedImageError as error:
            raise ValueError(
                message("Expected an image file", found=str(path), hint="Use PNG, JPEG or TIFF")
            ) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def file_levels(path: Path) -> list[tuple[int, int]]:
    """Read the sizes of an image file and of the smaller copies of it in the same file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Height and width in px of the first pages of a pyramidal TIFF, each smaller than the one before; of other files, one
    pair.

    Raises
    ------
    ValueError
        If the file is no image.
    """
    with _open(path) as image:
        sizes = [(image.height, image.width)]
        for frame in range(1, getattr(image, "n_frames", 1)):
            image.seek(frame)
            shrink = sizes[0][0] / image.height, sizes[0][1] / image.width
            if image.height >= sizes[-1][0] or abs(shrink[0] / shrink[1] - 1) > 0.02 + 1 / min(image.size):
                break
            sizes.append((image.height, image.width))
        return sizes


def read_file(path: Path, frame: int = 0) -> NDArray[np.uint8]:
    """Read an image file.

    Parameters
    ----------
    path
        PNG, JPEG, TIFF or anything else that PIL reads, whatever its suffix.
    frame
        Page to read.

    Returns
    -------
    RGB, (H, W, 3) uint8.

    Raises
    ------
    ValueError
        If the file is no image, or its pixels are no intensities.
    """
    with _open(path) as image:
        if frame:
            image.seek(frame)
        if image.mode == "RGB":
            return np.asarray(image)
        if image.mode in {"P", "CMYK", "YCbCr", "LAB", "HSV"}:
            return to_rgb(np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")), 255.0)
        array = np.asarray(image)
    return to_rgb(array, full_scale(array))
