"""Folds of samples and of a reference: what is held out of it, and how well it is predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    Parts = list[tuple[np.ndarray, np.ndarray, bool]]


def deal(sizes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Deal whole samples to folds of about as many spots.

    Samples are shuffled and dealt in rounds of n; within a round the largest goes to the fold with the fewest spots.

    Parameters
    ----------
    sizes
        Spots of each sample, (s,).
    n
        How many folds, at most s.
    rng
        What samples are shuffled by.

    Returns
    -------
    The fold of each sample, (s,) intp; folds differ by at most one sample.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.folds import deal
    >>> np.bincount(deal(np.array([10, 10, 10, 10]), 2, np.random.default_rng(0))).tolist()
    [2, 2]
    """
    fold, total = np.empty(len(sizes), dtype=np.intp), np.zeros(n)
    order = rng.permutation(len(sizes))
    for start in range(0, len(sizes), n):
        some = order[start : start + n]
        some = some[np.argsort(-sizes[some], kind="stable")]
        fold[some] = np.argsort(total, kind="stable")[: len(some)]
        total[fold[some]] += sizes[some]
    return fold


def shrinkage(hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    r"""Choose the factor of each gene from held-out predictions.

    With :math:`h_f = \sum p y` and :math:`q_f = \sum p^2` of fold f, the best factor is
    :math:`\hat s = \sum h_f / \sum q_f`, the slope of the truth on the prediction. One standard error of that ratio
    over the folds is taken from it, since too large a factor costs more than too small a one.

    Parameters
    ----------
    hits
        Products of truth and prediction, summed in each fold, (folds, g).
    sizes
        Squared predictions, summed in each fold, (folds, g).

    Returns
    -------
    (g,) from 0 to 1; 0 where there are not two folds to learn it from.
    """
    n = len(hits)
    total = sizes.sum(axis=0)
    if n < 2:
        return np.zeros(hits.shape[1])
    safe = np.maximum(total, 1e-12)
    slope = hits.sum(axis=0) / safe
    error = np.sqrt(((hits - slope * sizes) ** 2).sum(axis=0) * n / (n - 1)) / safe
    return np.where(total > 1e-12, np.clip(slope - error, 0.0, 1.0), 0.0)


def splits(groups: np.ndarray, folds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Divide a reference, fold by fold.

    Parameters
    ----------
    groups
        The section of each spot, (n,).
    folds
        The fold of each spot, (n,).

    Yields
    ------
    The rows to fit and the rows held out, (n,) bool each, and whether these are whole sections; nothing for one fold.
    """
    if len(np.unique(folds)) < 2:
        return
    for fold in np.unique(folds):
        test = folds == fold
        yield ~test, test, not np.isin(groups[~test], groups[test]).any()


def agreement(truth: np.ndarray, pattern: np.ndarray, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Sum truth times prediction, and prediction squared, over the spots of each fold.

    Parameters
    ----------
    truth
        Deviations of the expression, (n, g).
    pattern
        What was predicted of them on held-out folds, (n, g).
    parts
        The folds, from `splits`.

    Returns
    -------
    Both (folds, g).
    """
    tests = [test for _, test, _ in parts]
    shape = (len(tests), truth.shape[1])
    hits = np.array([(truth[test] * pattern[test]).sum(axis=0) for test in tests]).reshape(shape)
    sizes = np.array([(pattern[test].astype(np.float64) ** 2).sum(axis=0) for test in tests]).reshape(shape)
    return hits, sizes
