"""Windows in µm and pixels, and the patches cut from them, with antialiasing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    Each is resampled by Pillow: antialiased with a triangle filter when a window is shrunk, bilinear when it is
    enlarged. Where a window reaches outside the image, the pixels at the border are repeated. A patch depends on its
    own window only, not on the others in the call.

    Parameters
    ----------
    image
        (height, width, channels) uint8 of 1 or 3 channels; a numpy array, or anything with a shape, a dtype and
        numpy-style slicing, such as a dask, zarr or h5py array, of which the region of one window is read at a time.
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
        If the image is not (height, width, 1 or 3) uint8 with at least one pixel, if the windows are not (b, 4), if a
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
    from PIL import Image

    windows = _check(image, windows, size)
    height, width, channels = image.shape
    middle, half = (windows[:, :2] + windows[:, 2:]) / 2, np.maximum(windows[:, 2:] - windows[:, :2], 1.0) / 2
    reach = half + np.maximum(2 * half / size, 1.0) + 1  # what the filter looks at
    low, high = np.floor(middle - reach).astype(np.intp), np.ceil(middle + reach).astype(np.intp)
    beyond = np.concatenate([middle - half < 0, middle + half > [width, height]], axis=1)
    outside = np.asarray(beyond.any(axis=1), dtype=np.bool_)
    low[~outside] = np.maximum(low[~outside], 0)
    high[~outside] = np.minimum(high[~outside], [width, height])
    boxes = np.concatenate([middle - half - low, middle + half - low], axis=1).tolist()
    patches = np.empty((len(windows), size, size, channels), dtype=np.uint8)
    for patch, (left, top), (right, bottom), box, out in zip(patches, low, high, boxes, outside, strict=True):
        region = _padded(image, top, bottom, left, right) if out else np.asarray(image[top:bottom, left:right])
        picture = Image.fromarray(region[:, :, 0] if channels == 1 else region)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=tuple(box))
        patch[:] = np.asarray(picture).reshape(size, size, channels)
    return patches


def _padded(image: Any, top: int, bottom: int, left: int, right: int) -> NDArray[np.uint8]:
    """A region of an image whose border is repeated beyond it."""
    rows = np.arange(top, bottom).clip(0, image.shape[0] - 1)
    columns = np.arange(left, right).clip(0, image.shape[1] - 1)
    region = np.asarray(image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    return np.asarray(region[rows - rows[0]][:, columns - columns[0]])


def _check(image: Any, windows: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    if len(image.shape) != 3 or 0 in image.shape or image.shape[2] not in {1, 3} or image.dtype != np.uint8:
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
