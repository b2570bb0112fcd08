"""Spots unlike every class: distances from the class means, calibrated on classes that are held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_CLASS = 5  # spots of a class that is held out
_QUANTILES = np.linspace(0.0, 1.0, 201)
_ROWS = 1 << 16
_LEAST = 1e-6  # share of the mean variance that every direction has at least


@dataclass(frozen=True)
class Novelty:
    """How far a spot is from the nearest class, and how far labelled spots are.

    Parameters
    ----------
    means
        Mean of each class, (k, f); NaN rows are classes without spots.
    precision
        Inverse of the shrunk covariance within classes, (f, f).
    quantiles
        Quantiles of the distances of held-out spots of known classes, (201,), from the least to the largest.
    auc
        Probability that a spot of a held-out class lies farther than one of the known classes; NaN where no class could
        be held out.
    """

    means: np.ndarray
    precision: np.ndarray
    quantiles: np.ndarray
    auc: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance to the nearest class, (n,)."""
        return _nearest(features, self.means, self.precision)

    def share_nearer(self, features: np.ndarray) -> np.ndarray:
        """Share of labelled spots, held out, that lie nearer to their nearest class, (n,) from 0 to 1."""
        return np.asarray(np.interp(self.distances(features), self.quantiles, _QUANTILES))


def _gaussians(features: np.ndarray, labels: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Class means and the precision within classes; that of all spots where classes have one or two."""
    from sklearn.covariance import ledoit_wolf

    means = np.full((n_classes, features.shape[1]), np.nan)
    for label in np.unique(labels):
        means[label] = features[labels == label].mean(axis=0)
    residuals = features - means[labels]
    if len(labels) <= 2 * len(np.unique(labels)):
        residuals = features - features.mean(axis=0)
    covariance = ledoit_wolf(residuals, assume_centered=True)[0]
    covariance += _LEAST * max(float(np.trace(covariance)) / len(covariance), 1e-12) * np.eye(len(covariance))
    return means, np.linalg.inv(covariance)


def _nearest(features: np.ndarray, means: np.ndarray, precision: np.ndarray) -> np.ndarray:
    known = means[np.isfinite(means).all(axis=1)]
    root = np.linalg.cholesky(precision)
    targets, parts = known @ root, []
    for start in range(0, max(len(features), 1), _ROWS):
        rows = features[start : start + _ROWS] @ root
        square = np.square(rows).sum(axis=1)[:, None] - 2 * rows @ targets.T + np.square(targets).sum(axis=1)
        parts.append(np.maximum(square.min(axis=1), 0))
    return np.concatenate(parts)


def fit_novelty(
    features: np.ndarray, labels: np.ndarray, n_classes: int, folds: list[tuple[np.ndarray, np.ndarray]]
) -> Novelty:
    """Fit class means and distances.

    Parameters
    ----------
    features
        Features of labelled spots, (n, f).
    labels
        Classes, (n,) int.
    n_classes
        k.
    folds
        Positions that are fitted and held out; where there are none, distances are those of the fitted spots.

    Returns
    -------
    The fit. Its `auc` is the mean over classes that are held out one after the other.
    """
    from sklearn.metrics import roc_auc_score

    means, precision = _gaussians(features, labels, n_classes)
    known = []
    for fit, held in folds:
        held = held[np.isin(labels[held], labels[fit])]
        known.append(_nearest(features[held], *_gaussians(features[fit], labels[fit], n_classes)))
    found = np.concatenate(known) if known else _nearest(features, means, precision)
    areas = []
    classes, counts = np.unique(labels, return_counts=True)
    for label in classes[counts >= LEAST_CLASS] if len(classes) > 2 and known else ():
        rest = labels != label
        others = _gaussians(features[rest], labels[rest], n_classes)
        far = _nearest(features[~rest], *others)
        areas.append(roc_auc_score(np.r_[np.zeros(len(found)), np.ones(len(far))], np.r_[found, far]))
    quantiles = np.quantile(found, _QUANTILES) if len(found) else np.zeros(len(_QUANTILES))
    return Novelty(means, precision, quantiles, float(np.mean(areas)) if areas else float("nan"))
