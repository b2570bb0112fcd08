"""Features of several sections on a common scale, and regions of a section that can be held out."""

from __future__ import annotations

import numpy as np

from stalign._validate import one_of

STANDARDS = ("section", "rank", "reference", "none")
LIMIT = 4.0  # standard deviations at which a standardised feature is cut off
N_FOLDS = 5


def standardise(
    features: np.ndarray, groups: np.ndarray, *, how: str = "section", reference: np.ndarray | None = None
) -> np.ndarray:
    """Bring features to a common scale.

    Parameters
    ----------
    features
        Features, (n, f), finite.
    groups
        The section of each row, (n,).
    how
        `section`: less the mean and over the standard deviation of the row's own section, cut off at 4;
        `rank`: normal scores of the ranks within the section; `reference`: less the mean and over the standard
        deviation of all rows of `reference`, sections taken together; `none`: as they are.
    reference
        Rows that give mean and standard deviation for `how="reference"`, (m, f); None for `features` themselves.

    Returns
    -------
    (n, f) float64. A feature that does not vary is 0.

    Raises
    ------
    ValueError
        If `how` is unknown.
    """
    one_of(how, STANDARDS, name="standardise")
    features = np.asarray(features, dtype=np.float64)
    if how == "none":
        return features
    if how == "reference":
        source = features if reference is None else np.asarray(reference, dtype=np.float64)
        return _scaled(features, source.mean(axis=0), source.std(axis=0))
    out = np.empty_like(features)
    for group in np.unique(groups):
        rows = groups == group
        part = features[rows]
        out[rows] = _scores(part) if how == "rank" else _scaled(part, part.mean(axis=0), part.std(axis=0), LIMIT)
    return out


def _scaled(values: np.ndarray, mean: np.ndarray, spread: np.ndarray, limit: float = np.inf) -> np.ndarray:
    varies = spread > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    scaled = np.where(varies, (values - mean) / np.where(varies, spread, 1.0), 0.0)
    return np.clip(scaled, -limit, limit)


def _scores(values: np.ndarray) -> np.ndarray:
    from scipy.stats import norm, rankdata

    return np.asarray(norm.ppf((rankdata(values, axis=0) - 0.5) / len(values)))


def spatial_blocks(coords: np.ndarray, n_blocks: int = N_FOLDS, *, random_state: int = 0) -> np.ndarray:
    """Split spots into compact regions, so that held-out spots are not the neighbours of those that were fitted.

    Parameters
    ----------
    coords
        Centres, (n, 2), in any unit of length; rows with NaN form no region of their own but join the first.
    n_blocks
        How many regions, fewer where there are fewer spots.
    random_state
        Seed.

    Returns
    -------
    The region of each spot, (n,) intp.
    """
    from sklearn.cluster import KMeans

    coords = np.asarray(coords, dtype=np.float64)
    placed = np.isfinite(coords).all(axis=1)
    blocks = np.zeros(len(coords), dtype=np.intp)
    k = min(n_blocks, len(np.unique(coords[placed], axis=0)))
    if k > 1:
        blocks[placed] = KMeans(k, n_init=4, random_state=random_state).fit_predict(coords[placed])
    return blocks
