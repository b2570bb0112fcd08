"""Fitting on one part of the spots and predicting another."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message, one_of
from stalign.core.regression import Regression, fit_mean, fit_model
from stalign.core.reliability import is_reliable, reliability, residual_range
from stalign.core.retrieval import Retrieval
from stalign.core.standardise import N_FOLDS, spatial_blocks, standardise
from stalign.core.views import Views

if TYPE_CHECKING:
    from collections.abc import Callable

    from stalign.core.regression import Fitter, Predictor
    from stalign.tl._expression import Spots
    from stalign.tl._splits import Parts

RIDGES = {"ridge": (True, False), "kernel": (False, True), "mean": (True, True)}  # linear, on a Gaussian kernel
MODELS = (*RIDGES, "mlp", "retrieval")
HIDDEN = (256, 128)  # widths of the MLP


@dataclass(frozen=True)
class Plan:
    """How to fit.

    Parameters
    ----------
    model
        A ridge regression, or what makes another model's fitter from a seed.
    standard
        How features are standardised.
    seed
        Seed of models, folds and regions.
    coverage
        Share of spots that intervals hold.
    carry
        What the factor of each gene is multiplied by.
    shrink
        Whether predictions are shrunken to the level of the reference, section by section; else they are the model's.
    """

    model: str | Callable[[int], Fitter]
    standard: str
    seed: int
    coverage: float
    carry: float = 1.0
    shrink: bool = True

    @property
    def by_section(self) -> bool:
        """Whether a section as a whole is predicted to have the level of the reference."""
        return self.shrink and self.standard != "reference"


@dataclass(frozen=True)
class Fit:
    """A regression and what it is worth, gene by gene.

    Parameters
    ----------
    model
        The regression.
    views
        What it sees of the features; None for the features.
    reliability, error
        Mean correlation with held-out parts of the reference and its standard error, (g,).
    below, above
        Ends of the interval around a prediction, less the prediction, (g,).
    held_out
        What these parts were: `patient`, `section`, `region` or `spot`.
    n_units
        How many sections or patients the level is the mean of.
    """

    model: Regression
    views: Views | None
    reliability: np.ndarray
    error: np.ndarray
    below: np.ndarray
    above: np.ndarray
    held_out: str
    n_units: int


@dataclass(frozen=True)
class Predicted:
    """Predictions of all spots, part by part; NaN where a spot has no features.

    Parameters
    ----------
    values, baseline, lower, upper
        Predictions, means of the spots fitted to, and ends of intervals, (n, g).
    fits
        The regression of each part.
    n_fitted
        Spots fitted to, all parts together.
    """

    values: np.ndarray
    baseline: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    fits: list[Fit]
    n_fitted: int

    def mean_of(self, value: Callable[[Fit], np.ndarray]) -> np.ndarray:
        """Take the mean of something over the regressions, (g,)."""
        return np.asarray(np.mean([value(fit) for fit in self.fits], axis=0))

    @property
    def reliability(self) -> np.ndarray:
        """Mean correlation with held-out parts of the reference, (g,)."""
        return self.mean_of(lambda fit: fit.reliability)

    @property
    def reliable(self) -> np.ndarray:
        """Whether it is surely above what is no use, (g,) bool."""
        return is_reliable(self.reliability, self.mean_of(lambda fit: fit.error))


def as_fitter(model: Any) -> str | Callable[[int], Fitter]:
    """Turn a name or a regressor into what makes fitters.

    Parameters
    ----------
    model
        `mean`, `ridge`, `kernel`, `mlp`, `retrieval`, or an object with `fit` and `predict`.

    Returns
    -------
    A function from a seed to a fitter; the name of a ridge regression.

    Raises
    ------
    ValueError
        If a name is unknown.
    TypeError
        If an object has no `fit` and `predict`.
    """
    if isinstance(model, str):
        one_of(model, MODELS, name="model", hint="Or pass an object with `fit` and `predict`")
        if model != "retrieval":
            return _mlp if model == "mlp" else model
        model = Retrieval()
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        found = type(model).__name__
        raise TypeError(message("Expected a model with `fit` and `predict`", found=found, available=MODELS))

    def fit(features: np.ndarray, targets: np.ndarray) -> Predictor:
        fitted = copy.deepcopy(model)
        fitted.fit(features, targets)
        return lambda values: np.asarray(fitted.predict(values), dtype=np.float64).reshape(len(values), -1)

    return lambda seed: fit


def _mlp(seed: int) -> Fitter:
    """Make the fitter of a small multilayer perceptron.

    The papers say that an MLP predicts genes from frozen embeddings, but not of what size or how trained: all of this
    is our choice.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor

    def fit(features: np.ndarray, targets: np.ndarray) -> Predictor:
        spread = targets.std(axis=0)
        spread = np.where(spread > 1e-8, spread, 1.0)
        network = MLPRegressor(
            hidden_layer_sizes=HIDDEN,
            alpha=5.0,
            early_stopping=len(features) >= 50,
            n_iter_no_change=15,
            random_state=seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            scaled = (targets / spread).astype(np.float32)
            network.fit(features.astype(np.float32), scaled if scaled.shape[1] > 1 else scaled[:, 0])

        def predict(values: np.ndarray) -> np.ndarray:
            found = network.predict(values.astype(np.float32)).astype(np.float64)
            return np.asarray(found.reshape(len(values), -1) * spread)

        return predict

    return fit


def predict_parts(plan: Plan, source: Spots, asked: Spots, names: np.ndarray, parts: Parts | None) -> Predicted:
    """Fit and predict, part by part.

    Parameters
    ----------
    plan
        How to fit.
    source
        Spots to fit to.
    asked
        Spots to predict; the same as `source` where there are parts.
    names
        Genes, (g,).
    parts
        From `split_spots`; None fits to all of `source` and predicts all of `asked`.

    Returns
    -------
    The predictions.

    Raises
    ------
    ValueError
        If features differ in width or there are fewer than two usable spots to fit to.
    """
    if source.features.shape[1] != asked.features.shape[1]:
        found = f"{asked.features.shape[1]} in the query, {source.features.shape[1]} in the reference"
        raise ValueError(message("Expected features of one width", found=found, hint="Use the same weights for both"))
    targets = source.values(names)
    if targets is None:
        raise ValueError(message("Expected raw counts to fit to", found="no count matrix"))
    useful = source.usable & source.measured
    values, baseline, lower, upper = (np.full((len(asked.features), len(names)), np.nan) for _ in range(4))
    fits, fitted = [], np.zeros(len(useful), dtype=bool)
    for train, test in parts or [(np.ones(len(useful), dtype=bool), np.ones(len(values), dtype=bool))]:
        rows = train & useful
        if rows.sum() < 2:
            found = f"{int(rows.sum())} of {int(train.sum())}"
            raise ValueError(message("Expected at least two spots with features and counts to fit to", found=found))
        fit = _fit(plan, source, rows, targets[rows])
        now = test & asked.usable
        values[now] = _apply(plan, fit, asked, source.features[rows])[now]
        baseline[now] = fit.model.mean
        lower[now] = np.maximum(values[now] + fit.below, 0.0)  # no expression is negative
        upper[now] = np.maximum(values[now] + fit.above, 0.0)
        fits.append(fit)
        fitted |= rows
    return Predicted(values, baseline, lower, upper, fits, int(fitted.sum()))


def _standardised(plan: Plan, spots: Spots, reference: np.ndarray) -> np.ndarray:
    """Standardise the features of usable spots, each section over all of these; NaN for the others."""
    features = np.full(spots.features.shape, np.nan)
    use = spots.usable
    features[use] = standardise(spots.features[use], spots.groups[use], how=plan.standard, reference=reference)
    return features


def _fit(plan: Plan, source: Spots, rows: np.ndarray, targets: np.ndarray) -> Fit:
    features = _standardised(plan, source, source.features[rows])[rows]
    sections = source.groups[rows]
    groups = sections if plan.by_section else np.zeros_like(sections)
    folds, kind = _folds(sections, source.patients[rows], source.coords[rows], plan.seed)
    views = None
    if isinstance(plan.model, str):
        linear, kernel = RIDGES[plan.model]
        sources = source.sources if plan.model == "mean" else [[n for blocks in source.sources for n in blocks]]
        views = Views.fit(features, sources, linear=linear, kernel=kernel, seed=plan.seed)
        model = fit_mean(views(features), views.widths(features), targets, groups, folds)
    else:
        model = fit_model(plan.model(plan.seed), features, targets, groups, folds)
    if plan.shrink:
        model = replace(model, shrink=plan.carry * model.shrink)
    else:
        held_out = (model.level + model.pattern).astype(np.float32)
        low, high = np.full_like(model.low, -np.inf), np.full_like(model.high, np.inf)
        model = replace(model, shrink=np.ones_like(model.shrink), low=low, high=high, held_out=held_out)
    mean, error = reliability(targets, model.pattern, sections, folds)
    below, above = residual_range(targets, model.held_out, plan.coverage)
    n_units = len(np.unique(folds)) if kind in {"patient", "section"} else 1
    return Fit(model, views, mean, error, below, above, kind, n_units)


def _folds(sections: np.ndarray, patients: np.ndarray, coords: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Hold out patients; sections of one patient; regions of one section; random fifths where it has no positions."""
    known = (patients != "").all()
    if known and len(np.unique(patients)) > 1:
        return np.unique(patients, return_inverse=True)[1], "patient"
    if len(np.unique(sections)) > 1:
        return sections, "section"
    blocks = spatial_blocks(coords, random_state=seed)
    if len(np.unique(blocks)) > 1:
        return blocks, "region"
    return np.random.default_rng(seed).permutation(len(sections)) % N_FOLDS, "spot"


def _apply(plan: Plan, fit: Fit, asked: Spots, reference: np.ndarray) -> np.ndarray:
    """Predict all usable spots, so that each section as a whole gets the level of the reference."""
    use = asked.usable
    predicted = np.full((len(use), len(fit.model.mean)), np.nan)
    features = _standardised(plan, asked, reference)[use]
    features = features if fit.views is None else fit.views(features)
    predicted[use] = fit.model.predict(features, asked.groups[use] if plan.by_section else None)
    return predicted
