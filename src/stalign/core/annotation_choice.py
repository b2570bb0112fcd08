"""Choice of features, smoothing and self-training by cross-validation on the labelled spots."""

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

STRENGTHS = (0.5, 1.0, 2.0)
CONFIDENT = 0.9  # probability from which a predicted label is fitted to in self-training
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
    self_training
        Whether confident predictions are fitted to as well.
    temperature
        What log-probabilities are divided by before the mean field.
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
    self_training: bool = False
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

    def self_trained(self, views: Sequence[View], fold: int) -> list[Head]:
        """Fit again, with the spots that the classifiers of the fold are sure of."""
        rows = self.folds[fold][0]
        heads = self.heads(views, fold)
        return _with_sure(self.features, views, heads, rows, self.labels[rows], self, self.usable)


def fit_heads(
    features: Mapping[View, np.ndarray],
    views: Sequence[View],
    rows: np.ndarray,
    labels: np.ndarray,
    task: Task,
    *,
    self_training: bool = False,
    usable: np.ndarray | None = None,
) -> list[Head]:
    """Fit a classifier in each view, and with `self_training` again with the spots that these are sure of."""
    heads = [fit_head(features[view][rows], labels, task.n_classes, task.classifier, task.seed) for view in views]
    if not self_training:
        return heads
    return _with_sure(features, views, heads, rows, labels, task, task.usable if usable is None else usable)


def _with_sure(
    features: Mapping[View, np.ndarray],
    views: Sequence[View],
    heads: Sequence[Head],
    rows: np.ndarray,
    labels: np.ndarray,
    task: Task,
    usable: np.ndarray,
) -> list[Head]:
    """Fit classifiers to labelled spots and to those that given classifiers are sure of."""
    sure = np.exp(averaged(features, views, heads))
    more = (sure.max(axis=1) > CONFIDENT) & usable
    more[rows] = False
    known = np.concatenate([rows, np.flatnonzero(more)])
    classes = np.concatenate([labels, sure[more].argmax(axis=1)])
    return [fit_head(features[view][known], classes, task.n_classes, task.classifier, task.seed) for view in views]


def choose(task: Task, views: Sequence[View], strengths: Sequence[float], *, may_train: bool = True) -> Choice:
    """Choose views, strength and, if it may be, self-training on held-out labelled spots.

    Each step departs from the plain classifier, the first view without smoothing, only if the share of held-out spots
    that are right grows by more than one standard error.
    """
    views = list(views)
    plain = Choice((views[0],), strengths[0] if len(strengths) == 1 else 0.0)
    rows = np.flatnonzero((task.labels >= 0) & task.usable)
    if len(rows) < LEAST_SPOTS or not task.folds:
        return plain
    held = _held_out(task, views)
    seen = np.concatenate([part for _, part in task.folds])
    truth = task.labels[seen]
    right = {view: (held[view].argmax(axis=1) == truth).astype(np.float64) for view in views}
    best = max(views, key=lambda view: right[view].mean())
    chosen = tuple(view for view in views if not _better(right[best], right[view], errors=2))
    joined = softmax_log(np.mean([held[view] for view in chosen], axis=0))
    if not _better((joined.argmax(axis=1) == truth).astype(np.float64), right[views[0]]):
        chosen, joined = (views[0],), held[views[0]]
    base = (joined.argmax(axis=1) == truth).astype(np.float64)
    self_training = False
    heads = [task.heads(chosen, fold) for fold in range(len(task.folds))]
    if may_train:
        trained_heads = [task.self_trained(chosen, fold) for fold in range(len(task.folds))]
        trained = _joined(task, chosen, trained_heads)
        if _better((trained.argmax(axis=1) == truth).astype(np.float64), base):
            self_training, joined, heads = True, trained, trained_heads
    temperature = fit_temperature(joined, truth)
    strength, probability = _strength(task, chosen, heads, temperature, strengths)
    right_now = (probability.argmax(axis=1) == truth).astype(np.float64)
    logs = np.log(np.maximum(probability, np.exp(ABSENT)))
    return Choice(
        chosen, strength, self_training, temperature, fit_temperature(logs, truth), float(right_now.mean()),
        float(right[views[0]].mean()), _crossed_error(logs, truth, task.seed), len(task.folds),
    )  # fmt: skip


def _better(one: np.ndarray, other: np.ndarray, errors: float = 1) -> bool:
    """Whether one is right more often than the other by more than some standard errors of the difference."""
    difference = one - other
    return bool(difference.mean() > errors * difference.std() / np.sqrt(len(difference)))


def _held_out(task: Task, views: Sequence[View]) -> dict[View, np.ndarray]:
    """Log-probabilities of the held-out spots, fold after fold, by view."""
    parts: dict[View, list[np.ndarray]] = {view: [] for view in views}
    for fold, (_, part) in enumerate(task.folds):
        for view, head in zip(views, task.heads(views, fold), strict=True):
            parts[view].append(head.log_probability(task.features[view][part]))
    return {view: np.concatenate(found) for view, found in parts.items()}


def _joined(task: Task, views: Sequence[View], heads: Sequence[Sequence[Head]]) -> np.ndarray:
    """Averaged log-probabilities of the held-out spots, fold after fold."""
    pairs = zip(heads, task.folds, strict=True)
    return np.concatenate([averaged(task.features, views, own, part) for own, (_, part) in pairs])


def _strength(
    task: Task, views: Sequence[View], heads: Sequence[Sequence[Head]], temperature: float, strengths: Sequence[float]
) -> tuple[float, np.ndarray]:
    """Strength of the mean field and the probabilities of the held-out spots with it."""
    found: dict[float, list[np.ndarray]] = {strength: [] for strength in strengths}
    for own, (fit, part) in zip(heads, task.folds, strict=True):
        logs = averaged(task.features, views, own) / temperature
        given = np.full(len(task.labels), -1, dtype=np.intp)
        if task.hold_known:
            given[fit] = task.labels[fit]
        for strength in strengths:
            found[strength].append(mean_field(logs, task.graph, strength, given=given)[part])
    truth = task.labels[np.concatenate([part for _, part in task.folds])]
    joined = {strength: np.concatenate(parts) for strength, parts in found.items()}
    right = {strength: (values.argmax(axis=1) == truth).astype(np.float64) for strength, values in joined.items()}
    best = max(strengths, key=lambda strength: right[strength].mean())
    if best != strengths[0] and not _better(right[best], right[strengths[0]]):
        best = strengths[0]
    return best, joined[best]


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
