from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from stalign.core import filter as module
from stalign.core.filter import spatial_filter
from stalign.core.niches import nearest, niche_graph


@pytest.fixture
def field():
    """Scores of 300 spots, some smooth in space and some not, mixed, and the niches."""
    rng = np.random.default_rng(0)
    xy = rng.random((300, 2))
    smooth = np.stack([np.sin(5 * xy[:, 0]), 0.5 * np.cos(7 * xy[:, 1])], axis=1)
    scores = np.concatenate([smooth, rng.normal(size=(300, 3)) * [1.5, 1.2, 0.2]], axis=1)
    scores = (scores - scores.mean(axis=0)) @ np.linalg.qr(rng.normal(size=(5, 5)))[0]
    return scores.astype(np.float32), niche_graph(nearest(xy, 4))


def literal(scores, graph, power):
    """The docstring, spot by spot."""
    weights, own, others = graph.toarray().astype(float), [], []
    for i in range(len(scores)):
        row = weights[i].copy()
        row[i] = 0
        if row.sum() > 0:
            own.append(scores[i].astype(float))
            others.append(row @ scores.astype(float) / row.sum())
    own, others = np.array(own), np.array(others)
    covariance = own.T @ own / len(own)
    r = len(covariance)
    covariance += np.eye(r) * (1e-6 * np.trace(covariance) / r + 1e-12)
    root = _power(covariance, 0.5)
    white = np.linalg.inv(root)
    pairs = sum(np.outer(z, other) for z, other in zip(own @ white, others @ white, strict=True)) / len(own)
    values, vectors = np.linalg.eigh((pairs + pairs.T) / 2)
    values = np.clip(values, 0, 1)
    return white @ vectors @ np.diag(values**power) @ vectors.T @ root, values[::-1]


def _power(matrix, exponent):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**exponent) @ vectors.T


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("include_self", [True, False])
def test_the_filter_is_what_the_docstring_says(field, power, include_self):
    scores, graph = field
    if not include_self:
        graph = graph - sp.diags(graph.diagonal())
    matrix, correlations = spatial_filter(scores, graph.tocsr(), power=power)
    expected, values = literal(scores, graph, power)
    np.testing.assert_allclose(matrix, expected, atol=2e-5)
    np.testing.assert_allclose(correlations, values, atol=1e-5)
    assert matrix.dtype == correlations.dtype == np.float32


def test_power_0_filters_nothing(field):
    matrix, _ = spatial_filter(*field, power=0)
    np.testing.assert_array_equal(matrix, np.eye(5))


def test_smooth_patterns_stay_and_noise_goes(field):
    scores, graph = field
    matrix, correlations = spatial_filter(scores, graph)
    assert (correlations[:2] > 0.8).all()
    assert (correlations[2:] < 0.3).all()
    noise, signal = (np.linalg.svd(values, full_matrices=False)[0][:, :2] for values in (scores, scores @ matrix))
    smooth = np.sin(5 * np.random.default_rng(0).random((300, 2))[:, 0])
    smooth = (smooth - smooth.mean()) / np.linalg.norm(smooth - smooth.mean())
    assert np.linalg.norm(smooth @ signal) > 0.95  # the two largest components hold the pattern
    assert np.linalg.norm(smooth @ noise) < 0.5  # where they did not before


def test_the_axes_of_the_scores_do_not_matter(field):
    scores, graph = field
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0].astype(np.float32)
    plain, turned = spatial_filter(scores, graph)[0], spatial_filter(scores @ turn, graph)[0]
    np.testing.assert_allclose(turned, turn.T @ plain @ turn, atol=1e-4)


def test_a_constant_column_does_no_harm(field):
    scores, graph = field
    matrix, correlations = spatial_filter(np.concatenate([scores, np.zeros((300, 1), np.float32)], axis=1), graph)
    assert np.isfinite(matrix).all()
    assert np.isfinite(correlations).all()
    np.testing.assert_allclose(matrix[:5, :5], spatial_filter(scores, graph)[0], atol=1e-4)
    np.testing.assert_allclose(matrix[5, :5], 0, atol=1e-6)


def test_all_constant_scores_do_no_harm(field):
    matrix, _ = spatial_filter(np.zeros((300, 3), np.float32), field[1])
    assert np.isfinite(matrix).all()


@pytest.mark.parametrize("n", [1, 4, 5])
def test_no_more_spots_than_components_filter_nothing(n):
    scores = np.random.default_rng(0).normal(size=(n, 5)).astype(np.float32)
    graph = niche_graph(nearest(np.random.default_rng(1).random((n, 2)), 3))
    matrix, correlations = spatial_filter(scores, graph)
    np.testing.assert_array_equal(matrix, np.eye(5))
    np.testing.assert_array_equal(correlations, np.ones(5))


def test_no_components_at_all(field):
    matrix, correlations = spatial_filter(np.zeros((300, 0), np.float32), field[1])
    assert matrix.shape == (0, 0)
    assert correlations.shape == (0,)


def test_spots_without_neighbours_are_left_out(field):
    scores, graph = field
    lone = sp.block_diag([graph, sp.identity(4), sp.csr_matrix((2, 2))]).tocsr()
    more = np.concatenate([scores, np.full((6, 5), 100, np.float32)])
    np.testing.assert_allclose(spatial_filter(more, lone)[0], spatial_filter(scores, graph)[0], atol=1e-6)


def test_the_order_of_spots_and_the_size_of_chunks_do_not_matter(field, monkeypatch):
    scores, graph = field
    expected, correlations = spatial_filter(scores, graph)
    monkeypatch.setattr(module, "_CHUNK", 7)
    order = np.random.default_rng(2).permutation(300)
    matrix, found = spatial_filter(scores[order], graph[order][:, order])
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    np.testing.assert_allclose(found, correlations, atol=1e-5)


def test_the_input_stays_as_it_is(field):
    scores, graph = field
    before = scores.copy(), graph.copy()
    spatial_filter(scores, graph)
    np.testing.assert_array_equal(scores, before[0])
    assert abs(graph - before[1]).nnz == 0
