"""What few-shot prediction fits a model to, and what the model predicts."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message
from stalign.core.retrieval import Retrieval
from stalign.data import table_of
from stalign.tl._domains import features_of
from stalign.tl._modality import check_modality
from stalign.tl._patch_rows import PatchRows, patch_rows
from stalign.tl._sgd import SGD

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

LINEAR, MEAN = "linear", "training mean"
_PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-2, 6))


@dataclass(frozen=True)
class Inputs:
    """What spots are predicted from.

    Parameters
    ----------
    name
        obsm key, or weights of a tower.
    values
        Features (n_obs, f), or patches that are cut when they are read.
    known, asked
        Spots that a model can be fitted to, and that can be predicted, (n_obs,) bool.
    """

    name: str
    values: np.ndarray | PatchRows
    known: np.ndarray
    asked: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray | PatchRows:
        """Return those of some spots."""
        return self.values.of(rows) if isinstance(self.values, PatchRows) else self.values[rows]


def few_shot_inputs(
    data: AnnData | SpatialData, model: Any, reps: Sequence[str], *, library_key: str, table_key: str | None
) -> Iterator[Inputs]:
    """Read what a model is fitted to, one representation after the other.

    Parameters
    ----------
    data
        All sections.
    model
        As `tl.few_shot` takes it.
    reps
        obsm keys.
    library_key
        obs column of sections.
    table_key
        Table of a SpatialData object.

    Yields
    ------
    Patches, for a model that trains a tower; else the features of each key.

    Raises
    ------
    TypeError
        If the model has no `fit` and `predict`.
    ValueError
        If features and what they are compared with differ in width, or there is no image.
    """
    table = table_of(data, table_key)
    if model != LINEAR and not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise TypeError(message("Expected a model with `fit` and `predict`", found=repr(model), available=[LINEAR]))
    if isinstance(model, SGD) and model.tower is not None:
        patches = patch_rows(data, model.tower, library_key=library_key, table_key=table_key)
        there = patches.section >= 0
        yield Inputs(str(model.tower), patches, there, there)
        return
    for rep in reps:
        check_modality(table, rep)
        values = np.asarray(features_of(table, rep), dtype=np.float64)
        known = asked = np.asarray(np.isfinite(values).all(axis=1))
        if isinstance(model, Retrieval) and model.match is not None:
            found_by = np.asarray(features_of(table, model.match), dtype=np.float64)
            if found_by.shape != values.shape:
                found = f"{values.shape[1]} in obsm[{rep!r}], {found_by.shape[1]} in obsm[{model.match!r}]"
                hint = "Use one set of weights for both"
                raise ValueError(message("Expected embeddings of one width", found=found, hint=hint))
            known = asked & np.isfinite(found_by).all(axis=1)
            values = np.hstack([values, found_by])
        yield Inputs(rep, values, known, asked)


def predictions(
    model: Any,
    inputs: Inputs,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    shares: Sequence[float],
    seeds: Sequence[int],
) -> Iterator[tuple[float, int, str, np.ndarray, int]]:
    """Predict the held-out spots from each share of the others.

    Parameters
    ----------
    model
        As `tl.few_shot` takes it.
    inputs
        What it is fitted to.
    targets
        Expression of all spots, (n_obs, g).
    train, test
        Spots to fit to and to predict.
    shares
        Of the first, in increasing order.
    seeds
        Of their order.

    Yields
    ------
    Share, seed, name of the model, predictions (n_test, g) and the number of spots fitted to.
    """
    name = LINEAR if model == LINEAR else type(model).__name__
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(train)
        for share in shares:
            some = order[: max(round(share * len(order)), 2)]
            fitted = _fresh(model, seed).fit(inputs.of(some), targets[some])
            predicted = np.asarray(fitted.predict(inputs.of(test))).reshape(len(test), -1)
            yield share, seed, name, predicted, len(some)
            mean = np.broadcast_to(targets[some].mean(axis=0), predicted.shape)
            yield share, seed, MEAN, mean, len(some)


def _fresh(model: Any, seed: int) -> Any:
    """Return an unfitted copy of a model."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if model == LINEAR:
        return make_pipeline(StandardScaler(), RidgeCV(_PENALTIES))
    fresh = copy.deepcopy(model)
    if isinstance(fresh, SGD):
        fresh.seed = seed
    return fresh
