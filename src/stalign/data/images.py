"""The image of a section: pixels in memory or on disk, cut into patches by window."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message
from stalign.core.patches import cut
from stalign.data.pixels import full_scale, read_file, to_rgb
from stalign.data.tiles import EDGE, Tiles, halve

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IN_MEMORY = 2 * 1024**3  # bytes of RGB up to which an image is kept in memory once it is read
SLACK: Final = 1.01  # a level counts as fine enough up to 1 % above the wanted µm per px, as pitches are measured


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
    white
        Value of full intensity; None finds it when pixels are first read.
    keep
        Bytes of pixels to keep in memory; None for 2 GB.

    Notes
    -----
    Pixels are read when they are first needed and converted to 8-bit RGB. Larger images than are kept in memory
    stay where they are and are read in tiles.
    """

    key: str
    source: Any = field(repr=False)
    scale: float
    offset: tuple[float, float]
    mpp: float
    shape: tuple[int, int]
    channels_first: bool = False
    frame: int = 0
    white: float | None = None
    keep: int | None = None
    _rgb: NDArray[np.uint8] | None = field(default=None, repr=False, init=False)
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
                self._levels[0] = Tiles(self.shape, self._region, budget=self._budget(), edge=EDGE)
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
            self._rgb = read_file(self.source, self.frame) if isinstance(self.source, Path) else self._read()
        return self._rgb

    def _read(self) -> NDArray[np.uint8]:
        """Read a whole array, in strips, so that the conversion needs no memory to speak of."""
        height, width = self.shape
        if isinstance(self.source, np.ndarray) and self.source.dtype == np.uint8:
            return self._region(0, height, 0, width)
        rows = _strip(self.source, axis=1 if self.channels_first else 0)
        rgb = np.empty((height, width, 3), dtype=np.uint8)
        for top in range(0, height, rows):
            rgb[top : top + rows] = self._region(top, min(top + rows, height), 0, width)
        return rgb

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
        return self._rgb is not None or isinstance(self.source, Path) or 3 * math.prod(self.shape) <= self._budget()

    def _budget(self) -> int:
        return _IN_MEMORY if self.keep is None else self.keep

    def _region(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        data = self.source[:, y0:y1, x0:x1] if self.channels_first else self.source[y0:y1, x0:x1]
        return self._to_rgb(data)

    def _to_rgb(self, data: Any) -> NDArray[np.uint8]:
        array = np.asarray(data)
        if self.channels_first:
            array = np.moveaxis(array, 0, -1)
        if self.white is None:
            self.white = full_scale(array if array.dtype == np.uint8 else self.source)
        return to_rgb(array, self.white)


def _strip(source: Any, axis: int) -> int:
    """Rows to read at a time: whole chunks of dask or zarr, of about the height of a tile."""
    chunks = getattr(source, "chunks", None) or (EDGE,) * len(source.shape)
    size: Any = chunks[axis]  # of zarr one number, of dask one for each chunk
    chunk = int(size if isinstance(size, int) else size[0])
    return max(1, round(EDGE / chunk)) * chunk
