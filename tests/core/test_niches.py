from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stalign.core.niches import Niche, members, nearest, niche_graph, niche_mean


def brute(coords, k):
    """All distances, sorted by distance, then from top to bottom, from left to right, and by index."""
    x, y = coords.T
    distance = np.sqrt((x[:, None] - x) ** 2 + (y[:, None] - y) ** 2).round(6)
    np.fill_diagonal(distance, np.inf)
    index = np.arange(len(coords))
    return np.stack([np.lexsort([index, x.round(6), y.round(6), row])[:k] for row in distance])


def hexagonal(rows, columns, *, pitch=100.0):
    y, x = np.mgrid[:rows, :columns].astype(float)
    return np.stack([(x + 0.5 * (y % 2)) * pitch, y * pitch * np.sqrt(3) / 2], axis=-1).reshape(-1, 2)


def square(rows, columns):
    y, x = np.mgrid[:rows, :columns].astype(float)
    return np.stack([x, y], axis=-1).reshape(-1, 2)


_RNG = np.random.default_rng(0)
_LAYOUTS = {
    "random": _RNG.random((400, 2)) * 1000,
    "hexagonal": hexagonal(20, 20),
    "hexagonal in whole px": np.round(hexagonal(20, 20, pitch=137)),
    "hexagonal, shuffled": _RNG.permutation(np.round(hexagonal(20, 20))),
    "square": square(20, 20),
    "few places": _RNG.integers(0, 5, (300, 2)).astype(float),
    "one place": np.ones((40, 2)),
    "two places": np.repeat([[0.0, 0.0], [3.0, 4.0]], [30, 2], axis=0),
    "line": np.stack([np.arange(50.0), np.zeros(50)], axis=1),
}


@pytest.mark.parametrize("k", [1, 3, 6, 7, 18])
@pytest.mark.parametrize("layout", _LAYOUTS)
def test_nearest_is_brute_force(layout, k):
    coords = _LAYOUTS[layout]
    np.testing.assert_array_equal(nearest(coords, k), brute(coords, k))


def test_nearest_resolves_ties_that_reach_past_the_first_query():
    # All whole-numbered points of a circle are equally far from its centre.
    circle = [[x, y] for x in range(-65, 66) for y in range(-65, 66) if x * x + y * y == 65**2]
    assert len(circle) > 30
    coords = np.array([*circle, [0, 0]], dtype=float)
    topmost = np.lexsort(coords[:-1].T)[:3]
    np.testing.assert_array_equal(nearest(coords, 3)[-1], topmost)
    np.testing.assert_array_equal(nearest(coords[::-1], 3)[0], len(coords) - 1 - topmost)
    np.testing.assert_array_equal(nearest(coords, 3), brute(coords, 3))


@pytest.mark.parametrize("layout", [name for name in _LAYOUTS if "place" not in name])
@pytest.mark.parametrize("ties", ["position", "all"])
def test_the_order_of_the_spots_makes_no_difference(layout, ties):
    coords = _LAYOUTS[layout]
    order = np.random.default_rng(1).permutation(len(coords))
    for shift in (0.0, 1e-9):  # as after a coordinate transformation and back
        moved = coords[order] * (1 + shift) + shift
        found, plain = Niche(3, ties=ties).graph(moved), Niche(3, ties=ties).graph(coords)
        assert abs(found - plain[order][:, order]).max() < 1e-6


@pytest.mark.parametrize(
    ("coords", "inner"), [(hexagonal(7, 7), 6), (square(7, 7), 4), (np.round(hexagonal(7, 7, pitch=137)), 6)]
)
def test_all_that_are_as_near_make_niches_symmetric(coords, inner):
    graph = Niche(3, ties="all").graph(coords)
    members = np.diff(graph.indptr)
    middle = np.abs(coords - np.median(coords, axis=0)).sum(axis=1).argmin()
    assert members[middle] == inner + 1
    neighbours = coords[graph[middle].indices]
    np.testing.assert_allclose(neighbours.mean(axis=0), coords[middle], atol=1)
    np.testing.assert_allclose(graph.sum(axis=1), 1, rtol=1e-6)


def test_niche_checks_its_parameters():
    with pytest.raises(ValueError, match="`ties` to be one of.*'position', 'all'"):
        Niche(ties="first")
    with pytest.raises(TypeError, match="whole number"):
        Niche(2.5)


def test_nearest_leaves_out_spots_without_coordinates():
    coords = hexagonal(6, 6)
    gone = np.array([0, 7, 8, 20])
    holes = coords.copy()
    holes[gone[:2]] = np.nan
    holes[gone[2], 1] = np.nan
    holes[gone[3], 0] = np.inf
    kept = np.setdiff1d(np.arange(36), gone)
    found = nearest(holes, 3)
    assert (found[gone] == -1).all()
    np.testing.assert_array_equal(found[kept], kept[brute(coords[kept], 3)])


@pytest.mark.parametrize(
    ("n", "k", "shape"), [(0, 3, (0, 0)), (1, 3, (1, 0)), (2, 3, (2, 1)), (4, 3, (4, 3)), (3, 9, (3, 2))]
)
def test_nearest_of_few_spots_takes_all(n, k, shape):
    coords = np.arange(2.0 * n).reshape(n, 2)
    found = nearest(coords, k)
    assert found.shape == shape
    for spot, row in enumerate(found):
        assert set(row) == set(np.setdiff1d(np.arange(n), spot)) if k >= n - 1 else len(set(row)) == k


def test_nearest_pads_where_few_have_coordinates():
    coords = np.full((5, 2), np.nan)
    assert (nearest(coords, 3) == -1).all()
    coords[2] = 1
    assert (nearest(coords, 3) == -1).all()
    coords[4] = 2
    np.testing.assert_array_equal(nearest(coords, 3)[[2, 4]], [[4, -1, -1], [2, -1, -1]])


def test_nearest_does_not_change_its_input():
    coords = _LAYOUTS["random"].copy()
    nearest(coords, 3)
    np.testing.assert_array_equal(coords, _LAYOUTS["random"])


def test_nearest_copes_with_very_many_at_one_place():
    coords = np.zeros((20_000, 2))
    found = nearest(coords, 3)
    np.testing.assert_array_equal(found[:5], [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2]])
    assert (found[5:] == [0, 1, 2]).all()


def test_nearest_rejects_what_it_cannot_use():
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        nearest(np.zeros((4, 3)), 3)
    with pytest.raises(ValueError, match="at least 1 neighbour"):
        nearest(np.zeros((4, 2)), 0)


@pytest.mark.parametrize("include_self", [True, False])
def test_niche_graph_is_the_mean_of_the_niche(include_self):
    coords = _LAYOUTS["random"]
    neighbours = nearest(coords, 3)
    counts = np.random.default_rng(1).poisson(2, (len(coords), 30)).astype(float)
    graph = niche_graph(neighbours, include_self=include_self)
    expected = [counts[[*([spot] if include_self else []), *row]].mean(axis=0) for spot, row in enumerate(neighbours)]
    np.testing.assert_allclose(graph @ counts, expected, rtol=1e-6)
    assert graph.format == "csr"
    assert graph.dtype == np.float32
    assert graph.has_sorted_indices
    assert graph.nnz == len(coords) * (3 + include_self)
    np.testing.assert_allclose(graph.sum(axis=1), 1, rtol=1e-6)


def test_niche_graph_of_spots_with_fewer_neighbours():
    neighbours = np.array([[1, 2], [0, -1], [-1, -1], [1, 0]])
    expected = [[1 / 3, 1 / 3, 1 / 3, 0], [1 / 2, 1 / 2, 0, 0], [0, 0, 0, 0], [1 / 3, 1 / 3, 0, 1 / 3]]
    np.testing.assert_allclose(niche_graph(neighbours).toarray(), expected, rtol=1e-6)


def test_a_lone_spot_is_its_own_niche():
    for include_self in (True, False):
        assert niche_graph(nearest(np.zeros((1, 2)), 3), include_self=include_self).toarray() == [[1]]
        alone = niche_graph(np.array([[-1], [-1]]), include_self=include_self, valid=np.array([True, False]))
        np.testing.assert_array_equal(alone.toarray(), [[1, 0], [0, 0]])


def test_niche_graph_checks_shapes():
    with pytest.raises(ValueError, match=r"shape \(n, k\)"):
        niche_graph(np.arange(3))
    with pytest.raises(ValueError, match=r"`valid` of shape \(2,\)"):
        niche_graph(np.array([[1], [0]]), valid=np.ones(3, dtype=bool))


def test_members_are_the_niche():
    neighbours = np.array([[3, 1], [0, -1], [-1, -1], [1, 0]])
    found = members(niche_graph(neighbours))
    np.testing.assert_array_equal(found, [[0, 1, 3], [0, 1, -1], [-1, -1, -1], [0, 1, 3]])
    assert members(sparse.csr_matrix((2, 2))).shape == (2, 0)


def test_niche_mean_is_the_same_sparse_and_dense():
    graph = niche_graph(nearest(_LAYOUTS["random"], 3))
    counts = sparse.random(400, 50, density=0.1, format="csc", random_state=0)
    as_sparse, as_dense = niche_mean(graph, counts), niche_mean(graph, counts.toarray())
    assert as_sparse.format == "csr"
    assert as_sparse.dtype == as_dense.dtype == np.float32
    np.testing.assert_allclose(as_sparse.toarray(), as_dense, rtol=1e-5)
    with pytest.raises(ValueError, match="400 spots"):
        niche_mean(graph, counts[:10])
