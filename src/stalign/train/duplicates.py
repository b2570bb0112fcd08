"""Sections of one tissue under two names, found by what they hold."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.spatial import cKDTree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data.spots import SpotReader
    from stalign.train.store import StoredSection

_GENES = 10  # below, two spots may have the same counts by chance
_SHARED = 0.5  # share of a section's spots that tells of one tissue


def alike(sections: Sequence[StoredSection], content: Sequence[Mapping[str, str]]) -> list[tuple[int, int, str]]:
    """Find pairs of sections that hold the same tissue, however its spots are named, ordered and placed.

    Parameters
    ----------
    sections
        The sections.
    content
        Hashes of what each holds, as of `content_of`.

    Returns
    -------
    Positions of both and what they share: `counts` where half of the spots of the smaller one are in the other, `image`
    where half of the spots lie among those of the other, `features` where they have nothing else.
    """
    found = dict.fromkeys(_same_spots([s.reader for s in sections]), "counts")
    for (i, a), (j, b) in combinations(enumerate(sections), 2):
        one, other = content[i], content[j]
        if one.get("image", "") == other.get("image") and _cover(a.reader.coords, b.reader.coords):
            found.setdefault((i, j), "image")
        bare = not {"counts", "image"} & {*one, *other}
        if bare and one.get("features") == other.get("features"):
            found.setdefault((i, j), "features")
    return [(i, j, what) for (i, j), what in sorted(found.items())]


def _same_spots(readers: Sequence[SpotReader]) -> list[tuple[int, int]]:
    marks = [_marks(reader) for reader in readers]
    sizes = np.array([len(m) for m in marks])
    rows = np.repeat(np.arange(len(marks)), sizes)
    numbers, columns = np.unique(np.concatenate(marks), return_inverse=True)
    known = sp.csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=(len(marks), len(numbers)))
    shared = sp.triu(known @ known.T, k=1).tocoo()
    enough = shared.data >= _SHARED * np.minimum(sizes[shared.row], sizes[shared.col])
    return [(int(i), int(j)) for i, j in zip(shared.row[enough], shared.col[enough], strict=True)]


def _marks(reader: SpotReader) -> NDArray[np.complex128]:
    """Make a number of the counts of each spot that has some, without duplicates, (m,)."""
    if reader.expression is None:
        return np.zeros(0, complex)
    counts = reader.expression.counts.copy()
    counts.sort_indices()  # sums of one order are rounded alike
    weights = np.random.default_rng(0).random(counts.shape[1])
    telling = np.diff(counts.indptr) >= _GENES
    sums = np.asarray(counts.sum(axis=1))[:, 0] + 1j * (counts @ weights)
    return np.asarray(np.unique(sums[telling]))


def _cover(a: NDArray[np.floating], b: NDArray[np.floating]) -> bool:
    """Say whether half of the spots of the smaller of two sections, (n, 2) each, lie among those of the other."""
    few, many = sorted((a, b), key=len)
    tree = cKDTree(many)
    pitch = np.median(tree.query(many, k=2)[0][:, 1])
    return bool(np.mean(tree.query(few)[0] < pitch) >= _SHARED)
