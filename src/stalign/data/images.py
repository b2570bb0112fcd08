"""The image of a section: pixels in memory or on disk, cut into patches by window."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message
from stalign.core.patches import cut
from stalign.data.tiles import EDGE, Tiles, halve

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL.Image import Image

_IN_MEMORY = 2 * 1024**3  # bytes of RGB up to which an image is kept in memory once it is read
SLACK: Final = 1.01  # a level counts as fine enough up to 1 % above the wanted µm per px, as pitches are measured
_PIL_LOCK = threading.Lock()


@dataclass
class SectionImage:
    """An image and where it lies.

    Parameters
    ----------
    key
        Name of the image in its container.
    source
        Pixels, array-like (H, W), (H, W, c) or, with `channels_first`, (c, H, W), in memory or lazy; or a file's path.
    scale
        Image px per coordinate px.
    offset
        Image position of the coordinates' origin, (x, y) in image px.
    mpp
        µm per image px; NaN where unknown.
    shape
        Height and width in image px.
    channels_first
        Whether the channels are the first axis of `source`.
    frame
        Page of the file, for a TIFF with smaller copies of itself.

    Notes
    -----
    Pixels are read when they are first needed and converted to 8-bit RGB. Images of more than 2 GB stay where they are
    and are read in tiles.
    """

    key: str
    source: Any = field(repr=False)
    scale: float
    offset: tuple[float, float]
    mpp: float
    shape: tuple[int, int]
    channels_first: bool = False
    frame: int = 0
    _rgb: NDArray[np.uint8] | None = field(default=None, repr=False, init=False)
    _full_scale: float | None = field(default=None, repr=False, init=False)
    _levels: dict[int, NDArray[np.uint8] | Tiles] = field(default_factory=dict, repr=False, init=False)

    def to_pixels(self, coords: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert coordinates to px of this image.

        Parameters
        ----------
        coords
            Positions (n, 2), x and y in coordinate px.

        Returns
        -------
        Positions (n, 2), x and y in image px.
        """
        return np.asarray(coords, dtype=np.float64) * self.scale + np.asarray(self.offset)

    def patches(self, windows: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
        """Cut and resample patches.

        Parameters
        ----------
        windows
            Windows (b, 4), x0 y0 x1 y1 in image px; parts outside the image repeat its border.
        size
            Edge of a patch after resampling, in px.

        Returns
        -------
        Patches, (b, size, size, 3) uint8.

        Raises
        ------
        ValueError
            If a window is NaN.
        """
        windows = np.asarray(windows, dtype=np.float64).reshape(-1, 4)
        if not np.isfinite(windows).all():
            bad = int((~np.isfinite(windows)).any(axis=1).sum())
            raise ValueError(message("Expected finite windows", found=f"{bad} of {len(windows)} with NaN"))
        shortest = np.minimum(windows[:, 2] - windows[:, 0], windows[:, 3] - windows[:, 1])
        halvings = np.floor(np.log2(np.maximum(shortest / (2 * size), 1))).astype(np.intp)
        patches = np.empty((len(windows), size, size, 3), dtype=np.uint8)
        for times in np.unique(halvings):
            rows = halvings == times
            patches[rows] = cut(self._halved(int(times)), windows[rows] / 2**times, size)
        return patches

    def reading_order(self, windows: NDArray[np.float64]) -> NDArray[np.intp]:
        """Get the order in which windows are best cut in batches: each tile of a large image is then read once.

        Parameters
        ----------
        windows
            Windows (b, 4), x0 y0 x1 y1 in image px; may be NaN.

        Returns
        -------
        A permutation of the windows, (b,); as they come where the image is in memory.
        """
        windows = np.asarray(windows, dtype=np.float64).reshape(-1, 4)
        if self._fits():
            return np.arange(len(windows))
        return np.lexsort([*(windows[:, :2] // EDGE).T])

    def _halved(self, times: int) -> NDArray[np.uint8] | Tiles:
        """Get the image halved by 2 x 2 means; a large window is cut from such a level with no loss that shows."""
        if times == 0 and self._fits():
            return self.pixels()
        if times not in self._levels:
            if times == 0:
                self._levels[0] = Tiles(self.shape, self._region, budget=_IN_MEMORY)
            else:
                larger = self._halved(times - 1)
                self._levels[times] = larger.halved() if isinstance(larger, Tiles) else halve(larger)
        return self._levels[times]

    def pixels(self) -> NDArray[np.uint8]:
        """Get the whole image.

        Returns
        -------
        RGB, (H, W, 3) uint8. It is kept for the next call: treat it as read-only.
        """
        if self._rgb is None:
            if isinstance(self.source, Path):
                self._rgb = read_file(self.source, self.frame)
            else:
                self._rgb = self._region(0, self.shape[0], 0, self.shape[1])
        return self._rgb

    def thumbnail(self, max_side: int) -> tuple[NDArray[np.uint8], float]:
        """Get a smaller version for display.

        Parameters
        ----------
        max_side
            Longest edge, in px.

        Returns
        -------
        RGB, (h, w, 3) uint8, and its px per image px.
        """
        from PIL import Image

        step = max(1, int(max(self.shape) // (2 * max_side)))
        if self._fits():
            small = self.pixels()[::step, ::step]
        else:
            data = self.source[:, ::step, ::step] if self.channels_first else self.source[::step, ::step]
            small = self._to_rgb(data)
        factor = min(1.0, max_side / max(self.shape))
        size = (max(1, round(self.shape[1] * factor)), max(1, round(self.shape[0] * factor)))
        resized = Image.fromarray(np.ascontiguousarray(small)).resize(size, Image.Resampling.BILINEAR)
        return np.asarray(resized), factor

    def _fits(self) -> bool:
        return self._rgb is not None or isinstance(self.source, Path) or 3 * self.shape[0] * self.shape[1] <= _IN_MEMORY

    def _region(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        data = self.source[:, y0:y1, x0:x1] if self.channels_first else self.source[y0:y1, x0:x1]
        return self._to_rgb(data)

    def _to_rgb(self, data: Any) -> NDArray[np.uint8]:
        array = np.asarray(data)
        if self.channels_first:
            array = np.moveaxis(array, 0, -1)
        if self._full_scale is None:
            self._full_scale = full_scale(array if array.dtype == np.uint8 else self.source)
        return to_rgb(array, self._full_scale)


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
