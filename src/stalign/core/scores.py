"""Scores: how well two labellings agree, how compact a labelling is, how well genes are predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

MAX_SILHOUETTE = 10_000  # spots; a silhouette needs every pair, so more are sampled
AGREEMENT = ("ARI", "NMI", "homogeneity", "completeness")
CLASSIFICATION = ("accuracy", "macro_f1")
COMPACTNESS = ("silhouette", "calinski_harabasz", "davies_bouldin")


def agreement(truth: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compare two labellings of the same spots.

    ARI is the adjusted Rand index (Hubert and Arabie 1985, equation 5); NMI is mutual information over the arithmetic
    mean of both entropies. Homogeneity says whether a domain holds one true label, completeness whether a true label
    stays in one domain.

    Parameters
    ----------
    truth
        The true label of each spot, (n,).
    labels
        The domain of each spot, (n,).

    Returns
    -------
    ARI, NMI, homogeneity and completeness; NaN where there are no spots.

    Raises
    ------
    ValueError
        If the lengths differ.

    Examples
    --------
    >>> from stalign.core.scores import agreement
    >>> agreement(["a", "a", "b", "b"], ["2", "2", "1", "1"])["ARI"]
    1.0
    """
    from sklearn.metrics import adjusted_rand_score, homogeneity_completeness_v_measure

    truth, labels = np.asarray(truth), np.asarray(labels)
    if truth.shape != labels.shape:
        raise ValueError(message("Expected one label per spot", found=f"{truth.shape} and {labels.shape}"))
    if len(truth) == 0:
        return dict.fromkeys(AGREEMENT, float("nan"))
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(truth, labels)
    return {
        "ARI": float(adjusted_rand_score(truth, labels)),
        "NMI": float(v_measure),  # the harmonic mean of both is the arithmetic NMI
        "homogeneity": float(homogeneity),
        "completeness": float(completeness),
    }


def compactness(features: np.ndarray, labels: ArrayLike, *, random_state: int = 0) -> dict[str, float]:
    """Score a labelling by how well it separates the features, without a truth.

    Parameters
    ----------
    features
        Features, (n, d).
    labels
        The domain of each spot, (n,).
    random_state
        Seed of the sample of 10,000 spots that the silhouette is taken on where there are more.

    Returns
    -------
    silhouette (higher is better), calinski_harabasz (higher) and davies_bouldin (lower); NaN unless there are at least
    two domains and fewer domains than spots.
    """
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    labels = np.asarray(labels)
    if not 2 <= len(np.unique(labels)) < len(labels):
        return dict.fromkeys(COMPACTNESS, float("nan"))
    some = np.arange(len(labels))
    if len(labels) > MAX_SILHOUETTE:
        some = np.random.default_rng(random_state).choice(len(labels), MAX_SILHOUETTE, replace=False)
    several = 2 <= len(np.unique(labels[some])) < len(some)
    return {
        "silhouette": float(silhouette_score(features[some], labels[some])) if several else float("nan"),
        "calinski_harabasz": float(calinski_harabasz_score(features, labels)),
        "davies_bouldin": float(davies_bouldin_score(features, labels)),
    }


def match_labels(truth: ArrayLike, labels: ArrayLike) -> dict[str, str]:
    """Pair domains with true labels so that most spots agree (the Hungarian method).

    Parameters
    ----------
    truth
        The true label of each spot, (n,).
    labels
        The domain of each spot, (n,).

    Returns
    -------
    The true label of each domain that got one; no true label is given twice.

    Examples
    --------
    >>> from stalign.core.scores import match_labels
    >>> match_labels(["L1", "L1", "WM"], ["2", "2", "1"])
    {'1': 'WM', '2': 'L1'}
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    truth, labels = np.asarray(truth).astype(str), np.asarray(labels).astype(str)
    rows, columns = linear_sum_assignment(contingency_matrix(labels, truth), maximize=True)
    domains, names = np.unique(labels), np.unique(truth)
    return {str(domains[row]): str(names[column]) for row, column in zip(rows, columns, strict=True)}


def per_gene(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """Score predicted expression gene by gene.

    Parameters
    ----------
    truth
        Measured values, (n, g); a NaN is a value that was not measured, and is left out.
    predicted
        Predicted values, (n, g); a NaN is a spot that could not be predicted, and is left out.

    Returns
    -------
    mse, mae and pearson, each (g,) float64, and n, (g,) intp, the values compared. `pearson` is NaN where the truth
    does not vary, so that there is nothing to correlate with, and 0 where only the prediction does not vary, as a
    constant explains nothing; all three are NaN where nothing was measured.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    truth, predicted = np.asarray(truth, dtype=float), np.asarray(predicted, dtype=float)
    if truth.shape != predicted.shape:
        raise ValueError(message("Expected both of one shape", found=f"{truth.shape} and {predicted.shape}"))
    seen = np.isfinite(truth) & np.isfinite(predicted)
    n = seen.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(seen, predicted - truth, 0.0)
        x, y = (np.where(seen, value, 0.0) for value in (truth, predicted))
        x, y = (np.where(seen, value - value.sum(axis=0) / n, 0.0) for value in (x, y))
        flat_x, flat_y = (_flat(deviation, value, seen) for deviation, value in ((x, truth), (y, predicted)))
        pearson = (x * y).sum(axis=0) / np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
        pearson = np.where(flat_y, 0.0, np.clip(pearson, -1.0, 1.0))
        return {
            "mse": (error**2).sum(axis=0) / n,
            "mae": np.abs(error).sum(axis=0) / n,
            "pearson": np.where(flat_x | (n == 0), np.nan, pearson),
            "n": n,
        }


def _flat(deviation: np.ndarray, value: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Say which columns do not vary by more than rounding, (g,) bool."""
    size = np.abs(np.where(seen, value, 0.0)).max(axis=0, initial=0.0)
    return np.asarray(np.abs(deviation).max(axis=0, initial=0.0) <= 1e-6 * np.maximum(size, 1e-12))


def calibration_error(probability: np.ndarray, truth: np.ndarray, *, n_bins: int = 10) -> float:
    """Expected calibration error: how far confidence is from the share that is right, over bins of confidence.

    Parameters
    ----------
    probability
        Class probabilities, (n, k).
    truth
        The true class of each row, (n,) int.
    n_bins
        How many bins, of equal numbers of rows.

    Returns
    -------
    The mean distance, weighted by rows; NaN where there are none.
    """
    if not len(truth):
        return float("nan")
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    order = np.argsort(confidence, kind="stable")
    bins = [part for part in np.array_split(order, n_bins) if len(part)]
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in bins) / len(truth))


def classification(truth: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Compare labels with the true ones of the same names.

    Parameters
    ----------
    truth
        The true label of each spot, (n,).
    labels
        The label given, (n,).

    Returns
    -------
    accuracy, and macro_f1, the mean F1 of the true labels; NaN where there are no spots.
    """
    from sklearn.metrics import f1_score

    truth, labels = np.asarray(truth), np.asarray(labels)
    if len(truth) == 0:
        return dict.fromkeys(CLASSIFICATION, float("nan"))
    f1 = f1_score(truth, labels, labels=np.unique(truth), average="macro", zero_division=0.0)
    return {"accuracy": float((truth == labels).mean()), "macro_f1": float(f1)}
