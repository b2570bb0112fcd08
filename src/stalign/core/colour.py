"""Colour statistics of patches: the simplest features of an image that predict anything."""

from __future__ import annotations

import numpy as np

from stalign._validate import message

BINS = 8
N_FEATURES = 3 * (2 + BINS)


def colour_features(patches: np.ndarray, *, bins: int = BINS, skewness: bool = False) -> np.ndarray:
    """Summarise each patch by the mean, the spread and the histogram of each colour channel.

    Parameters
    ----------
    patches
        Patches, (n, h, w, 3) uint8.
    bins
        Bins of the histogram, of equal width.
    skewness
        Whether to add the skewness of each channel.

    Returns
    -------
    (n, 3 * (2 + bins)) float32: three means and three standard deviations, in units of the full range, three skewnesses
    if asked for, then for red, green and blue the share of pixels in each bin. Turning or flipping a patch changes
    nothing.

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
    mean, spread = values.mean(axis=1), values.std(axis=1)
    parts = [mean, spread]
    if skewness:
        parts.append(((values - mean[:, None]) ** 3).mean(axis=1) / np.maximum(spread, 1e-3) ** 3)
    bin_of = np.minimum(np.arange(256) * bins // 255, bins - 1)[pixels]
    slot = np.arange(n)[:, None, None] * (3 * bins) + np.arange(3) * bins + bin_of
    counts = np.bincount(slot.ravel(), minlength=n * 3 * bins).reshape(n, 3 * bins)
    return np.concatenate([*parts, counts / (height * width)], axis=1, dtype=np.float32)
