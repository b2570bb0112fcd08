"""Smoothing of labels over space: rings of physical neighbours and a majority vote."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from stalign._validate import message
from stalign.core.niches import nearest

RING = 1.3  # times the pitch: between the first ring and the second of a hexagonal (1.73) and a square grid (1.41)


def ring_graph(coords: np.ndarray) -> sparse.csr_matrix:
    """Join each spot with the ring of spots around it: six on a hexagonal grid, four on a square one.

    Two spots are neighbours if they lie within 1.3 times the pitch, which is the median distance from a spot to the
    nearest other one.

    Parameters
    ----------
    coords
        Centres of the spots of one section, (n, 2), in any unit of length. A row with NaN is nobody's neighbour.

    Returns
    -------
    CSR (n, n) bool, symmetric, without the diagonal.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.refine import ring_graph
    >>> square = np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(-1, 2)
    >>> int(ring_graph(square)[4].sum())
    4
    """
    coords = np.asarray(coords, dtype=np.float64)
    rows = np.flatnonzero(np.isfinite(coords).all(axis=1))
    if len(rows) < 2:
        return sparse.csr_matrix((len(coords), len(coords)), dtype=bool)
    tree = cKDTree(coords[rows])
    pitch = float(np.median(tree.query(coords[rows], k=2)[0][:, 1]))
    i, j = rows[tree.query_pairs(RING * pitch, output_type="ndarray")].T
    values = np.ones(2 * len(i), dtype=bool)
    return sparse.csr_matrix((values, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(len(coords),) * 2)


def majority_vote(labels: np.ndarray, graph: sparse.csr_matrix, *, passes: int = 1) -> np.ndarray:
    """Give each spot the label that most of its neighbours and itself hold.

    All spots vote at once, and the next pass starts from the result. A spot keeps its label where that is among the
    most frequent ones; a tie between other labels goes to the lower one.

    Parameters
    ----------
    labels
        The label of each spot, (n,) int; -1 is no label, neither votes nor changes.
    graph
        Neighbours, CSR (n, n); every stored entry off the diagonal is one vote, whatever its value.
    passes
        How often to vote.

    Returns
    -------
    The new labels, (n,) intp.

    Raises
    ------
    ValueError
        If the graph is not n by n or `passes` is negative.
    """
    labels = np.asarray(labels).astype(np.intp)
    n = len(labels)
    if graph.shape != (n, n):
        raise ValueError(message(f"Expected a graph of {n} by {n} spots", found=str(graph.shape)))
    if passes < 0:
        raise ValueError(message("Expected `passes` from 0", found=str(passes)))
    rows = np.flatnonzero(labels >= 0)
    if len(rows) == 0:
        return labels
    links = sparse.csr_matrix(graph)[rows][:, rows].astype(np.int32)
    links.data[:] = 1
    links.setdiag(1)
    current = labels[rows]
    k = current.max() + 1
    for _ in range(passes):
        ballots = sparse.csr_matrix((np.ones(len(rows), np.int32), (np.arange(len(rows)), current)), (len(rows), k))
        votes = (links @ ballots).toarray()
        own = votes[np.arange(len(rows)), current]
        current = np.where(own == votes.max(axis=1), current, votes.argmax(axis=1))
    refined = labels.copy()
    refined[rows] = current
    return refined


def neighbour_vote(labels: np.ndarray, coords: np.ndarray, k: int = 5) -> np.ndarray:
    """Give each spot the label that most of its nearest spots hold, without a vote of its own, in one pass (HiBio-ST).

    Parameters
    ----------
    labels
        The label of each spot of one section, (n,) int; -1 is no label, neither votes nor changes.
    coords
        Their centres, (n, 2); a row with NaN neither votes nor changes.
    k
        How many spots vote, the nearest with labels.

    Returns
    -------
    The new labels, (n,) intp. Where two labels have most votes, a spot keeps its own.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.refine import neighbour_vote
    >>> line = np.array([[0.0, 0], [1, 0], [2, 0], [3, 0]])
    >>> neighbour_vote(np.array([0, 1, 0, 0]), line, 2).tolist()
    [0, 0, 0, 0]
    """
    refined = np.asarray(labels).astype(np.intp)
    rows = np.flatnonzero((refined >= 0) & np.isfinite(np.asarray(coords)).all(axis=1))
    if len(rows) < 2:
        return refined
    current, voters = refined[rows], nearest(np.asarray(coords)[rows], k)
    votes = np.zeros((len(rows), current.max() + 1), dtype=np.intp)
    np.add.at(votes, (np.repeat(np.arange(len(rows)), voters.shape[1]), current[voters].ravel()), 1)
    sole = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) == 1
    refined[rows] = np.where(sole, votes.argmax(axis=1), current)
    return refined
