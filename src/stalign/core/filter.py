"""The spatial filter: keep of each pattern of expression as much as a spot shares with its neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHUNK: Final = 65_536  # spots in double precision at one time


def spatial_filter(
    scores: NDArray[np.float32], graph: sp.csr_matrix, *, power: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    r"""Find the linear filter that shrinks patterns of expression which neighbours do not share.

    Whitened scores :math:`z` of a spot are correlated with the mean :math:`\bar z` over the other spots of its niche.
    The eigenvectors of :math:`R = \mathrm{sym}(E[z \bar z^T])` are the patterns, and their eigenvalues
    :math:`\lambda` are the correlations of a spot with its niche: the linear optimum of a spot-niche alignment
    (workshop eq. 11) at high temperature. Each pattern is multiplied by :math:`\lambda^{power}` and the result is
    taken back to the scale of the scores.

    Parameters
    ----------
    scores
        Scores of the spots, centred, (n, r).
    graph
        Niches, CSR (n, n), rows sum to 1; whether a spot is in its own niche does not matter.
    power
        Exponent of the correlations; 0 filters nothing.

    Returns
    -------
    The filter, (r, r) float32, to be applied as ``scores @ filter``, and the correlations, (r,) float32, descending.
    With no more than r spots in niches with others, nothing is filtered: the identity and ones.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp
    >>> from stalign.core.filter import spatial_filter
    >>> rng = np.random.default_rng(0)
    >>> smooth = np.sin(np.arange(400) / 30)
    >>> scores = np.stack([smooth, rng.normal(size=400)], axis=1).astype("float32")
    >>> chain = sp.diags([0.5, 0.5], [-1, 1], shape=(400, 400)).tocsr()
    >>> matrix, correlations = spatial_filter(scores, chain)
    >>> bool(matrix[0, 0] > 0.95), bool(abs(matrix[1, 1]) < 0.1)
    (True, True)
    """
    n, r = scores.shape
    identity = np.eye(r, dtype=np.float32)
    others = (graph - sp.diags(graph.diagonal())).tocsr()
    weight = np.asarray(others.sum(axis=1)).ravel()
    paired = weight > 0
    if power == 0 or r == 0 or paired.sum() <= r:
        return identity, np.ones(r, np.float32)
    rows = np.flatnonzero(paired)
    covariance, cross = np.zeros((r, r)), np.zeros((r, r))
    for part in np.split(rows, range(_CHUNK, len(rows), _CHUNK)):
        spots = scores[part].astype(np.float64)
        partners = np.asarray(others[part] @ scores, np.float64) / weight[part, None]
        covariance += spots.T @ spots / len(rows)
        cross += spots.T @ partners / len(rows)
    covariance += np.eye(r) * (1e-6 * np.trace(covariance) / r + 1e-12)
    variance, axes = np.linalg.eigh(covariance)
    whiten = axes / np.sqrt(variance) @ axes.T  # (r, r), C^-1/2
    colour = axes * np.sqrt(variance) @ axes.T  # (r, r), C^1/2
    shared = whiten @ cross @ whiten
    correlations, patterns = np.linalg.eigh((shared + shared.T) / 2)
    correlations = np.clip(correlations, 0, 1)
    matrix = whiten @ (patterns * correlations**power) @ patterns.T @ colour
    return matrix.astype(np.float32), correlations[::-1].astype(np.float32)
