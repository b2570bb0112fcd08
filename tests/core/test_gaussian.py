from __future__ import annotations

import numpy as np
import pytest

from stalign.core.gaussian import gaussian_graph


def hexagonal(rows, columns, *, pitch=100.0):
    y, x = np.mgrid[:rows, :columns].astype(float)
    return np.stack([(x + 0.5 * (y % 2)) * pitch, y * pitch * np.sqrt(3) / 2], axis=-1).reshape(-1, 2)


def square(rows, columns):
    y, x = np.mgrid[:rows, :columns].astype(float)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def literal_gaussian(coords, sigma):
    squares = np.square(coords[:, None] - coords).sum(axis=-1)
    weights = np.exp(-squares / 2 / sigma**2) * (squares <= 9 * sigma**2)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("coords", [hexagonal(12, 9), 200 * square(7, 6)], ids=["Visium", "legacy"])
def test_gaussian_weights_are_those_of_all_distances(coords):
    graph = gaussian_graph(coords, 80.0)
    np.testing.assert_allclose(graph.toarray(), literal_gaussian(coords, 80.0), atol=1e-6)
    assert graph.dtype == np.float32
    assert graph.has_sorted_indices


def test_a_gaussian_mean_takes_all_or_none_of_equally_far_spots():
    coords = 8 * square(15, 15)  # bins of 8 µm, many more within reach than are taken
    graph = gaussian_graph(coords, 80.0, max_spots=11)
    middle = graph[[7 * 15 + 7]]
    steps = np.abs(coords[middle.indices] - coords[7 * 15 + 7]) / 8
    assert sorted(np.square(steps).sum(axis=1)) == [0, 1, 1, 1, 1, 2, 2, 2, 2]  # not two of the four at 4
    order = np.random.default_rng(0).permutation(len(coords))
    mixed = gaussian_graph(coords[order], 80.0, max_spots=11)
    np.testing.assert_allclose(mixed.toarray(), graph.toarray()[order][:, order], atol=1e-7)


def test_spots_without_place_have_no_gaussian_mean():
    coords = np.array([[0.0, 0.0], [np.nan, 0.0], [100.0, 0.0], [900.0, 0.0]])
    graph = gaussian_graph(coords, 80.0).toarray()
    np.testing.assert_allclose(graph.sum(axis=1), [1, 0, 1, 1], atol=1e-6)
    assert (graph[:, 1] == 0).all()
    assert graph[3, 3] == 1
    assert gaussian_graph(np.full((3, 2), np.nan), 80.0).nnz == 0


def test_many_spots_at_one_place_share_their_mean():
    graph = gaussian_graph(np.zeros((9, 2)), 80.0, max_spots=4).toarray()
    np.testing.assert_allclose(graph.sum(axis=1), 1, atol=1e-6)
    assert (graph[graph > 0] == graph.max()).all()


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_a_gaussian_needs_a_spread(sigma):
    with pytest.raises(ValueError, match="sigma"):
        gaussian_graph(np.zeros((3, 2)), sigma)
