"""Windows in µm and pixels, and the patches cut from them, in batches and with antialiasing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_VALUES: Final = 1 << 20  # float32 values that a sub-batch may hold at once (4 MiB)
_SMALL: Final = 1 << 18  # multiplications in a matrix product up to which OpenBLAS keeps to one thread
_TILE: Final = 2048  # px, side of the tiles by which patches of a lazy image are grouped
_SPAN: Final = 24  # px of input that a block of output pixels covers
_STEPS: Final = 8  # window sizes are rounded up to this many steps per doubling


def spot_windows_um(coords_um: NDArray[np.floating], diameter_um: float) -> NDArray[np.float64]:
    """Square windows of one spot diameter around each spot.

    Parameters
    ----------
    coords_um
        (n, 2) x and y of the spot centres in µm.
    diameter_um
        Side of the windows in µm.

    Returns
    -------
    (n, 4) x0, y0, x1, y1 in µm; rows of NaN where a coordinate is NaN.

    Raises
    ------
    ValueError
        If the coordinates are not (n, 2) or the diameter is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.patches import spot_windows_um
    >>> spot_windows_um(np.array([[100.0, 50.0]]), 55.0)
    array([[ 72.5,  22.5, 127.5,  77.5]])
    """
    coords = np.asarray(coords_um, dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] != 2:
        raise ValueError(message("Expected coordinates of shape (n, 2)", found=coords.shape))
    if not (np.isfinite(diameter_um) and diameter_um > 0):
        raise ValueError(message("Expected a spot diameter above 0 µm", found=diameter_um))
    windows = np.concatenate([coords - diameter_um / 2, coords + diameter_um / 2], axis=1)
    windows[~np.isfinite(windows).all(axis=1)] = np.nan
    return windows


def niche_windows_um(spot_windows: NDArray[np.floating], neighbours: NDArray[np.integer]) -> NDArray[np.float64]:
    """Bounding box of the spot windows of each niche, the spot itself included.

    Parameters
    ----------
    spot_windows
        (n, 4) x0, y0, x1, y1, in µm or in px of any image.
    neighbours
        (n, k) positions of the neighbours of each spot; -1 stands for none.

    Returns
    -------
    (n, 4) x0, y0, x1, y1 in the unit of `spot_windows`; rows of NaN where the spot's own window is NaN. Neighbours
    whose window is NaN are passed over.

    Raises
    ------
    ValueError
        If the two arrays are not of shapes (n, 4) and (n, k).

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.patches import niche_windows_um
    >>> spots = np.array([[0.0, 0.0, 55.0, 55.0], [100.0, 0.0, 155.0, 55.0]])
    >>> niche_windows_um(spots, np.array([[1], [-1]]))
    array([[  0.,   0., 155.,  55.],
           [100.,   0., 155.,  55.]])
    """
    spots = np.asarray(spot_windows, dtype=np.float64)
    if spots.ndim != 2 or spots.shape[1] != 4:
        raise ValueError(message("Expected windows of shape (n, 4)", found=spots.shape))
    if neighbours.ndim != 2 or len(neighbours) != len(spots):
        raise ValueError(message(f"Expected neighbours of shape ({len(spots)}, k)", found=neighbours.shape))
    niches = spots.copy()
    for column in neighbours.T:
        there = column >= 0
        other = spots[column[there]]
        niches[there, :2] = np.fmin(niches[there, :2], other[:, :2])
        niches[there, 2:] = np.fmax(niches[there, 2:], other[:, 2:])
    niches[np.isnan(spots).any(axis=1)] = np.nan
    return niches


def cut(image: Any, windows: NDArray[np.floating], size: int) -> NDArray[np.uint8]:
    """Cut windows out of an image and resample each to a square.

    Resampling is separable and antialiased: a triangle filter whose support grows with the scale when a window is
    shrunk, and plain bilinear interpolation when it is enlarged, as `PIL.Image.Image.resize` does for `BILINEAR` with a
    `box`. Parts of a window outside the image repeat the pixels at its border. A patch depends on its own window only,
    not on the others in the call.

    Parameters
    ----------
    image
        (height, width, channels) uint8; a numpy array, or anything with a shape, a dtype and numpy-style slicing, such
        as a dask, zarr or h5py array, of which one region is read at a time.
    windows
        (b, 4) x0, y0, x1, y1 in px of the image. Sides below 1 px are widened to 1 px.
    size
        Height and width of the patches in px.

    Returns
    -------
    (b, size, size, channels) uint8, in the order of the windows.

    Raises
    ------
    ValueError
        If the image is not (height, width, channels) uint8 with at least one pixel, if the windows are not (b, 4), if a
        window is not finite or is turned inside out, or if `size` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.patches import cut
    >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    >>> cut(image, np.array([[0.0, 0.0, 4.0, 4.0], [1.0, 1.0, 3.0, 3.0]]), 2)[1, :, :, 0]
    array([[ 5,  6],
           [ 9, 10]], dtype=uint8)
    """
    windows = _check(image, windows, size)
    height, width, channels = image.shape
    y_start, y_taps, y_centre, y_scale = _extent(windows[:, 1], windows[:, 3], size, height)
    x_start, x_taps, x_centre, x_scale = _extent(windows[:, 0], windows[:, 2], size, width)
    patches = np.empty((len(windows), size, size, channels), dtype=np.uint8)
    lazy = not isinstance(image, np.ndarray)
    for rows, ny, nx in _groups(y_start, x_start, y_taps, x_taps, size, channels, lazy=lazy):
        top, left = y_start[rows].min(), x_start[rows].min()
        bottom, right = y_start[rows].max() + ny, x_start[rows].max() + nx
        region = np.asarray(image[top:bottom, left:right])
        # (H - ny + 1, W - nx + 1, ny, nx, channels), a view: indexing it copies whole patches
        view = np.lib.stride_tricks.sliding_window_view(region, (ny, nx, channels))[:, :, 0]
        pixels = view[y_start[rows] - top, x_start[rows] - left]
        across = _Taps(x_centre[rows] - x_start[rows, None], x_scale[rows], nx)
        down = _Taps(y_centre[rows] - y_start[rows, None], y_scale[rows], ny)
        patches[rows] = _resample(pixels, down, across)
    return patches


def _check(image: Any, windows: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    if len(image.shape) != 3 or 0 in image.shape or image.dtype != np.uint8:
        found = f"{image.dtype} of shape {tuple(image.shape)}"
        raise ValueError(message("Expected an image of shape (height, width, channels), uint8", found=found))
    windows = np.asarray(windows, dtype=np.float64)
    if windows.ndim != 2 or windows.shape[1] != 4:
        raise ValueError(message("Expected windows of shape (b, 4)", found=windows.shape))
    if size < 1:
        raise ValueError(message("Expected patches of at least 1 px", found=size))
    bad = ~np.isfinite(windows).all(axis=1)
    if bad.any():
        hint = "Leave out spots whose window is NaN"
        raise ValueError(message("Expected finite windows", found=f"{bad.sum()} that are not", hint=hint))
    bad = (windows[:, :2] > windows[:, 2:]).any(axis=1)
    if bad.any():
        found = f"{bad.sum()} with x0 > x1 or y0 > y1"
        raise ValueError(message("Expected windows x0, y0, x1, y1", found=found))
    return windows


def _extent(
    low: NDArray[np.floating], high: NDArray[np.floating], size: int, length: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.floating], NDArray[np.floating]]:
    """First pixel and number of pixels, (b,), centres and filter scales of output pixels, (b, size), px of one axis."""
    side = np.maximum(high - low, 1.0)
    step = side / size  # input px per output px
    centre = ((low + high - side) / 2)[:, None] + (np.arange(size) + 0.5) * step[:, None]
    taps = np.ceil(side - step + 2 * np.maximum(step, 1.0)).astype(np.intp) + 1
    # Rounded up to a few sizes, so that windows of similar size share their matrix products.
    quantum = 2.0 ** np.floor(np.log2(taps)) / _STEPS
    taps = np.minimum(np.ceil(np.ceil(taps / quantum) * quantum).astype(np.intp), length)
    start = np.floor(centre[:, 0] - np.maximum(step, 1.0)).astype(np.intp)
    outside = (centre < 0) | (centre > length)  # these get the pixel at the border and nothing else
    scale = np.where(outside, 1.0, np.maximum(step, 1.0)[:, None])
    return np.clip(start, 0, length - taps), taps, np.where(outside, np.clip(centre, 0.5, length - 0.5), centre), scale


def _groups(
    y_start: NDArray[np.intp],
    x_start: NDArray[np.intp],
    y_taps: NDArray[np.intp],
    x_taps: NDArray[np.intp],
    size: int,
    channels: int,
    *,
    lazy: bool,
) -> Iterator[tuple[NDArray[np.intp], int, int]]:
    """Sub-batches of windows of one size, and of one tile where the image is lazy, with that size."""
    keys = [y_taps, x_taps]
    if lazy:
        keys += [y_start // _TILE, x_start // _TILE]
    order = np.lexsort([x_start, y_start, *keys[::-1]])
    changes = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    for rows in np.split(order, np.flatnonzero(changes) + 1):
        if not len(rows):
            continue
        ny, nx = int(y_taps[rows[0]]), int(x_taps[rows[0]])
        count = max(1, _VALUES // (max(ny, size) * max(nx, size) * channels))
        for first in range(0, len(rows), count):
            yield rows[first : first + count], ny, nx


class _Taps:
    """Weights of one axis in blocks of output pixels, each with the stretch of pixels that it needs.

    Weights are whole multiples of 2**-bits, so that a sum of products with pixels is exact in single precision and does
    not depend on the order of summation: neither the other patches of a batch nor the number of threads change a patch.
    """

    def __init__(self, centre: NDArray[np.floating], scale: NDArray[np.floating], taps: int) -> None:
        self.centre, self.scale, self.taps = centre - 0.5, scale, taps  # (b, size), px from the first pixel's middle
        self.size = centre.shape[1]

    def blocks(self, bits: int) -> Iterator[tuple[slice, slice, NDArray[np.float32]]]:
        """Output pixels, input pixels and weights (b, outputs, inputs), whose sum over inputs is 1."""
        step = max(self.taps / self.size, 1e-3)
        length = int(np.ceil(max(_SPAN, 4 * step) / step))
        for first in range(0, self.size, length):
            outputs = slice(first, min(first + length, self.size))
            centre, scale = self.centre[:, outputs], self.scale[:, outputs]
            low = max(int(np.floor((centre - scale).min())), 0)
            high = min(int(np.ceil((centre + scale).max())) + 1, self.taps)
            weights = np.arange(low, high, dtype=np.float32) - centre.astype(np.float32)[:, :, None]
            np.abs(weights, out=weights)
            weights *= (-1 / scale).astype(np.float32)[:, :, None]
            weights += 1
            np.maximum(weights, 0, out=weights)
            np.cumsum(weights, axis=-1, out=weights)  # rounded as running sums, so that the sum stays what it is
            weights *= 2**bits / weights[:, :, -1:]
            np.rint(weights, out=weights)
            weights[:, :, 1:] -= weights[:, :, :-1].copy()
            weights *= np.float32(2.0**-bits)
            yield outputs, slice(low, high), weights


def _resample(pixels: NDArray[np.uint8], down: _Taps, across: _Taps) -> NDArray[np.uint8]:
    """Resample (b, ny, nx, channels) to (b, size, size, channels)."""
    b, ny, nx, channels = pixels.shape
    lines = pixels.reshape(b, ny, nx * channels)
    short = np.empty((b, down.size, nx * channels), dtype=np.float32)
    for outputs, inputs, weights in down.blocks(15):
        _multiply(weights, lines[:, inputs].astype(np.float32), short[:, outputs])
    short *= 16
    np.rint(short, out=short)  # in 16ths of a grey level the second sum is exact as well
    turned = _turn(short.reshape(b, down.size, nx, channels)).reshape(b, nx, down.size * channels)
    square = np.empty((b, across.size, down.size * channels), dtype=np.float32)
    for outputs, inputs, weights in across.blocks(12):
        _multiply(weights, turned[:, inputs], square[:, outputs])
    square += 8
    square *= np.float32(1 / 16)
    return _turn(square.astype(np.uint8).reshape(b, across.size, down.size, channels))


def _turn(array: NDArray[Any]) -> NDArray[Any]:
    """Swap rows and columns of (b, rows, columns, channels), moving whole pixels at a time."""
    b, rows, columns, channels = array.shape
    pixels = array.view(f"V{channels * array.itemsize}")[..., 0]
    turned = np.ascontiguousarray(pixels.transpose(0, 2, 1))
    return turned.view(array.dtype).reshape(b, columns, rows, channels)


def _multiply(weights: NDArray[np.float32], values: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Batched product (b, m, k) by (b, k, n), in pieces too small for BLAS to start threads, which costs more here."""
    width = max(16, _SMALL // (weights.shape[1] * weights.shape[2]))
    for first in range(0, values.shape[2], width):
        columns = slice(first, first + width)
        np.matmul(weights, values[:, :, columns], out=out[:, :, columns])
