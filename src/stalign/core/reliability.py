"""How far the prediction of each gene can be relied on, told from parts of the reference that were left out."""

from __future__ import annotations

import numpy as np

from stalign.core.scores import per_gene

MIN_PEARSON = 0.15  # of 1000 genes of her2st C2 to C5, each section held out in turn: 1 % that pass have r < 0 there


def levels(targets: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""Estimate the level of each gene and how far it differs between units.

    Units are drawn from more: the mean over them has the weights :math:`1 / (\tau^2 + v / n_u)` of a random-effects
    model, where :math:`v` is the variance within units and :math:`\tau^2` that of their means beyond it (by the method
    of moments). Where units agree that is the mean over spots, where they do not each counts alike.

    Parameters
    ----------
    targets
        Expression, (n, g).
    units
        The section or patient of each spot, (n,).

    Returns
    -------
    Levels, (g,), and :math:`\tau`, (g,); NaN where there is one unit.
    """
    names, codes, n = np.unique(units, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return targets.mean(axis=0), np.full(targets.shape[1], np.nan)
    means = np.stack([targets[codes == code].mean(axis=0) for code in range(len(names))])  # (units, g)
    within = np.maximum(((targets - means[codes]) ** 2).sum(axis=0) / max(len(targets) - len(names), 1), 1e-12)
    weights = n[:, None] / within
    total = weights.sum(axis=0)
    middle = (weights * means).sum(axis=0) / total
    excess = (weights * (means - middle) ** 2).sum(axis=0) - (len(names) - 1)
    between = np.maximum(excess / (total - (weights**2).sum(axis=0) / total), 0.0)
    weights = 1 / (between + within / n[:, None])
    return (weights * means).sum(axis=0) / weights.sum(axis=0), np.sqrt(between)


def reliability(
    truth: np.ndarray, pattern: np.ndarray, groups: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate each gene with what the other folds predict of it, section by section.

    Parameters
    ----------
    truth
        Expression, (n, g).
    pattern
        Predictions of each spot by models that saw nothing of its fold, (n, g); NaN where there are none.
    groups
        The section of each spot, (n,).
    folds
        The fold of each spot, (n,): patients, sections or regions.

    Returns
    -------
    The mean of Pearson over folds, and its standard error, both (g,). A section in which the gene or its prediction
    does not vary counts as 0; NaN where there is no fold to tell it from.
    """
    found = []
    for fold in np.unique(folds):
        parts = [(folds == fold) & (groups == group) for group in np.unique(groups[folds == fold])]
        scores = [
            np.nan_to_num(per_gene(truth[rows], pattern[rows].astype(np.float64))["pearson"])
            for rows in parts
            if rows.sum() >= 3 and np.isfinite(pattern[rows]).all()
        ]
        found += [np.mean(scores, axis=0)] if scores else []
    if not found:
        empty = np.full(truth.shape[1], np.nan)
        return empty, empty
    values = np.stack(found)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(values.shape[1], np.nan)
    return values.mean(axis=0), spread / np.sqrt(len(values))


def is_reliable(mean: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Mark genes whose held-out correlation, less its standard error, is at least 0.15; NaN is not reliable.

    Parameters
    ----------
    mean, error
        What `reliability` returned, (g,).

    Returns
    -------
    (g,) bool.
    """
    return np.asarray(np.nan_to_num(mean - error, nan=-1.0) >= MIN_PEARSON)


def residual_range(truth: np.ndarray, held_out: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the range of what held-out predictions were off by: split conformal intervals, gene by gene.

    Parameters
    ----------
    truth
        Expression, (n, g).
    held_out
        Predictions of each spot by models that saw nothing of its fold, (n, g); NaN where there are none.
    coverage
        Share of the spots that the range holds, from 0 to 1.

    Returns
    -------
    Lower and upper end of truth less prediction, (g,) each; NaN where there are too few spots for that coverage.
    """
    seen = np.isfinite(held_out).all(axis=1)
    n, tail = int(seen.sum()), (1 - coverage) / 2
    rank = int(np.floor(tail * (n + 1)))  # that many from either end, so that a new spot lies outside with `tail` each
    if rank < 1:
        empty = np.full(truth.shape[1], np.nan)
        return empty, empty
    off = np.sort(truth[seen] - held_out[seen], axis=0)
    return off[rank - 1], off[n - rank]
