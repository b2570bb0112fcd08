"""A large image, read in tiles of which the last ones are kept."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

EDGE = 2048  # px
_LEAST = 4  # tiles to keep, as patches lie across borders
_STRIP = 256  # rows that are made at a time


class Tiles:
    """An RGB image that is sliced like an array and read in tiles.

    Parameters
    ----------
    shape
        Height and width in px.
    read
        Reads a region, given y0, y1, x0, x1 in px, as (h, w, 3) uint8.
    budget
        Bytes of tiles to keep; four are kept in any case.
    edge
        Edge of a tile in px.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        read: Callable[[int, int, int, int], NDArray[np.uint8]],
        *,
        budget: int,
        edge: int = EDGE,
    ) -> None:
        self.shape = (*shape, 3)
        self.dtype = np.dtype(np.uint8)
        self._read = read
        self._edge = edge
        self._budget = budget
        self._keep = max(_LEAST, budget // (3 * edge**2))
        self._tiles: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def __getitem__(self, where: tuple[slice, slice]) -> NDArray[np.uint8]:
        y0, y1, _ = where[0].indices(self.shape[0])
        x0, x1, _ = where[1].indices(self.shape[1])
        region = np.empty((y1 - y0, x1 - x0, 3), dtype=np.uint8)
        edge = self._edge
        for row in range(y0 // edge, (y1 - 1) // edge + 1):
            for column in range(x0 // edge, (x1 - 1) // edge + 1):
                tile, top, left = self._tile(row, column), row * edge, column * edge
                a, b = max(y0, top), min(y1, top + tile.shape[0])
                c, d = max(x0, left), min(x1, left + tile.shape[1])
                region[a - y0 : b - y0, c - x0 : d - x0] = tile[a - top : b - top, c - left : d - left]
        return region

    def _tile(self, row: int, column: int) -> NDArray[np.uint8]:
        where = (row, column)
        tile = self._tiles.pop(where, None)
        if tile is None:
            top, left = row * self._edge, column * self._edge
            bottom, right = min(self.shape[0], top + self._edge), min(self.shape[1], left + self._edge)
            tile = self._read(top, bottom, left, right)
        self._tiles[where] = tile  # last, as the one used last
        with suppress(KeyError):  # another thread may have emptied it
            while len(self._tiles) > self._keep:
                self._tiles.popitem(last=False)
        return tile

    def halved(self) -> Tiles:
        """Get the image at half the size, as `halve` makes it; its tiles are made of these ones.

        Returns
        -------
        The image, with a quarter of the budget.
        """
        height, width = (self.shape[0] + 1) // 2, (self.shape[1] + 1) // 2
        return Tiles((height, width), self._read_halved, budget=self._budget // 4, edge=self._edge)

    def _read_halved(self, y0: int, y1: int, x0: int, x1: int) -> NDArray[np.uint8]:
        return halve(self[2 * y0 : 2 * y1, 2 * x0 : 2 * x1])


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Halve an image by the means of 2 x 2 px.

    Parameters
    ----------
    pixels
        RGB, (H, W, 3) uint8.

    Returns
    -------
    RGB, (ceil(H / 2), ceil(W / 2), 3) uint8; a last odd row or column counts twice.
    """
    half = np.empty(((pixels.shape[0] + 1) // 2, (pixels.shape[1] + 1) // 2, 3), dtype=np.uint8)
    for top in range(0, len(half), _STRIP):
        half[top : top + _STRIP] = _halve(pixels[2 * top : 2 * (top + _STRIP)])
    return half


def _halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    even = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    total = even[::2, ::2].astype(np.uint16)
    total += even[1::2, ::2]
    total += even[::2, 1::2]
    total += even[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
