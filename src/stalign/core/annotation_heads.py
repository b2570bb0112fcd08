"""Linear classifiers with class probabilities: shrinkage LDA, or another one of scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.core.mean_field import softmax_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stalign.core.annotation_features import View

ABSENT = -20.0  # least log-probability, that of a class which a classifier has not seen
_FIT_SPOTS = 50_000  # spots that a classifier is fitted to at most


@dataclass(frozen=True)
class Linear:
    """A linear classifier.

    Parameters
    ----------
    coef
        Weights, (k, f).
    intercept
        Intercepts, (k,).
    """

    coef: np.ndarray
    intercept: np.ndarray

    def log_probability(self, features: np.ndarray) -> np.ndarray:
        """Log of the class probabilities, (n, k)."""
        return softmax_log(np.maximum(softmax_log(features @ self.coef.T + self.intercept), ABSENT))


@dataclass(frozen=True)
class Fitted:
    """Any classifier with `predict_proba`, with its classes among k.

    Parameters
    ----------
    classifier
        The fitted classifier.
    n_classes
        k.
    """

    classifier: Any
    n_classes: int

    def log_probability(self, features: np.ndarray) -> np.ndarray:
        """Log of the class probabilities, (n, k)."""
        found = np.full((len(features), self.n_classes), ABSENT)
        values = np.log(np.maximum(self.classifier.predict_proba(features), np.exp(ABSENT)))
        found[:, np.asarray(self.classifier.classes_, dtype=np.intp)] = values
        return softmax_log(found)


Head = Linear | Fitted


def fit_head(features: np.ndarray, labels: np.ndarray, n_classes: int, classifier: Any = None, seed: int = 0) -> Head:
    """Fit a classifier to labelled spots.

    Parameters
    ----------
    features
        Features, (n, f).
    labels
        Classes, (n,) int from 0 to k - 1; not all of them need be there.
    n_classes
        k.
    classifier
        A classifier of scikit-learn, of which a clone is fitted; None for linear discriminant analysis whose
        covariance is shrunk as Ledoit and Wolf do.
    seed
        Seed of the sample that is fitted to above 50,000 spots.

    Returns
    -------
    A `Linear` where the classifier is linear and gives its probabilities by a softmax, else a `Fitted`.
    """
    if len(labels) > _FIT_SPOTS:
        some = np.random.default_rng(seed).choice(len(labels), _FIT_SPOTS, replace=False)
        some = np.union1d(some, np.unique(labels, return_index=True)[1])
        features, labels = features[some], labels[some]
    if classifier is None:
        return _lda(features, labels, n_classes)
    from sklearn.base import clone

    fitted = clone(classifier).fit(features, labels)
    if not hasattr(fitted, "predict_proba"):
        raise TypeError(
            message("Expected a classifier with `predict_proba`", found=type(classifier).__name__,
                    hint="Wrap it in `sklearn.calibration.CalibratedClassifierCV`")
        )  # fmt: skip
    return _linear(fitted, n_classes) if _is_softmax(fitted) else Fitted(fitted, n_classes)


def _is_softmax(fitted: Any) -> bool:
    """Whether a fitted classifier is linear with probabilities that are a softmax of its scores."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression

    return isinstance(fitted, LinearDiscriminantAnalysis | LogisticRegression)


def _linear(fitted: Any, n_classes: int) -> Linear:
    """Spread coefficients over all classes; those that were not seen get none and an intercept far below."""
    coef, intercept = np.atleast_2d(fitted.coef_), np.ravel(fitted.intercept_)
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef / 2, coef / 2]), np.concatenate([-intercept / 2, intercept / 2])
    full, base = np.zeros((n_classes, coef.shape[1])), np.full(n_classes, -np.inf)
    seen = np.asarray(fitted.classes_, dtype=np.intp)
    full[seen], base[seen] = coef, intercept
    return _absent(full, base)


def _absent(coef: np.ndarray, intercept: np.ndarray) -> Linear:
    seen = np.isfinite(intercept)
    coef[~seen] = coef[seen].mean(axis=0)
    intercept[~seen] = intercept[seen].mean() - 1e3
    return Linear(coef, intercept)


def _lda(features: np.ndarray, labels: np.ndarray, n_classes: int) -> Linear:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    seen, counts = np.unique(labels, return_counts=True)
    if len(labels) > len(seen) and counts.max() > 2:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of labels with one spot
            return _linear(LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels), n_classes)
    means = np.stack([features[labels == label].mean(axis=0) for label in seen])  # one or two spots a label
    scale = max(float(features.var(axis=0).mean()), 1e-12)
    coef, intercept = np.zeros((n_classes, features.shape[1])), np.full(n_classes, -np.inf)
    coef[seen], intercept[seen] = means / scale, -0.5 * np.square(means).sum(axis=1) / scale
    return _absent(coef, intercept)


def averaged(features: Mapping[View, np.ndarray], views: Sequence[View], heads: Sequence[Head]) -> np.ndarray:
    """Log of the class probabilities, those of the views averaged, (n, k)."""
    total = heads[0].log_probability(features[views[0]])
    for view, head in zip(views[1:], heads[1:], strict=True):
        total += head.log_probability(features[view])
    return softmax_log(total / len(views))
