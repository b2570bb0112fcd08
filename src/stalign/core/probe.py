"""Linear probes: how well a linear classifier reads labels from features."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from stalign._validate import message
from stalign.core.labels import as_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

ALPHAS: Final = (1.0, 0.1, 0.01, 0.001, 0.0001)  # strengths of the penalty, STimage-1K4M (Chen et al. 2024)
_CLASSIFIER_SEED: Final = 1
_MAX_ITER: Final = 10_000


@dataclass(frozen=True)
class ProbeScores:
    """What a linear probe found.

    Parameters
    ----------
    test
        Macro-F1 on the test part, one per split, (n_splits,).
    validation
        Macro-F1 on the validation part at the chosen penalty, (n_splits,).
    alpha
        The penalty with the best mean macro-F1 on the validation parts.
    n_spots
        Labelled spots with features.
    n_left_out
        Spots without a label or without features.
    classes
        The labels, sorted.
    """

    test: NDArray[np.float64]
    validation: NDArray[np.float64]
    alpha: float
    n_spots: int
    n_left_out: int
    classes: tuple[str, ...]


def linear_probe(
    features: NDArray[np.floating],
    labels: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    alphas: Sequence[float] = ALPHAS,
) -> ProbeScores:
    """Read labels from features by logistic regression, as STimage-1K4M (Chen et al. 2024) does.

    Spots are split 80 / 10 / 10 at random, once per seed. For each penalty a classifier is fitted by stochastic
    gradient descent with classes weighted to balance; the penalty with the best mean macro-F1 on the validation parts
    is scored on the test parts. Features are used as they are.

    Parameters
    ----------
    features
        Features, (n, d); spots with a NaN are left out.
    labels
        Label of each spot, (n,). Missing ones and those of `core.labels.NO_LABEL` are left out.
    groups
        Section or patient of each spot, (n,). With it, whole groups go to one part, so that neighbouring spots don't
        give the answer away; the published protocol splits spots.
    seeds
        One split each.
    alphas
        Penalties to try.

    Returns
    -------
    The scores.

    Raises
    ------
    ValueError
        If there are fewer than ten labelled spots, fewer than two labels, or fewer than three groups.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.probe import linear_probe
    >>> rng = np.random.default_rng(0)
    >>> labels = np.repeat(["a", "b"], 100)
    >>> features = rng.normal(size=(200, 3)) + 4 * (labels == "b")[:, None]
    >>> linear_probe(features, labels).test.mean() > 0.95
    np.True_
    """
    from sklearn.metrics import f1_score

    features = np.asarray(features)
    names = as_labels(labels)
    if len(features) != len(names):
        raise ValueError(message("Expected one label per spot", found=f"{len(names)} for {len(features)}"))
    kept = np.isfinite(features).all(axis=1) & np.array([name is not None for name in names], dtype=bool)
    x, y = features[kept], names[kept].astype(str)
    classes = np.unique(y)
    if len(y) < 10 or len(classes) < 2:
        found = f"{len(y)} spots of {len(classes)} labels"
        raise ValueError(message("Expected at least ten labelled spots of at least two labels", found=found))
    units = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups)[kept], return_inverse=True)[1]
    splits = [_split(units, seed) for seed in seeds]
    validation = np.empty((len(alphas), len(seeds)))
    test = np.empty_like(validation)
    for i, alpha in enumerate(alphas):
        for j, (train, held, last) in enumerate(splits):
            fitted = _fit(x[train], y[train], alpha)
            for scores, part in ((validation, held), (test, last)):
                scores[i, j] = f1_score(y[part], fitted.predict(x[part]), average="macro", zero_division=0.0)
    best = int(validation.mean(axis=1).argmax())
    return ProbeScores(test[best], validation[best], float(alphas[best]), len(y), int((~kept).sum()), tuple(classes))


def _split(units: NDArray[np.intp], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Positions of the training, validation and test spots: 80, 10 and 10 % of the units."""
    order = np.random.default_rng(seed).permutation(units.max() + 1)
    if len(order) < 3:
        raise ValueError(message("Expected at least three groups to split", found=len(order)))
    tenth = max(1, round(len(order) / 10))
    part = np.zeros(len(order), dtype=np.intp)
    part[order[:tenth]], part[order[tenth : 2 * tenth]] = 2, 1
    train, held, last = (np.flatnonzero(part[units] == k) for k in range(3))
    return train, held, last


def _fit(x: NDArray[np.floating], y: NDArray[np.str_], alpha: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import SGDClassifier

    classifier = SGDClassifier(
        loss="log_loss", penalty="l2", alpha=alpha, class_weight="balanced", max_iter=_MAX_ITER,
        random_state=_CLASSIFIER_SEED,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return classifier.fit(x, y)
