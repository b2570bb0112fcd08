"""What sections hold, as hashes: to see that a resumed run goes on with the same, and that no image comes twice."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from stalign.data.spots import SpotReader

_WHOLE = 256 * 1024**2  # bytes of RGB up to which an image is hashed as a whole, a larger one as what is cut from it
_ROWS = 512  # spots whose patches are cut at one time


def content_of(reader: SpotReader) -> dict[str, str]:
    """Hash what a section gives a network.

    Parameters
    ----------
    reader
        The section.

    Returns
    -------
    A hash each of its `positions`, `counts`, `image` and `features`, of those that there are.
    """
    found = {"positions": _hash([reader.coords])}
    if reader.expression is not None:
        counts = reader.expression.counts
        found["counts"] = _hash([reader.expression.totals, counts.data, counts.indices, counts.indptr])
    if reader.windows is not None:
        found["image"] = _hash(_pixels(reader))
    if reader.features:
        arrays = (part for name in sorted(reader.features) for part in (_text(name), reader.features[name]))
        found["features"] = _hash(arrays)
    return found


def _pixels(reader: SpotReader) -> Iterator[NDArray[Any]]:
    """The pixels of a section's image, or of a large one the patches of all spots and niches."""
    image = reader.image
    if image is None or reader.windows is None:
        return
    yield np.array(image.shape[:2])
    if 3 * image.shape[0] * image.shape[1] <= _WHOLE:
        yield image.pixels()
        return
    rows = reader.order()
    for level, size in enumerate((reader.spec.spot_px, reader.spec.niche_px)):
        for start in range(0, len(rows), _ROWS):
            yield reader.patches(rows[start : start + _ROWS], level=level, size=size)


def _text(name: str) -> NDArray[Any]:
    return np.frombuffer(name.encode(), np.uint8)


def _hash(arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return digest.hexdigest()[:32]
