"""The image of a section: pixels in memory or on disk, cut into patches by window."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message
from stalign.core.patches import cut
from stalign.data.image_files import level_sizes, open_level
from stalign.data.pixels import full_scale, to_rgb
from stalign.data.tiles import EDGE, Tiles, halve

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IN_MEMORY = 1024**3  # bytes of RGB up to which an image is kept in memory once it is read
_IN_TILES = 512 * 1024**2  # bytes of tiles that are kept of a larger one
Turn = tuple[tuple[int, int], tuple[int, int]]
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
        Level of the file, as an index into `data.image_files.level_sizes`.
    white
        Value of full intensity; None finds it when pixels are first read.
    keep
        Bytes of RGB up to which the image is kept in memory as a whole, and of tiles to keep of a larger one; None for
        1 GB and 0.5 GB.
    turn
        Directions of the image's axes: a 2 x 2 matrix of a rotation by a multiple of 90 degrees or of a flip, with
        image px = `scale` * `turn` @ coordinates + `offset`.
    rgb
        Which channels of `source` are red, green and blue; None for the first three.

    Raises
    ------
    ValueError
        If `turn` is no such matrix.

    Notes
    -----
    Pixels are read when they are first needed and converted to 8-bit RGB. Larger images than are kept in memory
    stay where they are and are read in tiles. Windows and patches lie along the axes of the image, whatever its turn.
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
    turn: Turn = ((1, 0), (0, 1))
    rgb: tuple[int, int, int] | None = None
    _rgb: NDArray[np.uint8] | None = field(default=None, repr=False, init=False)
    _levels: dict[int, NDArray[np.uint8] | Tiles] = field(default_factory=dict, repr=False, init=False)
    _opened: Any = field(default=None, repr=False, init=False)

    def __post_init__(self) -> None:
        turn = np.asarray(self.turn, dtype=np.float64)
        if turn.shape != (2, 2) or not np.array_equal(np.sort(np.abs(turn)), [[0, 1], [0, 1]]) or not turn.any(0).all():
            raise ValueError(message("Expected a turn by a multiple of 90 degrees or a flip", found=turn.tolist()))
        (a, b), (c, d) = turn.astype(int).tolist()
        self.turn = ((a, b), (c, d))

    def __getstate__(self) -> dict[str, Any]:
        """What is sent to another process: without tiles and open files."""
        return {**self.__dict__, "_levels": {}, "_opened": None}

    @property
    def lazy(self) -> bool:
        """Whether the image is read in tiles, not kept in memory as a whole."""
        source = self.source
        if isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.shape[2:] == (3,):
            return False
        limit = _IN_MEMORY if self.keep is None else self.keep
        return self._rgb is None and 3 * math.prod(self.shape) > limit

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
        turned = np.asarray(coords, dtype=np.float64) @ np.asarray(self.turn, dtype=np.float64).T
        return np.asarray(turned * self.scale + np.asarray(self.offset))

    def to_coords(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert px of this image to coordinates.

        Parameters
        ----------
        pixels
            Positions (n, 2), x and y in image px.

        Returns
        -------
        Positions (n, 2), x and y in coordinate px.
        """
        turned = (np.asarray(pixels, dtype=np.float64) - np.asarray(self.offset)) / self.scale
        return np.asarray(turned @ np.asarray(self.turn, dtype=np.float64))

    def to_windows(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert boxes in coordinates to windows in px of this image, which lie along the image's axes.

        Parameters
        ----------
        boxes
            Boxes (n, 4), x0 y0 x1 y1 in coordinate px; may be NaN.

        Returns
        -------
        Windows (n, 4), x0 y0 x1 y1 in image px; rows of NaN where a box is NaN.
        """
        corners = self.to_pixels(np.asarray(boxes, dtype=np.float64).reshape(-1, 2)).reshape(-1, 2, 2)
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def along_coords(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn pixels of this image to the axes of the coordinates.

        Parameters
        ----------
        pixels
            A patch, thumbnail or the whole image, (h, w, 3) uint8.

        Returns
        -------
        A view, (h, w, 3) or (w, h, 3) uint8: the columns along x and the rows along y of the coordinates.
        """
        turn = np.asarray(self.turn)
        along = pixels if turn[0, 0] else pixels.swapaxes(0, 1)
        return along[:: turn[:, 1].sum(), :: turn[:, 0].sum()]

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
        if not self.lazy:
            return np.arange(len(windows))
        return np.lexsort([*(windows[:, :2] // EDGE).T])

    def _halved(self, times: int) -> NDArray[np.uint8] | Tiles:
        """Get the image halved by 2 x 2 means; a large window is cut from such a level with no loss that shows."""
        if times == 0 and not self.lazy:
            return self.pixels()
        if times not in self._levels:
            if times == 0:
                budget = _IN_TILES if self.keep is None else self.keep
                self._levels[0] = Tiles(self.shape, self._region, budget=budget, edge=EDGE)
            else:
                larger = self._halved(times - 1)
                self._levels[times] = larger.halved() if isinstance(larger, Tiles) else halve(larger)
        return self._levels[times]

    def pixels(self) -> NDArray[np.uint8]:
        """Get the whole image.

        Returns
        -------
        RGB, (H, W, 3) uint8. It is kept for the next call: treat it as read-only. Larger images than are kept in
        memory are written to a temporary file that is mapped into memory.
        """
        if self._rgb is None:
            self._rgb = self._read()
            self._opened = None
        return self._rgb

    def in_memory(self) -> SectionImage:
        """Get the same image with its pixels, as `pixels` gives them, in place of what they are read from.

        Returns
        -------
        The image, whose source is RGB, (H, W, 3) uint8.
        """
        return replace(self, source=self.pixels(), channels_first=False, frame=0, white=None, rgb=None)

    def _read(self) -> NDArray[np.uint8]:
        """Read a whole array, in strips, so that the conversion needs no memory to speak of."""
        height, width = self.shape
        source = self._array()
        if isinstance(source, np.ndarray) and source.dtype == np.uint8:
            return self._region(0, height, 0, width)
        rows = _strip(source, axis=1 if self.channels_first else 0)
        shape = (height, width, 3)
        rgb: NDArray[np.uint8]
        if self.lazy:
            rgb = np.memmap(tempfile.TemporaryFile(), dtype=np.uint8, mode="w+", shape=shape)
        else:
            rgb = np.empty(shape, dtype=np.uint8)
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
        if not self.lazy:
            small = self.pixels()[::step, ::step]
        elif (coarse := self._coarser(2 * max_side)) is not None:
            small = coarse.thumbnail(2 * max_side)[0]
        else:
            height, width = self.shape
            rows = -(-EDGE // step) * step
            strips = [self._region(top, min(top + rows, height), 0, width, step=step) for top in range(0, height, rows)]
            small = np.concatenate(strips)
        factor = min(1.0, max_side / max(self.shape))
        size = (max(1, round(self.shape[1] * factor)), max(1, round(self.shape[0] * factor)))
        resized = Image.fromarray(np.ascontiguousarray(small)).resize(size, Image.Resampling.BILINEAR)
        return np.asarray(resized), factor

    def _coarser(self, side: int) -> SectionImage | None:
        """The smallest level of the file that is no smaller than wanted, if that is another than this one."""
        if not isinstance(self.source, Path):
            return None
        sizes = level_sizes(self.source)
        frame = max((i for i, size in enumerate(sizes) if max(size) >= side), default=0)
        return replace(self, frame=frame, shape=sizes[frame]) if frame > self.frame else None

    def _array(self) -> Any:
        """The pixels to slice."""
        if not isinstance(self.source, Path):
            return self.source
        if self._opened is None:
            self._opened = open_level(self.source, self.frame)
        return self._opened

    def _region(self, y0: int, y1: int, x0: int, x1: int, *, step: int = 1) -> NDArray[np.uint8]:
        source, where = self._array(), (slice(y0, y1, step), slice(x0, x1, step))
        array = np.asarray(source[(slice(None), *where)] if self.channels_first else source[where])
        if self.channels_first:
            array = np.moveaxis(array, 0, -1)
        if self.white is None:
            self.white = full_scale(array if array.dtype == np.uint8 else source)
        return to_rgb(array, self.white, self.rgb)


def _strip(source: Any, axis: int) -> int:
    """Rows to read at a time: whole chunks of dask or zarr, of about the height of a tile."""
    chunks = getattr(source, "chunks", None) or (EDGE,) * len(source.shape)
    size: Any = chunks[axis]  # of zarr one number, of dask one for each chunk
    chunk = int(size if isinstance(size, int) else size[0])
    return max(1, round(EDGE / chunk)) * chunk
