"""Rings of neighbours and the majority vote."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stalign.core.refine import majority_vote, neighbour_vote, ring_graph


def hexagonal(rows=8, columns=9, pitch=100.0):
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.column_stack([pitch * (x + 0.5 * (y % 2)), pitch * np.sqrt(3) / 2 * y])


def square(rows=7, columns=6, pitch=200.0):
    y, x = np.divmod(np.arange(rows * columns), columns)
    return np.column_stack([x, y]) * pitch


def slow_vote(labels, graph, passes):
    """Vote spot by spot."""
    labels = list(labels)
    for _ in range(passes):
        new = list(labels)
        for i, own in enumerate(labels):
            if own < 0:
                continue
            voters = [labels[j] for j in graph[i].indices if j != i and labels[j] >= 0] + [own]
            count = {label: voters.count(label) for label in voters}
            best = max(count.values())
            new[i] = own if count[own] == best else min(label for label in count if count[label] == best)
        labels = new
    return np.array(labels)


@pytest.mark.parametrize(("coords", "inner"), [(hexagonal(), 6), (square(), 4)], ids=["hexagonal", "square"])
@pytest.mark.parametrize("unit", [1.0, 1 / 137])
def test_rings_on_grids(coords, inner, unit):
    graph = ring_graph(coords * unit)
    degree = np.diff(graph.indptr)
    middle = (np.abs(coords - coords.mean(axis=0)) < 0.3 * np.ptp(coords, axis=0)).all(axis=1)
    assert (degree[middle] == inner).all() and degree.max() == inner
    assert (graph != graph.T).nnz == 0 and graph.diagonal().sum() == 0


def test_rings_survive_jitter_and_do_not_reach_the_invalid():
    coords = square()
    coords += np.random.default_rng(0).uniform(-10, 10, coords.shape)
    coords[4] = np.nan
    graph = ring_graph(coords).tocoo()
    assert 4 not in graph.row and 4 not in graph.col
    assert np.bincount(graph.row, minlength=len(coords)).max() == 4


@pytest.mark.parametrize("n", [0, 1])
def test_no_neighbours(n):
    assert ring_graph(np.zeros((n, 2))).nnz == 0


@pytest.mark.parametrize("passes", [0, 1, 2, 5])
def test_vote_is_the_literal_one(passes):
    rng = np.random.default_rng(passes)
    graph = ring_graph(hexagonal(12, 12))
    labels = rng.integers(-1, 4, 144)
    weighted = graph.astype(float)
    weighted.data[:] = rng.uniform(0.1, 9, weighted.nnz)  # weights do not count
    np.testing.assert_array_equal(majority_vote(labels, weighted, passes=passes), slow_vote(labels, graph, passes))


def test_vote_removes_specks_and_keeps_regions():
    coords = hexagonal(12, 12)
    truth = (coords[:, 0] > coords[:, 0].mean()).astype(int)
    labels = truth.copy()
    specks = [38, 74, 106]  # away from the border
    labels[specks] = 1 - labels[specks]
    np.testing.assert_array_equal(majority_vote(labels, ring_graph(coords))[specks], truth[specks])


def test_a_tie_with_its_own_label_changes_nothing():
    line = sparse.diags([1.0, 1.0], [-1, 1], shape=(4, 4)).tocsr()
    np.testing.assert_array_equal(majority_vote(np.array([0, 0, 1, 1]), line), [0, 0, 1, 1])


def test_vote_checks_and_leaves_its_input_alone():
    labels = np.array([0, 1])
    with pytest.raises(ValueError, match="2 by 2"):
        majority_vote(labels, sparse.csr_matrix((3, 3)))
    with pytest.raises(ValueError, match="passes"):
        majority_vote(labels, sparse.csr_matrix((2, 2)), passes=-1)
    np.testing.assert_array_equal(majority_vote(np.array([-1, -1]), sparse.csr_matrix((2, 2))), [-1, -1])
    graph = sparse.csr_matrix(np.ones((2, 2)))
    majority_vote(labels, graph)
    np.testing.assert_array_equal(graph.toarray(), 1)


def test_the_nearest_vote_without_the_spot_itself():
    square = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
    labels = np.zeros(25, dtype=int)
    labels[12] = 1
    assert neighbour_vote(labels, square, 4).tolist() == [0] * 25
    line = np.stack([np.arange(6.0), np.zeros(6)], axis=1)
    assert neighbour_vote(np.array([0, 0, 2, 1, 1, 1]), line, 2).tolist() == [0, 0, 2, 1, 1, 1]  # a tie keeps its own
    turned = neighbour_vote(np.array([1, 1, 1, 2, 0, 0]), line[::-1], 2)
    assert turned.tolist() == [1, 1, 1, 2, 0, 0]


def test_spots_without_label_or_place_neither_vote_nor_change():
    line = np.stack([np.arange(5.0), np.zeros(5)], axis=1)
    line[1] = np.nan
    assert neighbour_vote(np.array([0, 1, 0, -1, 1]), line, 2).tolist() == [0, 1, 0, -1, 0]
    assert neighbour_vote(np.array([3, -1]), line[[0, 2]]).tolist() == [3, -1]
