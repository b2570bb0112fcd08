"""Choice of features and smoothing by cross-validation on the labelled spots."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign.core.annotation_heads import ABSENT, averaged, fit_head
from stalign.core.mean_field import mean_field, softmax_log

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scipy import sparse

    from stalign.core.annotation_features import View
    from stalign.core.annotation_heads import Head

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0)
USUAL = 0.5  # strength where the labels do not tell which is best
USUAL_TEMPERATURE = 4.0  # of discriminant analysis of few spots, where they do not tell; their probabilities are near 1
LEAST_SPOTS = 20  # labelled spots below which nothing is chosen
_TEMPERATURES = (0.2, 20.0)

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Choice:
    """What cross-validation chose.

    Parameters
    ----------
    views
        Views whose log-probabilities are averaged.
    strength
        Strength of the mean field.
    temperature
        What log-probabilities are divided by before the mean field, and its strength with them where this is above 1.
    final_temperature
        What the log of its probabilities is divided by after it.
    accuracy, plain_accuracy
        Share of held-out labelled spots that are right, and that of the plain classifier; NaN where nothing could be
        held out.
    calibration_error
        Expected calibration error on the held-out spots, before they were used to calibrate: that of the temperature
        found on the other half.
    n_folds
        Folds that were held out.
    """

    views: tuple[View, ...]
    strength: float = 0.0
    temperature: float = 1.0
    final_temperature: float = 1.0
    accuracy: float = float("nan")
    plain_accuracy: float = float("nan")
    calibration_error: float = float("nan")
    n_folds: int = 0


@dataclass(frozen=True)
class Task:
    """Labelled spots and what is needed to hold some of them out.

    Parameters
    ----------
    features
        Features of all spots of the labelled sections, (n, f) by view.
    labels
        Classes, (n,) intp, -1 where there is no label.
    usable
        Spots with features, (n,) bool.
    graph
        Neighbours, CSR (n, n).
    n_classes
        k.
    folds
        Rows that are fitted and rows that are held out.
    classifier
        As `fit_head` takes it.
    seed
        Seed.
    hold_known
        Whether labels of fitted spots are given to their neighbours by the mean field, as they are where a section is
        completed; a section that labels are carried to has none.
    """

    features: Mapping[View, np.ndarray]
    labels: np.ndarray
    usable: np.ndarray
    graph: sparse.csr_matrix
    n_classes: int
    folds: Folds
    classifier: Any
    seed: int
    hold_known: bool = True
    _fitted: dict[tuple[View, int], Head] = field(default_factory=dict, repr=False)

    def heads(self, views: Sequence[View], fold: int) -> list[Head]:
        """Fit a classifier to the labelled spots of a fold in each view, once."""
        rows = self.folds[fold][0]
        for view in views:
            if (view, fold) not in self._fitted:
                self._fitted[view, fold] = fit_heads(self.features, [view], rows, self.labels[rows], self)[0]
        return [self._fitted[view, fold] for view in views]


def fit_heads(
    features: Mapping[View, np.ndarray], views: Sequence[View], rows: np.ndarray, labels: np.ndarray, task: Task
) -> list[Head]:
    """Fit a classifier in each view."""
    return [fit_head(features[view][rows], labels, task.n_classes, task.classifier, task.seed) for view in views]


def choose(task: Task, views: Sequence[View], start: Sequence[View], strengths: Sequence[float]) -> Choice:
    """Choose views and strength on held-out labelled spots.

    Views that are as good as the best, within two standard errors, are averaged in place of those of `start` only if
    the share of held-out spots that are right grows by more than one standard error; another strength than the usual
    one is taken only if their labels get likelier by more than one.
    """
    usual = USUAL if USUAL in strengths else strengths[0]
    rows = np.flatnonzero((task.labels >= 0) & task.usable)
    if len(rows) < LEAST_SPOTS or not task.folds:
        return Choice(tuple(start), usual, USUAL_TEMPERATURE if task.classifier is None else 1.0)
    held = _held_out_scores(task, views)
    seen = np.concatenate([part for _, part in task.folds])
    truth = task.labels[seen]
    right = {view: _right(held[view], truth) for view in views}
    best = max(views, key=lambda view: right[view].mean())
    chosen = tuple(start)
    joined = softmax_log(np.mean([held[view] for view in chosen], axis=0))
    alike = tuple(view for view in views if not _better(right[best], right[view], errors=2))
    other = softmax_log(np.mean([held[view] for view in alike], axis=0))
    if _better(_right(other, truth), _right(joined, truth)):
        chosen, joined = alike, other
    heads = [task.heads(chosen, fold) for fold in range(len(task.folds))]
    temperature = fit_temperature(joined, truth)
    strength, final, logs = _strength(task, chosen, heads, temperature, strengths, usual)
    return Choice(
        chosen, strength, temperature, final, float(_right(logs, truth).mean()),
        float(right[views[0]].mean()), _crossed_error(logs, truth, task.seed), len(task.folds),
    )  # fmt: skip


def _right(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the likeliest class is the true one, (n,) float."""
    return np.asarray((scores.argmax(axis=1) == truth).astype(np.float64))


def _better(one: np.ndarray, other: np.ndarray, errors: float = 1) -> bool:
    """Whether the mean of one is above that of the other by more than some standard errors of the difference."""
    difference = one - other
    return bool(difference.mean() > errors * difference.std() / np.sqrt(len(difference)))


def _held_out_scores(task: Task, views: Sequence[View]) -> dict[View, np.ndarray]:
    """Log-probabilities of the held-out spots, fold after fold, by view."""
    parts: dict[View, list[np.ndarray]] = {view: [] for view in views}
    for fold, (_, part) in enumerate(task.folds):
        for view, head in zip(views, task.heads(views, fold), strict=True):
            parts[view].append(head.log_probability(task.features[view][part]))
    return {view: np.concatenate(found) for view, found in parts.items()}


def _strength(
    task: Task,
    views: Sequence[View],
    heads: Sequence[Sequence[Head]],
    temperature: float,
    strengths: Sequence[float],
    usual: float,
) -> tuple[float, float, np.ndarray]:
    """Strength of the mean field, the temperature after it, and log-probabilities of the held-out spots before that.

    The strength is the one that makes the held-out labels likeliest, each with its own temperature. The share that is
    right would favour strong smoothing, whose probabilities promise too much.
    """
    found: dict[float, list[np.ndarray]] = {strength: [] for strength in strengths}
    for own, (fit, part) in zip(heads, task.folds, strict=True):
        alone = averaged(task.features, views, own) / temperature
        given = np.full(len(task.labels), -1, dtype=np.intp)
        if task.hold_known:
            given[fit] = task.labels[fit]
        for strength in strengths:
            eased = strength / max(temperature, 1.0)  # else neighbours outvote evidence that is found to be weak
            found[strength].append(mean_field(alone, task.graph, eased, given=given)[part])
    truth = task.labels[np.concatenate([part for _, part in task.folds])]
    logs = {s: np.log(np.maximum(np.concatenate(parts), np.exp(ABSENT))) for s, parts in found.items()}
    final = {s: fit_temperature(logs[s], truth) for s in strengths}
    likely = {s: softmax_log(logs[s] / final[s])[np.arange(len(truth)), truth] for s in strengths}
    best = max(strengths, key=lambda s: likely[s].mean())
    if not _better(likely[best], likely[usual]):
        best = usual
    return best, final[best], logs[best]


def fit_temperature(log_probability: np.ndarray, truth: np.ndarray) -> float:
    """Find what to divide log-probabilities by so that the truth is likeliest."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = softmax_log(log_probability / np.exp(log_temperature))
        return float(-scaled[np.arange(len(truth)), truth].mean())

    found = minimize_scalar(loss, bounds=tuple(np.log(_TEMPERATURES)), method="bounded")
    return float(np.exp(found.x))


def _crossed_error(logs: np.ndarray, truth: np.ndarray, seed: int) -> float:
    """Calibration error with the temperature of the other half."""
    from stalign.core.scores import calibration_error

    order = np.random.default_rng(seed).permutation(len(truth))
    halves = order[::2], order[1::2]
    parts = [
        np.exp(softmax_log(logs[own] / fit_temperature(logs[other], truth[other])))
        for own, other in (halves, halves[::-1])
    ]
    return calibration_error(np.concatenate(parts), np.concatenate([truth[half] for half in halves]))
