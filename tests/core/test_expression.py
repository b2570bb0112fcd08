from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy import sparse

import stalign
from stalign.core.expression import LowRank, fit_low_rank, normalise
from stalign.core.niches import nearest, niche_graph


def expression(n, g, *, rank=8, seed=0):
    """Sparse matrix with some structure."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(0.3, 1.0, (n, rank)) @ rng.gamma(0.3, 1.0, (rank, g))
    return normalise(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))


def full(matrix):
    """Singular values and right vectors of the centred matrix, in double precision."""
    dense = matrix.toarray().astype(np.float64)
    _, values, vectors = np.linalg.svd(dense - dense.mean(axis=0), full_matrices=False)
    return values, vectors


def test_normalise_is_log1p_of_counts_per_target():
    counts = np.array([[1, 3, 0], [0, 0, 0], [10, 0, 30]])
    found = normalise(sparse.csr_matrix(counts), target=100)
    np.testing.assert_allclose(found.toarray(), np.log1p([[25, 75, 0], [0, 0, 0], [25, 0, 75]]), rtol=1e-6)
    assert found.dtype == np.float32
    assert found.format == "csr"


def test_normalise_by_given_totals():
    counts = sparse.csc_matrix(np.array([[1, 3], [2, 0], [4, 4]], dtype=np.int32))
    found = normalise(counts, np.array([10, 0, 8]))
    np.testing.assert_allclose(found.toarray(), np.log1p([[1000, 3000], [0, 0], [5000, 5000]]), rtol=1e-6)


def test_normalise_leaves_its_input_alone():
    counts = sparse.csr_matrix(np.array([[1.0, 3.0]]))
    found = normalise(counts)
    found.data[:] = -1
    found.indices[:] = 0
    np.testing.assert_array_equal(counts.toarray(), [[1, 3]])


@pytest.mark.parametrize("totals", [np.array([1.0]), np.array([1.0, np.nan]), np.array([1.0, -2.0])])
def test_normalise_rejects_bad_totals(totals):
    with pytest.raises(ValueError, match="Expected totals"):
        normalise(sparse.csr_matrix(np.ones((2, 2))), totals)


@pytest.mark.parametrize(("n", "g", "rank"), [(300, 500, 20), (1500, 120, 30), (60, 900, 20), (700, 900, 50)])
def test_low_rank_is_the_principal_components(n, g, rank):
    matrix = expression(n, g)
    low_rank = fit_low_rank(matrix, rank)
    values, vectors = full(matrix)
    found = np.sqrt((low_rank.scores(matrix).astype(np.float64) ** 2).sum(axis=0)) * low_rank.scale
    np.testing.assert_allclose(found, values[:rank], rtol=2e-3)
    assert np.abs((low_rank.basis[:5] * vectors[:5]).sum(axis=1)).min() > 0.999
    np.testing.assert_allclose(low_rank.mean, matrix.toarray().mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(low_rank.basis @ low_rank.basis.T, np.eye(rank), atol=1e-5)
    assert low_rank.mean.dtype == low_rank.basis.dtype == np.float32


def test_scores_are_centred_projections_with_unit_mean_square_norm():
    matrix = expression(300, 200)
    low_rank = fit_low_rank(matrix, 10)
    scores = low_rank.scores(matrix)
    assert scores.dtype == np.float32
    expected = (matrix.toarray() - low_rank.mean) @ low_rank.basis.T / low_rank.scale
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(low_rank.scores(matrix.toarray()), expected, atol=1e-5)
    assert np.mean((scores.astype(np.float64) ** 2).sum(axis=1)) == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)


def test_scores_of_a_niche_mean_are_the_mean_of_the_scores():
    matrix = expression(100, 80)
    low_rank = fit_low_rank(matrix, 6)
    mean = sparse.csr_matrix(np.full((1, 4), 0.25, dtype=np.float32))
    np.testing.assert_allclose(
        low_rank.scores(mean @ matrix[:4]), mean @ low_rank.scores(matrix[:4]), rtol=1e-4, atol=1e-6
    )


def test_low_rank_is_deterministic_and_its_sign_is_fixed():
    matrix = expression(250, 300)
    first, second = fit_low_rank(matrix, 12), fit_low_rank(matrix.copy(), 12)
    np.testing.assert_array_equal(first.basis, second.basis)
    largest = np.take_along_axis(first.basis, np.abs(first.basis).argmax(axis=1)[:, None], axis=1)
    assert (largest > 0).all()
    other = fit_low_rank(matrix, 12, seed=5)  # other first vectors, the same components
    np.testing.assert_allclose(other.basis[:5], first.basis[:5], atol=1e-3)


def test_genes_without_values_and_spots_in_no_niche_change_nothing():
    matrix, rng = expression(250, 300), np.random.default_rng(0)
    kept = np.sort(rng.choice(700, 300, replace=False))
    wide = sparse.csr_matrix((matrix.data, kept[matrix.indices], matrix.indptr), shape=(250, 700))
    weights = sparse.random(120, 250, density=0.05, format="csr", random_state=0, dtype=np.float32)
    more = sparse.csr_matrix((120, 90), dtype=np.float32)
    for given, others in (
        ({}, {}),
        ({"weights": weights}, {"weights": sparse.hstack([weights, more], format="csr")}),
    ):
        values = sparse.vstack([wide, expression(90, 700, seed=1)], format="csr") if others else wide
        narrow, found = fit_low_rank(matrix, 8, **given), fit_low_rank(values, 8, **others)
        absent = np.delete(np.arange(700), kept)
        assert not found.basis[:, absent].any()
        np.testing.assert_allclose(found.basis[:, kept], narrow.basis, atol=1e-4)
        np.testing.assert_allclose(found.mean[kept], narrow.mean, atol=1e-6)
        np.testing.assert_array_equal(found.mean[absent], 0)


def test_low_rank_does_not_depend_on_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    matrix = expression(150, 200)
    found = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(fit_low_rank(matrix, 15).scores(matrix))
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)


@pytest.mark.parametrize(
    ("n", "g", "rank", "expected"),
    [(1, 5, 50, 0), (2, 5, 50, 1), (5, 3, 50, 3), (30, 400, 50, 29), (400, 30, 50, 30), (9, 9, 0, 0)],
)
def test_rank_shrinks_to_what_the_data_have(n, g, rank, expected):
    matrix = expression(n, g)
    low_rank = fit_low_rank(matrix, rank)
    assert low_rank.basis.shape == (expected, g)
    assert low_rank.scores(matrix).shape == (n, expected)
    np.testing.assert_allclose(low_rank.basis @ low_rank.basis.T, np.eye(expected), atol=1e-5)
    if n == 1:
        assert low_rank.scale == 1
        np.testing.assert_array_equal(low_rank.mean, matrix.toarray()[0])


@pytest.mark.parametrize("matrix", [np.zeros((20, 10)), np.ones((20, 10)), np.tile(np.arange(10.0), (20, 1))])
def test_rows_that_are_all_the_same_have_scores_of_zero(matrix):
    low_rank = fit_low_rank(sparse.csr_matrix(matrix), 5)
    assert low_rank.scale == 1
    np.testing.assert_allclose(low_rank.scores(matrix), 0, atol=1e-5)
    np.testing.assert_allclose(low_rank.basis @ low_rank.basis.T, np.eye(5), atol=1e-5)


def test_few_directions_are_found_exactly():
    rng = np.random.default_rng(0)
    matrix = sparse.csr_matrix(rng.random((200, 3)) @ rng.random((3, 400)))
    low_rank = fit_low_rank(matrix, 10)
    rebuilt = low_rank.scores(matrix) * low_rank.scale @ low_rank.basis + low_rank.mean
    np.testing.assert_allclose(rebuilt, matrix.toarray(), atol=1e-4)


def test_many_rows_are_sampled():
    matrix = expression(900, 60)
    sampled = fit_low_rank(matrix, 5, max_rows=300, seed=3)
    rows = np.sort(np.random.default_rng(3).choice(900, 300, replace=False))
    np.testing.assert_allclose(sampled.mean, matrix[rows].toarray().mean(axis=0), rtol=1e-5, atol=1e-6)
    again = fit_low_rank(matrix, 5, max_rows=300, seed=3)
    np.testing.assert_array_equal(sampled.basis, again.basis)


def test_low_rank_rejects_what_it_cannot_use():
    with pytest.raises(ValueError, match="Expected rows"):
        fit_low_rank(sparse.csr_matrix((0, 5)))
    with pytest.raises(ValueError, match="rank -1"):
        fit_low_rank(sparse.csr_matrix(np.ones((3, 5))), -1)
    low_rank = LowRank(np.zeros(3, np.float32), np.eye(3, dtype=np.float32), 1.0)
    with pytest.raises(ValueError, match="Expected 3 genes"):
        low_rank.scores(np.zeros((2, 4)))


def test_low_rank_does_not_fill_the_matrix():
    matrix = sparse.random(5000, 5000, density=0.005, format="csr", dtype=np.float32, random_state=0)
    tracemalloc.start()
    fit_low_rank(matrix, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # the filled matrix would be 100 MB


def test_fewer_directions_than_rows_are_found_exactly():
    # Spots that share a niche make the matrix short of a few ranks, so that the Krylov space runs out of directions.
    adata = stalign.datasets.toy(n_rows=12, image=False)
    matrix = niche_graph(nearest(adata.obsm["spatial"], 3)) @ normalise(adata.X)
    centred = matrix.toarray() - matrix.toarray().mean(axis=0, dtype=np.float64)
    _, size, axes = np.linalg.svd(centred, full_matrices=False)
    assert (size > 1e-6 * size[0]).sum() < len(centred) - 1
    low_rank = fit_low_rank(matrix, 8)
    np.testing.assert_allclose(low_rank.basis.T @ low_rank.basis, axes[:8].T @ axes[:8], atol=1e-4)
    assert low_rank.scale == pytest.approx(np.sqrt(np.square(size[:8]).sum() / len(centred)), rel=1e-5)
