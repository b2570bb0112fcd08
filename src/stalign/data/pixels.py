"""Pixels of any kind as 8-bit RGB, from memory and from image files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.data.image_files import open_level

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_STRIP = 1024  # rows or columns of a lazy array that are looked at together
_COLOUR = 6  # grey levels between the channels of a px above which it has a colour
_COLOURED = 0.005  # share of such px in the least of a stained section
_WHITE, _BLACK = 200, 50  # grey levels: slide without tissue above, background of fluorescence below
_FLAT = 0.2  # share of coloured px equal to all their neighbours above which an image is painted
_DARK = 0.05  # share of black px that an image of fluorescence has at least
_DEEP = 80  # grey levels of the weakest channel: that of stained tissue is above, that of a fluorescent dye below


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
        If the values are no intensities: no numbers, complex, negative, NaN, or floats above 255.
    """
    kind = np.dtype(array.dtype)
    if kind == np.uint8:
        return 255.0
    if kind == np.bool_:
        return 1.0
    if kind.kind not in "iuf":
        raise ValueError(message("Expected an image to hold pixels", found=f"values of {kind}"))
    if array.shape and 0 in array.shape:
        return 255.0
    low, high = _range(array)
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


def _range(array: Any) -> tuple[float, float]:
    """Smallest and largest value, of a lazy array in strips along its longest axis; NaN where one is."""
    if hasattr(array, "min"):
        return float(np.asarray(array.min())), float(np.asarray(array.max()))
    axis = int(np.argmax(array.shape))
    everything = [slice(0, length) for length in array.shape[: 2 if axis < 2 else None]]
    extremes = []
    for start in range(0, array.shape[axis], _STRIP):
        everything[axis] = slice(start, min(start + _STRIP, array.shape[axis]))
        part = np.asarray(array[tuple(everything)])
        extremes += [part.min(), part.max()]
    return float(np.min(extremes)), float(np.max(extremes))


def to_rgb(array: NDArray[Any], white: float, rgb: tuple[int, int, int] | None = None) -> NDArray[np.uint8]:
    """Convert pixels to 8-bit RGB.

    Parameters
    ----------
    array
        Pixels (H, W) or (H, W, c) with c = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); alpha is laid over white.
    white
        The value of full intensity.
    rgb
        Which channels are red, green and blue; None for the first three. A fourth of four is alpha. With it, there may
        be more channels, which are left out.

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
    if rgb is not None and array.ndim == 3:
        array = _ordered(array, rgb)
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


def _ordered(array: NDArray[Any], rgb: tuple[int, int, int]) -> NDArray[Any]:
    """Red, green and blue, and the fourth of four channels after them."""
    channels = array.shape[-1]
    if max(rgb) >= channels:
        raise ValueError(message(f"Expected channels {rgb} as red, green and blue", found=f"shape {array.shape}"))
    rest = [channel for channel in range(channels) if channel not in rgb] if channels == 4 else []
    order = [*rgb, *rest]
    return array if order == list(range(channels)) else array[..., order]


def read_file(path: Path, frame: int = 0) -> NDArray[np.uint8]:
    """Read a whole image file.

    Parameters
    ----------
    path
        TIFF, PNG, JPEG or anything else that PIL reads, whatever its suffix.
    frame
        Level to read, as an index into `data.image_files.level_sizes`.

    Returns
    -------
    RGB, (H, W, 3) uint8.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is no image or is damaged, or its pixels are no intensities.
    """
    array = open_level(path, frame)[:, :]
    return to_rgb(array, full_scale(array))


def stain_doubt(pixels: NDArray[np.uint8]) -> str:
    """Say why an image cannot be stained tissue in transmitted light.

    Parameters
    ----------
    pixels
        A thumbnail, RGB, (h, w, 3) uint8; some 256 px a side are enough.

    Returns
    -------
    The reason, as a phrase ("painted in flat colours, ..."), or "" for an image that can be H&E or another stain.

    Notes
    -----
    Images without colour are in doubt, as no stain is grey; images painted in flat colours, as a mask is; and images in
    which black px lie beside px of which one channel is nearly black as well, as in fluorescence. Stained tissue whose
    background was blanked, in white or black, passes: what is left is lit in all three channels.
    """
    from scipy.ndimage import uniform_filter

    values = np.asarray(pixels).astype(np.int16)
    low, high = values.min(axis=-1), values.max(axis=-1)
    same = np.ones(low.shape, dtype=bool)  # as the px to the left and above
    same[1:] &= (values[1:] == values[:-1]).all(axis=-1)
    same[:, 1:] &= (values[:, 1:] == values[:, :-1]).all(axis=-1)
    smooth = uniform_filter(values, (5, 5, 0))  # without the noise of a camera, which has all colours
    if (np.ptp(smooth, axis=-1) > _COLOUR).mean() < _COLOURED:
        return "without colour, as a mask or a single channel is"
    tinted = (high - low > _COLOUR) & (low < _WHITE)
    if tinted.any() and same[tinted].mean() > _FLAT:
        return "painted in flat colours, as a mask is"
    black = high < _BLACK
    lit = ~black
    if black.mean() >= _DARK and (not lit.any() or np.median(low[lit]) < _DEEP):
        return "dark around its signal, as fluorescence is"
    return ""
