"""Which spots to label next: representative ones first, then those that are uncertain, spread over features."""

from __future__ import annotations

import numpy as np

from stalign._validate import message

_CANDIDATES = 5  # times n: the most uncertain spots, of which n that differ are taken
_SAMPLE = 50_000  # spots that are clustered at most


def representatives(features: np.ndarray, n: int, *, seed: int = 0) -> np.ndarray:
    """Find spots that stand for many others: the nearest to each centre of a k-means, large clusters first.

    Parameters
    ----------
    features
        Features, (m, f), finite.
    n
        How many.
    seed
        Seed.

    Returns
    -------
    Positions, (min(n, m),) intp, none twice.
    """
    from sklearn.cluster import KMeans

    m = len(features)
    n = min(n, len(np.unique(features, axis=0))) if m <= _SAMPLE else min(n, m)
    some = np.arange(m) if m <= _SAMPLE else np.sort(np.random.default_rng(seed).choice(m, _SAMPLE, replace=False))
    if n == 0:
        return np.empty(0, dtype=np.intp)
    fitted = KMeans(n, n_init=3, random_state=seed).fit(features[some])
    sizes = np.bincount(fitted.labels_, minlength=n)
    found = []
    for center in np.argsort(-sizes, kind="stable"):
        members = some[fitted.labels_ == center]
        if not len(members):
            continue
        distance = np.square(features[members] - fitted.cluster_centers_[center]).sum(axis=1)
        found.append(int(members[distance.argmin()]))
    return np.array(found, dtype=np.intp)


def informative(
    features: np.ndarray, probability: np.ndarray, coords: np.ndarray, n: int, *, seed: int = 0
) -> np.ndarray:
    """Find spots whose label would tell most: uncertain, and unlike each other in features and in place.

    Of the spots with the smallest margin between the two likeliest labels, those nearest to the centres of a k-means
    over features and positions are taken, each weighed by its uncertainty.

    Parameters
    ----------
    features
        Features, (m, f), finite.
    probability
        Class probabilities, (m, k).
    coords
        Positions, (m, 2), on the scale of a section's extent; NaN where unknown.
    n
        How many.
    seed
        Seed.

    Returns
    -------
    Positions, (min(n, m),) intp, the least certain first.

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    from sklearn.cluster import KMeans

    if probability.shape[1] < 2:
        raise ValueError(message("Expected probabilities of at least two classes", found=probability.shape[1]))
    m = len(features)
    n = min(n, m)
    if n == 0:
        return np.empty(0, dtype=np.intp)
    top = np.sort(probability, axis=1)[:, -2:]
    doubt = 1 - (top[:, 1] - top[:, 0])
    pool = np.argsort(-doubt, kind="stable")[: min(m, max(_CANDIDATES * n, n))]
    place = np.where(np.isfinite(coords), coords, 0.0)
    joint = np.concatenate([_unit(features), _unit(place)], axis=1)[pool]
    labels = KMeans(n, n_init=3, random_state=seed).fit(joint, sample_weight=doubt[pool] + 1e-3).labels_
    taken = [pool[labels == group][0] for group in np.unique(labels)]  # the least certain of each
    spare = [spot for spot in pool if spot not in set(taken)]
    taken += spare[: n - len(taken)]
    return np.array(sorted(taken, key=lambda spot: -doubt[spot]), dtype=np.intp)


def _unit(values: np.ndarray) -> np.ndarray:
    """Scale to a total variance of 1."""
    total = float(np.sqrt(values.var(axis=0).sum()))
    return values / total if total > 0 else values
