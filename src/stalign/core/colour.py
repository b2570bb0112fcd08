"""Colour statistics of patches: the simplest features of an image that predict anything."""

from __future__ import annotations

import numpy as np

from stalign._validate import message

BINS = 8  # of 32 grey levels each
N_FEATURES = 3 * (2 + BINS)


def colour_features(patches: np.ndarray) -> np.ndarray:
    """Summarise each patch by the mean, the spread and the histogram of each colour channel.

    Parameters
    ----------
    patches
        Patches, (n, h, w, 3) uint8.

    Returns
    -------
    (n, 30) float32: three means and three standard deviations, in units of the full range, then for red, green and blue
    the share of pixels in each of eight bins of equal width. Turning or flipping a patch changes nothing.

    Raises
    ------
    ValueError
        If the patches are not (n, h, w, 3) uint8.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.colour import colour_features
    >>> white = np.full((1, 4, 4, 3), 255, dtype=np.uint8)
    >>> colour_features(white)[0, :6].tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    patches = np.asarray(patches)
    if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != np.uint8:
        raise ValueError(message("Expected patches (n, h, w, 3) uint8", found=f"{patches.shape} {patches.dtype}"))
    n, height, width, _ = patches.shape
    pixels = patches.reshape(n, height * width, 3)
    values = pixels.astype(np.float32) / 255
    slot = np.arange(n)[:, None, None] * (3 * BINS) + np.arange(3) * BINS + pixels // (256 // BINS)
    counts = np.bincount(slot.ravel(), minlength=n * 3 * BINS).reshape(n, 3 * BINS)
    return np.concatenate(
        [values.mean(axis=1), values.std(axis=1), counts / (height * width)], axis=1, dtype=np.float32
    )
