"""Smoothing of class probabilities over space: mean field of a Potts model."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from stalign._validate import message

N_ITER = 10
_LEAST = 1e-6  # probability below which evidence against a class is cut off


def mean_field(
    log_probability: np.ndarray,
    graph: sparse.csr_matrix,
    strength: float,
    *,
    given: np.ndarray | None = None,
    n_iter: int = N_ITER,
) -> np.ndarray:
    """Let each spot's class depend on its neighbours', in a number of damped passes over all spots at once.

    Parameters
    ----------
    log_probability
        Log of the class probabilities of each spot on its own, (n, k).
    graph
        Neighbours, CSR (n, n), symmetric, without the diagonal.
    strength
        Gain in log-odds for a class by each neighbour that holds it; 0 leaves the probabilities as they are.
    given
        The class of each spot, (n,) int, -1 where it is not known; known ones are held.
    n_iter
        Passes.

    Returns
    -------
    Probabilities, (n, k), rows sum to 1.

    Raises
    ------
    ValueError
        If the graph is not n by n, or `strength` is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> from stalign.core.mean_field import mean_field
    >>> pair = sparse.csr_matrix([[0, 1], [1, 0]])
    >>> mean_field(np.log([[0.9, 0.1], [0.4, 0.6]]), pair, 1.0).argmax(axis=1)
    array([0, 0])
    """
    n, k = log_probability.shape
    if graph.shape != (n, n):
        raise ValueError(message(f"Expected a graph of {n} by {n} spots", found=str(graph.shape)))
    if not (np.isfinite(strength) and strength >= 0):
        raise ValueError(message("Expected a strength of 0 or more", found=strength))
    evidence = np.maximum(softmax_log(log_probability), np.log(_LEAST))
    held = np.flatnonzero(given >= 0) if given is not None else np.empty(0, dtype=np.intp)
    fixed = np.eye(k)[given[held]] if given is not None else np.empty((0, k))
    current = np.exp(softmax_log(evidence))
    current[held] = fixed
    if strength == 0:
        return np.asarray(current)
    links = sparse.csr_matrix(graph, dtype=np.float64)
    for _ in range(n_iter):
        field = evidence + strength * (links @ current)
        current = (current + np.exp(softmax_log(field))) / 2
        current[held] = fixed
    return np.asarray(current)


def softmax_log(scores: np.ndarray) -> np.ndarray:
    """Log of the softmax of each row, (n, k)."""
    from scipy.special import log_softmax

    return np.asarray(log_softmax(scores, axis=1))
