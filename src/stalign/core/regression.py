r"""Regression of expression on features, from sections to sections.

A section differs from another in stain, scale and depth, so features are standardised section by section, and a
prediction is the level of the reference plus what the features explain within a section:
:math:`\hat y = l_g + s_g (x^T W)_g`. The penalty of :math:`W` and the factor :math:`0 \le s_g \le 1` of each gene
are chosen on sections that were left out, so that a gene which cannot be predicted is predicted by its level. What was
predicted of those that were left out is kept: it tells how far each gene can be relied on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve

from stalign._threads import side_by_side
from stalign._validate import message
from stalign.core.folds import agreement, shrinkage, splits
from stalign.core.reliability import levels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from stalign.core.folds import Parts

    Predictor = Callable[[NDArray[np.float64]], NDArray[np.float64]]
    Fitter = Callable[[NDArray[np.float64], NDArray[np.float64]], Predictor]

ALPHAS = tuple(float(alpha) for alpha in 10.0 ** np.arange(-3.0, 3.1, 0.5))  # times the number of spots


@dataclass(frozen=True)
class Regression:
    """A regression of expression on standardised features.

    Parameters
    ----------
    mean
        Mean of each gene over the spots it was fitted to, (g,).
    level
        What predictions are centred on, (g,): the mean over units of the reference, see `levels`.
    spread
        Standard deviation of the level between units, (g,); NaN where there is one.
    low, high
        Smallest and largest value of each gene there, (g,); predictions stay between them.
    shrink
        Factor of each gene, from 0 to 1, (g,).
    predictor
        Maps standardised features (n, f) to deviations from the level, (n, g).
    held_out
        Predictions of each spot by a model that saw nothing of its fold, (n, g) as `predict` gives them; NaN where
        there are no two folds.
    pattern
        The same before shrinkage, less the level, (n, g): what correlations are taken of.
    alpha
        Penalties of the ridge regressions, times the number of spots, (k,); empty for other models.
    """

    mean: np.ndarray
    level: np.ndarray
    spread: np.ndarray
    low: np.ndarray
    high: np.ndarray
    shrink: np.ndarray
    predictor: Predictor
    held_out: np.ndarray
    pattern: np.ndarray
    alpha: tuple[float, ...] = ()

    def predict(self, features: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        """Predict expression.

        Parameters
        ----------
        features
            Standardised features, (n, f).
        groups
            The section of each row, (n,), whose predictions get the reference's level; None leaves them as they are.

        Returns
        -------
        (n, g) float64.
        """
        deviation = np.asarray(self.predictor(np.asarray(features, dtype=np.float64)), dtype=np.float64)
        if groups is not None:
            deviation = centred(deviation, groups)
        return np.clip(self.level + self.shrink * deviation, self.low, self.high)


def centred(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Take the mean of its group from each row.

    Parameters
    ----------
    values
        Values, (n, g).
    groups
        The group of each row, (n,).

    Returns
    -------
    (n, g) float64.
    """
    values = np.asarray(values, dtype=np.float64).copy()
    for group in np.unique(groups):
        rows = groups == group
        values[rows] -= values[rows].mean(axis=0)
    return values


def fit_ridge(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    folds: np.ndarray,
    *,
    alphas: tuple[float, ...] = ALPHAS,
) -> Regression:
    """Fit a ridge regression whose penalty and shrinkage are chosen on held-out folds.

    One penalty serves all genes: the one with the largest mean share of a gene's variance explained on held-out spots,
    after shrinkage.

    Parameters
    ----------
    features
        Standardised features, (n, f).
    targets
        Expression, (n, g).
    groups
        The section of each spot, (n,); differences between sections are not fitted.
    folds
        The fold of each spot, (n,): whole sections or patients, or regions of one section.
    alphas
        Penalties to choose from, times the number of spots.

    Returns
    -------
    The regression.

    Raises
    ------
    ValueError
        If there are fewer than two spots or the lengths differ.
    """
    features, targets = _check(features, targets, groups, folds)
    deviations = centred(targets, groups)
    parts = list(splits(groups, folds))
    ridges = side_by_side(lambda part: _ridge(features[part[0]], deviations[part[0]]), parts, len(features))

    def pattern_of(alpha: float) -> np.ndarray:
        found = np.zeros(targets.shape, dtype=np.float32)
        for (_, test, whole), ridge in zip(parts, ridges, strict=True):
            predicted = features[test] @ ridge(alpha)
            found[test] = centred(predicted, groups[test]) if whole else predicted
        return found

    variance = np.maximum((deviations**2).sum(axis=0), 1e-12)
    gains = []
    for alpha in alphas:
        hits, sizes = agreement(deviations, pattern_of(alpha), parts)
        shrink = shrinkage(hits, sizes)
        gains.append(((2 * shrink * hits.sum(axis=0) - shrink**2 * sizes.sum(axis=0)) / variance).mean())
    best = int(np.argmax(gains))
    coefficients = _ridge_at(alphas[best], features, deviations)
    pattern = pattern_of(alphas[best])
    return _regression(targets, deviations, folds, pattern, parts, lambda x: x @ coefficients, (alphas[best],))


def fit_mean(
    features: np.ndarray, widths: Sequence[int], targets: np.ndarray, groups: np.ndarray, folds: np.ndarray
) -> Regression:
    """Fit a ridge regression to each of several views of the spots, and take the mean of what they predict.

    For each gene a view counts as much as its own factor, which is chosen on held-out folds; as much as the others
    where none is above 0.

    Parameters
    ----------
    features
        Views side by side, (n, f).
    widths
        How many columns each view has, in their order.
    targets, groups, folds
        As for `fit_ridge`.

    Returns
    -------
    The regression.

    Raises
    ------
    ValueError
        If there are fewer than two spots or the lengths differ.
    """
    features, targets = _check(features, targets, groups, folds)
    ends = np.cumsum(widths)[:-1]
    fits = [fit_ridge(view, targets, groups, folds) for view in np.split(features, ends, axis=1)]
    if len(fits) == 1:
        return fits[0]
    deviations, parts = centred(targets, groups), list(splits(groups, folds))
    sums = [agreement(deviations, fit.pattern, parts) for fit in fits]
    pattern = np.zeros(targets.shape, dtype=np.float32)
    for number, (_, test, _) in enumerate(parts):  # each fold by factors that the others give
        others = np.arange(len(parts)) != number if len(parts) > 2 else np.ones(len(parts), dtype=bool)
        share = _shares(np.array([shrinkage(hits[others], sizes[others]) for hits, sizes in sums]))
        pattern[test] = sum(part * fit.pattern[test] for part, fit in zip(share, fits, strict=True))
    share = _shares(np.array([fit.shrink for fit in fits]))

    def predictor(values: np.ndarray) -> np.ndarray:
        views = zip(share, fits, np.split(values, ends, axis=1), strict=True)
        return np.asarray(sum(part * fit.predictor(view) for part, fit, view in views))

    return _regression(targets, deviations, folds, pattern, parts, predictor, tuple(fit.alpha[0] for fit in fits))


def _shares(factors: np.ndarray) -> np.ndarray:
    """Turn factors (k, g) into shares that add up to 1."""
    total = factors.sum(axis=0)
    return np.where(total > 0, factors / np.maximum(total, 1e-12), 1 / len(factors))


def fit_model(
    fit: Fitter, features: np.ndarray, targets: np.ndarray, groups: np.ndarray, folds: np.ndarray
) -> Regression:
    """Fit any model, with shrinkage chosen on held-out folds.

    Parameters
    ----------
    fit
        Takes features (m, f) and deviations of expression (m, g) and returns a function from features to deviations.
        Called once for each fold and once for all spots.
    features
        Standardised features, (n, f).
    targets
        Expression, (n, g).
    groups
        The section of each spot, (n,).
    folds
        The fold of each spot, (n,).

    Returns
    -------
    The regression.

    Raises
    ------
    ValueError
        If there are fewer than two spots or the lengths differ.
    """
    features, targets = _check(features, targets, groups, folds)
    deviations = centred(targets, groups)
    parts = list(splits(groups, folds))
    found = np.zeros(targets.shape, dtype=np.float32)
    for train, test, whole in parts:
        predicted = fit(features[train], deviations[train])(features[test])
        found[test] = centred(predicted, groups[test]) if whole else predicted
    return _regression(targets, deviations, folds, found, parts, fit(features, deviations))


def _check(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, folds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    features, targets = np.asarray(features, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    if not len(features) == len(targets) == len(groups) == len(folds):
        found = f"{len(features)} features, {len(targets)} targets, {len(groups)} groups, {len(folds)} folds"
        raise ValueError(message("Expected a row of each for every spot", found=found))
    if len(features) < 2:
        raise ValueError(message("Expected at least two spots to fit to", found=str(len(features))))
    return features, targets


def _ridge(features: np.ndarray, targets: np.ndarray) -> Callable[[float], np.ndarray]:
    """Prepare ridge regression for every penalty by one eigendecomposition, of the smaller of both Gram matrices."""
    n, f = features.shape
    gram = features.T @ features if f <= n else features @ features.T
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values, 0.0)[:, None]
    rotated = vectors.T @ (features.T @ targets if f <= n else targets)
    back = vectors if f <= n else features.T @ vectors
    return lambda alpha: back @ (rotated / (values + alpha * n))


def _ridge_at(alpha: float, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fit ridge regression for one penalty, (f, g)."""
    n, f = features.shape
    gram = features.T @ features if f <= n else features @ features.T
    np.fill_diagonal(gram, gram.diagonal() + alpha * n)
    found = solve(gram, features.T @ targets if f <= n else targets, assume_a="pos", overwrite_a=True)
    return np.asarray(found if f <= n else features.T @ found)


def _regression(
    targets: np.ndarray,
    deviations: np.ndarray,
    folds: np.ndarray,
    pattern: np.ndarray,
    parts: Parts,
    predictor: Predictor,
    alpha: tuple[float, ...] = (),
) -> Regression:
    """Put a regression together, with what each fold is predicted to be by the others."""
    low, high = targets.min(axis=0), targets.max(axis=0)
    hits, sizes = agreement(deviations, pattern, parts)
    shrink = shrinkage(hits, sizes)
    whole = bool(parts) and parts[0][2]
    units = folds if whole else np.zeros(len(targets))
    held_out = np.full(targets.shape, np.nan, dtype=np.float32)
    for number, (train, test, _) in enumerate(parts):
        others = np.arange(len(parts)) != number
        factor = shrinkage(hits[others], sizes[others]) if len(parts) > 2 else shrink
        held_out[test] = np.clip(levels(targets[train], units[train])[0] + factor * pattern[test], low, high)
    level, spread = levels(targets, units)
    seen = pattern if parts else np.full(targets.shape, np.nan, dtype=np.float32)
    return Regression(targets.mean(axis=0), level, spread, low, high, shrink, predictor, held_out, seen, alpha)
