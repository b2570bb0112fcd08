"""Fitting on one part of the spots and predicting another."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._validate import message, one_of
from stalign.core.regression import Regression, fit_model, fit_ridge
from stalign.core.standardise import N_FOLDS, spatial_blocks, standardise

if TYPE_CHECKING:
    from collections.abc import Callable

    from stalign.core.regression import Fitter, Predictor
    from stalign.tl._expression import Spots

MODELS = ("ridge", "mlp")
HIDDEN = (256, 128)  # widths of the MLP
Parts = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """How to fit.

    Parameters
    ----------
    fitter
        Makes a model's fitter from a seed; None for ridge regression.
    standard
        How features are standardised.
    seed
        Seed of models, folds and regions.
    """

    fitter: Callable[[int], Fitter] | None
    standard: str
    seed: int


def as_fitter(model: Any) -> Callable[[int], Fitter] | None:
    """Turn a name or a regressor into what makes fitters.

    Parameters
    ----------
    model
        `ridge`, `mlp`, or an object with `fit` and `predict`.

    Returns
    -------
    A function from a seed to a fitter; None for `ridge`.

    Raises
    ------
    ValueError
        If a name is unknown.
    TypeError
        If an object has no `fit` and `predict`.
    """
    if isinstance(model, str):
        one_of(model, MODELS, name="model", hint="Or pass an object with `fit` and `predict`")
        return None if model == "ridge" else _mlp
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
            return found.reshape(len(values), -1) * spread

        return predict

    return fit


def split_spots(spots: Spots, column: pd.Series | None, seed: int) -> Parts:
    """Plan which spots are predicted from which others.

    Parameters
    ----------
    spots
        All spots.
    column
        Values that are held out one at a time; None for fifths of the spots.
    seed
        Seed of the fifths.

    Returns
    -------
    For each part, the spots to fit to and the spots to predict, (n,) bool.

    Raises
    ------
    ValueError
        If the column has one value, or there are fewer than two usable spots.
    """
    n = len(spots.features)
    if column is None:
        rows = np.flatnonzero(spots.usable)
        if len(rows) < 2:
            raise ValueError(message("Expected at least two spots with features", found=str(len(rows))))
        fold = np.full(n, -1)
        fold[np.random.default_rng(seed).permutation(rows)] = np.arange(len(rows)) % N_FOLDS
    else:
        fold = pd.factorize(column, sort=True)[0]
        if fold.max(initial=-1) < 1:
            hint = "Pass `split='spot'`, or a reference"
            raise ValueError(message(f"Expected at least two values in obs[{column.name!r}]", found="one", hint=hint))
    return [((fold >= 0) & (fold != part), fold == part) for part in range(fold.max() + 1)]


def predict_parts(
    plan: Plan, source: Spots, asked: Spots, names: np.ndarray, parts: Parts | None
) -> tuple[np.ndarray, np.ndarray, list[Regression], int]:
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
    Predictions (n, g) and the means of the spots fitted to (n, g), both NaN where a spot has no features; the
    regressions; and how many spots were fitted to, all parts together.

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
    predicted = np.full((len(asked.features), len(names)), np.nan)
    baseline = np.full_like(predicted, np.nan)
    models, fitted = [], np.zeros(len(useful), dtype=bool)
    for train, test in parts or [(np.ones(len(useful), dtype=bool), np.ones(len(predicted), dtype=bool))]:
        rows = train & useful
        if rows.sum() < 2:
            found = f"{int(rows.sum())} of {int(train.sum())}"
            raise ValueError(message("Expected at least two spots with features and counts to fit to", found=found))
        model = _fit(plan, source, rows, targets[rows])
        now = test & asked.usable
        predicted[now] = _apply(plan, model, asked, source.features[rows])[now]
        baseline[now] = model.mean
        models.append(model)
        fitted |= rows
    return predicted, baseline, models, int(fitted.sum())


def _standardised(plan: Plan, spots: Spots, reference: np.ndarray) -> np.ndarray:
    """Standardise the features of usable spots, each section over all of these; NaN for the others."""
    features = np.full(spots.features.shape, np.nan)
    use = spots.usable
    features[use] = standardise(spots.features[use], spots.groups[use], how=plan.standard, reference=reference)
    return features


def _fit(plan: Plan, source: Spots, rows: np.ndarray, targets: np.ndarray) -> Regression:
    features = _standardised(plan, source, source.features[rows])[rows]
    sections = source.groups[rows]
    groups = np.zeros_like(sections) if plan.standard == "reference" else sections
    folds = _folds(sections, source.coords[rows], plan.seed)
    if plan.fitter is None:
        return fit_ridge(features, targets, groups, folds)
    return fit_model(plan.fitter(plan.seed), features, targets, groups, folds)


def _folds(sections: np.ndarray, coords: np.ndarray, seed: int) -> np.ndarray:
    """Hold out sections; regions where there is one section; random fifths where it has no positions."""
    if len(np.unique(sections)) > 1:
        return sections
    blocks = spatial_blocks(coords, random_state=seed)
    if len(np.unique(blocks)) > 1:
        return blocks
    return np.random.default_rng(seed).permutation(len(sections)) % N_FOLDS


def _apply(plan: Plan, model: Regression, asked: Spots, reference: np.ndarray) -> np.ndarray:
    """Predict all usable spots, so that each section as a whole gets the mean of the reference."""
    use = asked.usable
    predicted = np.full((len(use), len(model.mean)), np.nan)
    features = _standardised(plan, asked, reference)[use]
    predicted[use] = model.predict(features, None if plan.standard == "reference" else asked.groups[use])
    return predicted
