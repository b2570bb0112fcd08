"""Folds of labelled spots, so that a held-out spot is no neighbour of those that were fitted."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse.csgraph import connected_components

from stalign.core.standardise import spatial_blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stalign.core.annotation_features import SectionData

N_FOLDS = 5
_PIECES = 10  # a patch of labelled spots with more than this share of them is cut into blocks


def label_groups(sections: Sequence[SectionData], *, by_section: bool, seed: int = 0) -> np.ndarray:
    """Group labelled spots that belong together: (n,) intp over the spots of all sections, -1 where there is no label.

    With `by_section` a group is a section. Otherwise it is a patch of neighbouring labelled spots; large ones are cut
    into compact blocks, and spots that were labelled here and there are groups of one.
    """
    groups, first = [], 0
    total = sum(int(((part.labels >= 0) & part.usable).sum()) for part in sections)
    for section in sections:
        found = np.full(len(section.labels), -1, dtype=np.intp)
        rows = np.flatnonzero((section.labels >= 0) & section.usable)
        rows = rows[np.lexsort(section.coords[rows].T)]  # so that the order of the spots does not matter
        if by_section or not len(rows):
            found[rows] = 0
        else:
            patches = connected_components(section.ring[rows][:, rows], directed=False)[1]
            limit = max(total / _PIECES, 1)
            sizes = np.bincount(patches)
            found[rows] = patches
            number = len(sizes)
            for patch in np.flatnonzero(sizes > limit):
                own = rows[patches == patch]
                blocks = spatial_blocks(section.coords[own], int(np.ceil(len(own) / limit)), random_state=seed)
                found[own] = np.where(blocks == 0, patch, number + blocks)
                number += int(blocks.max()) + 1
        found[rows] += first
        first = int(found.max()) + 1 if len(rows) else first
        groups.append(found)
    return np.concatenate(groups)


def split_groups(labels: np.ndarray, groups: np.ndarray, *, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Split labelled spots into folds of whole groups, labels spread evenly: positions fitted and held out.

    A fold with fewer than two labels to fit is left out.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    n = min(N_FOLDS, len(np.unique(groups)), int(np.unique(labels, return_counts=True)[1].max(initial=0)))
    if n < 2:
        return []
    splitter = StratifiedGroupKFold(n, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of labels with fewer spots than folds
        found = list(splitter.split(labels, labels, groups))
    return [(fit, held) for fit, held in found if len(np.unique(labels[fit])) > 1 and len(held)]
