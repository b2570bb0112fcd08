"""Clusters of a section, for negatives that come from other clusters (the authors' code)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message
from stalign.core.gaussian import GaussianMean

if TYPE_CHECKING:
    from stalign.train.store import StoredSection

_CLUSTERS = 8
_LEAST = 6  # clusters a section has to have, so that there are five others (authors' code)


def with_clusters(stored: StoredSection, *, seed: int = 0) -> StoredSection:
    """Cluster the niches of a section by their expression.

    Parameters
    ----------
    stored
        The section.
    seed
        Seed of k-means.

    Returns
    -------
    The section with clusters.

    Raises
    ------
    ValueError
        If the section has no counts, or too few spots.

    Notes
    -----
    The authors read clusters from files whose making they do not describe; k-means on niche expression is our choice.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD

    expression = stored.reader.expression
    if expression is None or len(stored.rows) < 4 * _CLUSTERS:
        found = "no counts" if expression is None else f"{len(stored.rows)} spots"
        expected = (
            f"Expected counts and at least {4 * _CLUSTERS} spots in section {stored.name!r} for cluster negatives"
        )
        raise ValueError(message(expected, found=found, hint='Use `loss.negatives = "in_batch"`'))
    values, few = expression.values, not isinstance(expression.graph, GaussianMean)
    niches = (expression.graph @ values)[stored.rows] if few else values  # means of hundreds of spots are not sparse
    scores = TruncatedSVD(min(20, min(niches.shape) - 1), random_state=seed).fit_transform(niches)
    if not few:
        scores = (expression.graph @ scores)[stored.rows]
    labels = KMeans(_CLUSTERS, n_init=4, random_state=seed).fit_predict(scores)
    if len(np.unique(labels)) < _LEAST:
        raise ValueError(
            message(f"Expected {_LEAST} clusters in section {stored.name!r}", found=len(np.unique(labels)))
        )
    clusters = np.full(len(stored.reader), -1, np.intp)
    clusters[stored.rows] = labels
    return replace(stored, clusters=clusters)
