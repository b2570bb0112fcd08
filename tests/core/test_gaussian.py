from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stalign.core.gaussian import GaussianMean, gaussian_graph, gaussian_mean, spread


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


def turned(coords, angle=0.3):
    return coords @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def masked(coords, *, missing=0.1, seed=0):
    """Positions with a hole, a ragged border and single bins missing, and which of them have counts."""
    rng = np.random.default_rng(seed)
    middle = coords.mean(axis=0)
    kept = rng.random(len(coords)) > missing
    kept &= np.hypot(*(coords - middle - 90).T) > 100  # a hole
    kept &= np.hypot(*(coords - middle).T) < np.ptp(coords[:, 0]) / 2 * (0.9 + 0.1 * rng.random(len(coords)))
    coords = coords[kept]
    return coords, rng.random(len(coords)) > 0.3


@pytest.mark.parametrize(
    ("pitch", "members", "reach", "sd"),
    [(200, 5, 200, 54.7), (100, 21, 223.7, 79.4), (16, 709, 240, 77.8), (8, 2821, 240, 77.9)],
)
def test_a_gaussian_reaches_three_deviations_whatever_the_pitch(pitch, members, reach, sd):
    half = int(260 / pitch) + 1
    coords = float(pitch) * (square(2 * half + 1, 2 * half + 1) - half)
    middle = len(coords) // 2
    distance = np.hypot(*coords.T)
    for mean in (gaussian_graph(coords, 80.0), gaussian_mean(coords, 80.0)):
        weights = row_of(mean, middle, coords)
        assert (weights > 0.005 * weights.max()).sum() == pytest.approx(members, rel=0.02)
        assert distance[weights > 0.005 * weights.max()].max() == pytest.approx(reach, abs=12)
        assert np.sqrt((weights * distance**2).sum() / 2) == pytest.approx(sd, abs=0.6)
        assert weights.sum() == pytest.approx(1, abs=1e-4)


def row_of(mean, row, coords):
    """Weights of one spot, from what the mean makes of an impulse at each of the others."""
    if sparse.issparse(mean):
        return mean[[row]].toarray()[0]
    # by symmetry: an impulse at the spot, times the sums of weights
    impulse = np.zeros((len(coords), 1))
    impulse[row] = 1
    weights = (mean @ impulse)[:, 0] * mean._weight
    return weights / mean._weight[row]


def test_spots_without_place_have_no_gaussian_mean():
    coords = np.array([[0.0, 0.0], [np.nan, 0.0], [100.0, 0.0], [900.0, 0.0]])
    graph = gaussian_graph(coords, 80.0).toarray()
    np.testing.assert_allclose(graph.sum(axis=1), [1, 0, 1, 1], atol=1e-6)
    assert (graph[:, 1] == 0).all()
    assert graph[3, 3] == 1
    assert gaussian_graph(np.full((3, 2), np.nan), 80.0).nnz == 0


def test_many_spots_at_one_place_share_their_mean():
    graph = gaussian_graph(np.zeros((9, 2)), 80.0).toarray()
    np.testing.assert_allclose(graph, 1 / 9, atol=1e-6)
    mean = gaussian_mean(np.zeros((400, 2)), 80.0)
    assert isinstance(mean, GaussianMean)
    np.testing.assert_allclose(mean @ np.arange(400.0)[:, None], 199.5, rtol=1e-6)


@pytest.mark.parametrize(("pitch", "pairs"), [(200, True), (100, True), (25, True), (16, False), (8, False)])
def test_pairs_are_kept_where_few_are_in_reach(pitch, pairs):
    coords = pitch * square(60, 60)
    assert sparse.issparse(gaussian_mean(coords, 80.0)) == pairs


@pytest.mark.parametrize("kind", ["8 µm", "8 µm, turned", "16 µm", "cells"])
def test_means_on_the_grid_are_those_over_all_pairs(kind):
    rng = np.random.default_rng(1)
    if kind == "cells":
        coords = rng.uniform(0, 900, (5000, 2))
    else:
        pitch = float(kind.split()[0])
        coords = pitch * square(*2 * [int((1000 if pitch == 16 else 560) / pitch)])
        coords = turned(coords) if "turned" in kind else coords
    coords, members = masked(coords)
    mean, graph = gaussian_mean(coords, 80.0, members=members), gaussian_graph(coords, 80.0, members=members)
    assert isinstance(mean, GaussianMean)
    domain = np.sin(coords[:, 0] / 90) + np.cos(coords[:, 1] / 130) > 0
    values = np.column_stack([domain, domain + rng.normal(size=len(coords)), rng.normal(size=len(coords))])
    values = values.astype(np.float32)
    values[~members] = np.nan  # nobody asks for those
    found, expected = mean @ values, graph[:, members] @ values[members]
    assert found.dtype == np.float32
    error = np.abs(found - expected) / expected.std(axis=0)
    assert (error.max(axis=0) < [0.005, 0.01, 0.03]).all()
    assert (np.sqrt(np.square(error).mean(axis=0)) < [0.001, 0.002, 0.006]).all()
    np.testing.assert_array_equal(mean.has_members, np.diff(graph.indptr) > 0)
    assert spread(mean, coords) == pytest.approx(spread(graph, coords), rel=0.002)


def test_means_of_bins_of_2_um_are_those_over_all_pairs():
    coords, members = masked(2 * turned(square(260, 260)))
    mean, rows = gaussian_mean(coords, 80.0, members=members), np.arange(0, len(coords), 1500)
    values = np.sin(coords / [60, 45]).astype(np.float32)
    error = (mean @ values)[rows] - mean.rows(rows) @ values
    assert np.abs(error).max() < 0.002
    assert spread(mean, coords) > 0.85 * 80


def test_bins_far_from_counts_have_no_mean_on_the_grid_either():
    coords = 8 * square(60, 150)
    members = coords[:, 0] < 300
    mean = gaussian_mean(coords, 80.0, members=members)
    assert isinstance(mean, GaussianMean)
    assert mean.has_members[coords[:, 0] < 535].all()
    assert not mean.has_members[coords[:, 0] > 537].any()
    means = mean @ np.ones((len(coords), 2), np.float32)
    np.testing.assert_allclose(means, mean.has_members[:, None] * np.ones(2), atol=1e-5)


def test_means_on_the_grid_do_not_depend_on_the_order_of_spots_or_on_far_ones():
    coords, members = masked(8 * square(70, 70))
    values = np.random.default_rng(0).normal(size=(len(coords), 3)).astype(np.float32)
    order = np.random.default_rng(1).permutation(len(coords))
    plain = gaussian_mean(coords, 80.0, members=members) @ values
    mixed = gaussian_mean(coords[order], 80.0, members=members[order]) @ values[order]
    np.testing.assert_allclose(mixed, plain[order], atol=1e-5)
    far = np.concatenate([coords, [[1e9, -1e9], [np.nan, 0]]])  # no grid as large as that
    more = gaussian_mean(far, 80.0, members=np.append(members, [True, True])) @ np.append(values, values[:2], axis=0)
    np.testing.assert_allclose(more[:-2], plain, atol=1e-3)
    np.testing.assert_allclose(more[-2:], [values[0], [0, 0, 0]], atol=1e-5)


def test_members_are_drawn_by_weight():
    coords, members = masked(8 * square(60, 60))
    mean = gaussian_mean(coords, 80.0, members=members)
    rows = np.array([5, 700, 701])
    drawn, exact = mean.draw(rows, 20_000, np.random.default_rng(0)), mean.rows(rows)
    np.testing.assert_allclose(drawn.sum(axis=1), 1, atol=1e-5)
    assert set(drawn.indices) <= set(exact.indices)
    distance = np.hypot(*(coords[None] - coords[rows][:, None]).T).T
    np.testing.assert_allclose((drawn.toarray() * distance).sum(1), (exact.toarray() * distance).sum(1), rtol=0.02)
    lone = gaussian_mean(coords, 80.0, members=np.zeros(len(coords), bool))
    assert lone[rows].nnz == 0


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_a_gaussian_needs_a_spread(sigma):
    with pytest.raises(ValueError, match="sigma"):
        gaussian_graph(np.zeros((3, 2)), sigma)
