from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

import stalign
from stalign._constants import Keys
from stalign.core.expression import fit_low_rank, normalise
from stalign.core.gaussian import GaussianMean, gaussian_graph
from stalign.core.niches import nearest, niche_graph
from stalign.data import Vocabulary
from stalign.data import expression as module
from stalign.data import open_sections as sections
from stalign.data.counts import CountKeys, match_counts
from stalign.data.expression import read_expression
from stalign.models.config import InputSpec

SPEC = InputSpec(rank=8)


@pytest.fixture(scope="session")
def _small():
    return stalign.datasets.toy(n_rows=14, image=False)


@pytest.fixture
def small(_small):
    return _small.copy()


def read(adata, spec=SPEC, *, genes=None, seed=0, **options):
    """The expression of a section, and its niches."""
    view = sections(adata, image=False)[0]
    graph = niche_graph(nearest(view.coords, 3))
    counts = match_counts(adata, Vocabulary(tuple(genes or adata.var_names)), CountKeys(**options))
    return read_expression(counts, view, graph, view.valid, spec, random_state=seed), graph


def scored(values, expression):
    """Literal scores: centred, projected and scaled."""
    low = expression.low_rank
    return (np.asarray(values) - low.mean) @ low.basis.T / low.scale


def expanded(expression):
    """Scores back in the space of genes, as the network reads them; the choice of axes does not show."""
    return expression.scores @ expression.low_rank.basis


def test_scores_are_the_projection_of_normalised_counts(small):
    expression, _ = read(small)
    values = normalise(small.X.astype(np.float32)).toarray()
    np.testing.assert_allclose(expression.scores, scored(values, expression), atol=1e-4)
    np.testing.assert_allclose(expression.values.toarray(), values, atol=1e-6)
    assert expression.scores.dtype == np.float32


def test_the_niche_mean_commutes_with_the_scores(small):
    expression, graph = read(small)
    niches = graph @ normalise(small.X.astype(np.float32)).toarray()
    np.testing.assert_allclose(graph @ expression.scores, scored(niches, expression), atol=1e-4)


def test_niches_have_unit_size(small):
    expression, graph = read(small)
    sizes = np.square(graph @ expression.scores).sum(axis=1)
    assert np.sqrt(sizes.mean()) == pytest.approx(1, rel=1e-4)


def test_niches_are_their_principal_components(small):
    small = small[:, :200].copy()
    expression, graph = read(small)
    niches = graph @ normalise(small.X.astype(np.float32)).toarray()
    left, size, _ = np.linalg.svd(niches - niches.mean(axis=0), full_matrices=False)
    components = (graph @ expression.scores) * np.sqrt(np.square(size[:8]).sum() / small.n_obs)
    np.testing.assert_allclose(np.abs(components), np.abs(left[:, :8] * size[:8]), atol=0.01 * size[7])
    np.testing.assert_allclose(expression.low_rank.mean, niches.mean(axis=0), atol=1e-5)


def test_spots_without_counts_score_0_and_leave_the_others_alone(small):
    lone, graph = [3, 40], niche_graph(nearest(small.obsm[Keys.SPATIAL], 3))
    matrix = small.X.tolil()
    matrix[lone] = 0
    small.X = matrix.tocsr()
    expression, _ = read(small)
    assert (expression.scores[lone] == 0).all()
    assert (expression.totals[lone] == 0).all()
    assert np.isfinite(expression.scores).all()
    values = normalise(small.X.astype(np.float32)).toarray()
    niches = []
    for spot in np.setdiff1d(np.arange(small.n_obs), lone):  # the mean over those that have counts
        niches.append(values[np.setdiff1d(graph[spot].indices, lone)].mean(axis=0))
    np.testing.assert_allclose(expression.low_rank.mean, np.mean(niches, axis=0), atol=1e-5)
    thinned, _ = expression.thinned(np.array(lone), sparse.eye(2, format="csr"), 0.5, np.random.default_rng(0))
    assert (thinned == 0).all()
    neighbour = np.setdiff1d(graph[lone].indices, lone)[0]
    assert (expression.scores[neighbour] != 0).all()


def test_keeping_every_count_changes_nothing(small):
    expression, _ = read(small)
    members = np.array([5, 1, 70])
    thinned, niches = expression.thinned(members, sparse.eye(2, 3, format="csr"), 1.0, np.random.default_rng(0))
    np.testing.assert_array_equal(niches, thinned[:2])
    np.testing.assert_allclose(thinned, expression.scores[members], atol=1e-5)


def test_thinning_keeps_the_expectation(small):
    # Without the logarithm scores are linear in the counts, and thinned counts over `keep` have the same mean.
    expression, _ = read(small, replace(SPEC, log1p=False))
    rng, members = np.random.default_rng(0), np.arange(20)
    draws = np.stack([expression.thinned(members, sparse.eye(2, 20, format="csr"), 0.4, rng)[0] for _ in range(300)])
    error = np.abs(draws.mean(axis=0) - expression.scores[members])
    assert (error < 5 * draws.std(axis=0) / np.sqrt(300) + 1e-6).all()
    assert (draws.std(axis=0) > 0).all()


def test_thinning_draws_binomials_and_leaves_the_counts_alone(small):
    expression, _ = read(small)
    before = expression.counts.copy()
    local = sparse.eye(2, 9, format="csr")
    first, again = (expression.thinned(np.arange(9), local, 0.5, np.random.default_rng(7))[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, expression.scores[:9], atol=1e-3)
    assert abs(expression.counts - before).nnz == 0


def test_totals_of_all_genes_are_used_for_a_table_of_some(small):
    small.obs["all"] = np.asarray(small.X.sum(axis=1)).ravel() * 3
    expression, _ = read(small, total_counts="all")
    values = normalise(small.X.astype(np.float32), small.obs["all"].to_numpy())
    np.testing.assert_allclose(expression.values.toarray(), values.toarray(), atol=1e-6)
    np.testing.assert_array_equal(expression.totals, small.obs["all"])


def test_niches_are_weighed_by_distance_where_there_is_a_scale(small, caplog):
    view = sections(small, image=False)[0]
    niches = niche_graph(nearest(view.coords, 3))
    counts, spec = match_counts(small, Vocabulary(tuple(small.var_names)), CountKeys()), replace(SPEC, niche_sigma=80.0)
    weighed = read_expression(counts, view, niches, view.valid, spec).graph
    np.testing.assert_allclose(weighed.toarray(), gaussian_graph(view.coords_um, 80.0).toarray(), atol=1e-6)
    assert "physical scale" not in caplog.text
    view.scale = replace(view.scale, mpp=np.nan)
    plain = read_expression(counts, view, niches, view.valid, spec).graph
    np.testing.assert_array_equal(plain.toarray(), niches.toarray())
    assert "no physical scale" in caplog.text


def test_the_order_of_the_vocabulary_does_not_matter(small):
    genes = list(small.var_names)
    order = np.random.default_rng(0).permutation(len(genes))
    plain, _ = read(small, genes=genes)
    mixed, _ = read(small, genes=[genes[i] for i in order])
    np.testing.assert_allclose(expanded(mixed), expanded(plain)[:, order], atol=1e-4)
    np.testing.assert_array_equal(mixed.counts.toarray(), plain.counts.toarray()[:, order])


def test_the_order_of_the_spots_does_not_matter(small, monkeypatch):
    # also where the basis is fitted to some of the spots
    monkeypatch.setattr(module, "_FIT_SPOTS", 100)
    monkeypatch.setattr(module, "_FIT_PLACES", 10)
    small.obsm[Keys.SPATIAL] += np.random.default_rng(1).normal(size=(small.n_obs, 2))  # so that no two are as near
    order = np.random.default_rng(0).permutation(small.n_obs)
    plain, _ = read(small)
    mixed, _ = read(small[order].copy())
    np.testing.assert_allclose(mixed.low_rank.mean, plain.low_rank.mean, atol=1e-6)
    monkeypatch.undo()
    assert not np.allclose(plain.low_rank.mean, read(small)[0].low_rank.mean, atol=1e-3)  # some, not all
    np.testing.assert_allclose(expanded(mixed), expanded(plain)[order], atol=1e-4)


def test_the_sample_depends_on_the_seed(small, monkeypatch):
    monkeypatch.setattr(module, "_FIT_SPOTS", 100)
    monkeypatch.setattr(module, "_FIT_PLACES", 10)
    means = [read(small, seed=seed)[0].low_rank.mean for seed in (1, 1, 2)]
    np.testing.assert_array_equal(means[0], means[1])
    assert not np.array_equal(means[0], means[2])


def test_scores_do_not_depend_on_the_chunks(small, monkeypatch):
    expected, _ = read(small)
    monkeypatch.setattr(module, "_CHUNK", 7)
    found, _ = read(small)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_genes_of_one_target_are_summed(small):
    genes = list(small.var_names)
    half = small.X.copy()
    twice = small[:, [0, *range(small.n_vars)]].copy()
    twice.var_names = [genes[0], *genes]
    twice.X = sparse.hstack([half[:, :1], half]).tocsr()
    small.X = sparse.hstack([2 * half[:, :1], half[:, 1:]]).tocsr()
    plain, doubled = (
        match_counts(small, Vocabulary(tuple(genes)), CountKeys()),
        match_counts(twice, Vocabulary(tuple(genes)), CountKeys()),
    )
    np.testing.assert_allclose(doubled.matrix.toarray(), plain.matrix.toarray())
    assert doubled.n_matched == plain.n_matched + 1


def test_a_gene_that_the_section_lacks_is_a_column_of_zeros(small):
    genes = ["NOT-THERE", *small.var_names, "NOR-THIS"]
    expression, _ = read(small, genes=genes)
    assert expression.counts[:, [0, -1]].nnz == 0
    np.testing.assert_allclose(expression.low_rank.basis[:, [0, -1]], 0, atol=1e-6)
    plain, _ = read(small)
    np.testing.assert_allclose(expanded(expression)[:, 1:-1], expanded(plain), atol=1e-4)


def test_coverage_counts_the_genes_of_the_data(small):
    expression, _ = read(small, genes=list(small.var_names[:435]))
    assert expression.n_matched == 435
    assert expression.coverage == pytest.approx(0.5)
    # genes that the weights do not know still count in a spot's total
    np.testing.assert_array_equal(expression.totals, np.asarray(small.X.sum(axis=1)).ravel())


def test_the_rank_follows_the_number_of_spots(small):
    few = small[:17].copy()
    expression, graph = read(few)
    assert expression.low_rank.basis.shape == (3, small.n_vars)  # one component for five spots
    assert expression.scores.shape == (17, 3)
    assert np.isfinite(graph @ expression.scores).all()


def test_one_spot_has_a_score_without_components(small):
    expression, _ = read(small[:1].copy())
    assert expression.scores.shape == (1, 0)
    assert expression.low_rank.basis.shape == (0, small.n_vars)


def test_no_counts_at_all_is_an_error(small):
    small.X = sparse.csr_matrix(small.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="at least one spot with counts in section 'toy'"):
        read(small)


def test_gene_by_gene_is_centred_as_the_weights_expect(small):
    values = normalise(small.X.astype(np.float32)).toarray()
    members = np.array([4, 0, 9])
    for centre in ("section", "none"):
        expression, graph = read(small, replace(SPEC, rank=0, centre=centre))
        mean = (graph @ values).mean(axis=0) if centre == "section" else 0
        spots, niches = expression.dense(members, graph[[7, 8]][:, members])
        np.testing.assert_allclose(spots, values[members] - mean, atol=1e-5)
        np.testing.assert_allclose(niches, graph[[7, 8]][:, members] @ (values[members] - mean), atol=1e-5)
        assert expression.scores.shape == (small.n_obs, 0)


def test_scores_are_not_centred_where_the_weights_say_so(small):
    expression, _ = read(small, replace(SPEC, centre="none"))
    values = normalise(small.X.astype(np.float32)).toarray()
    assert (expression.low_rank.mean == 0).all()
    np.testing.assert_allclose(expression.scores, scored(values, expression), atol=1e-4)


@pytest.mark.parametrize(("target", "log1p"), [(0, False), (0, True), (500.0, False), (500.0, True)])
def test_counts_are_normalised_as_the_weights_expect(small, target, log1p):
    expression, _ = read(small, replace(SPEC, gene_target_sum=target, log1p=log1p))
    values = small.X.toarray().astype(float)
    if target:
        values *= target / values.sum(axis=1, keepdims=True)
    if log1p:
        values = np.log1p(values)
    np.testing.assert_allclose(expression.values.toarray(), values, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(expression.scores, scored(values, expression), atol=2e-3)


def test_counts_of_all_spots_are_not_copied(small):
    counts = match_counts(small, Vocabulary(tuple(small.var_names)), CountKeys())
    whole = counts.of(np.arange(small.n_obs))
    matrix, totals = whole.matrix, whole.totals
    assert matrix is counts.matrix
    assert totals is counts.totals
    some = counts.of(np.array([2, 5]))
    np.testing.assert_array_equal(some.matrix.toarray(), counts.matrix[[2, 5]].toarray())
    np.testing.assert_array_equal(some.totals, counts.totals[[2, 5]])


@pytest.mark.parametrize("form", ["dense", "csc", "float64", "int64", "zeros"])
def test_the_storage_of_the_counts_does_not_matter(small, form):
    expected = match_counts(small, Vocabulary(tuple(small.var_names)), CountKeys()).matrix.toarray()
    matrix = small.X
    if form == "zeros":
        matrix = matrix.copy()
        matrix.data[::7] = 0
        expected = expected * (matrix.toarray() > 0)
    small.X = {
        "dense": lambda: matrix.toarray(),
        "csc": lambda: matrix.tocsc(),
        "float64": lambda: matrix.astype(np.float64),
        "int64": lambda: matrix.astype(np.int64),
        "zeros": lambda: matrix,
    }[form]()
    found = match_counts(small, Vocabulary(tuple(small.var_names)), CountKeys())
    np.testing.assert_array_equal(found.matrix.toarray(), expected)
    assert found.matrix.dtype == np.float32


@pytest.fixture(scope="module")
def _bins():
    return stalign.datasets.toy_hd(8, side_um=400, image=False)


@pytest.fixture
def bins(_bins):
    return _bins.copy()


GAUSSIAN = replace(SPEC, niche_sigma=40.0)


def scaled(niches):
    """Niches (n, g), dense, of one sum over the genes."""
    niches = niches.toarray()
    sums = niches.sum(axis=1, keepdims=True)
    return np.where(sums > 0, niches * np.median(sums[sums > 0]) / np.maximum(sums, 1e-9), niches)


def exact(expression, view):
    return gaussian_graph(view.coords_um, 40.0, members=expression.totals > 0)


def test_niches_of_bins_are_means_over_all_bins_with_counts_in_reach(bins):
    expression, _ = read(bins, GAUSSIAN)
    view = sections(bins, image=False)[0]
    assert isinstance(expression.graph, GaussianMean)
    graph = exact(expression, view)
    values = scaled(graph @ expression.values)
    expected = (values - expression.low_rank.mean) @ expression.low_rank.basis.T / expression.low_rank.scale
    error = np.abs(expression.niche_scores - expected) / expected.std(axis=0)
    assert np.sqrt(np.square(error).mean()) < 0.005
    assert (expression.totals == 0).mean() > 0.2
    np.testing.assert_array_equal(expression.has_niche, np.diff(graph.indptr) > 0)
    assert 0.85 * 40 < expression.niche_sd_um < 40


def test_the_basis_of_bins_is_that_of_their_niches(bins, monkeypatch):
    expression, _ = read(bins, GAUSSIAN)
    values = sparse.csr_matrix(scaled(exact(expression, sections(bins, image=False)[0]) @ expression.values))
    whole = fit_low_rank(values[expression.totals > 0], rank=len(expression.low_rank.basis))
    np.testing.assert_allclose(expression.low_rank.mean, whole.mean, rtol=5e-4, atol=1e-4)
    assert expression.low_rank.scale == pytest.approx(whole.scale, rel=1e-3)
    monkeypatch.setattr(module, "_FIT_NICHES", 300)  # a sample over the section gives nearly the same axes
    some, _ = read(bins, GAUSSIAN)
    shared = np.linalg.svd(some.low_rank.basis[:4] @ whole.basis.T, compute_uv=False)
    assert shared.min() > 0.9
    mixed, _ = read(bins[np.random.default_rng(0).permutation(bins.n_obs)].copy(), GAUSSIAN)
    np.testing.assert_allclose(mixed.low_rank.mean, some.low_rank.mean, atol=1e-5)


def test_niches_of_hundreds_of_bins_are_fitted_densely(bins, monkeypatch):
    """Most genes are in each: products with sparse matrices took most of the time."""
    fitted = []

    def keep(values, **how):
        fitted.append(values)
        return fit_low_rank(values, **how)

    monkeypatch.setattr(module, "fit_low_rank", keep)
    low_rank = read(bins, GAUSSIAN)[0].low_rank
    assert isinstance(fitted[0], np.ndarray)
    assert fitted[0].dtype == np.float32
    stored = fit_low_rank(sparse.csr_matrix(fitted[0]), rank=len(low_rank.basis))
    np.testing.assert_allclose(low_rank.mean, stored.mean, rtol=1e-5)
    np.testing.assert_allclose(low_rank.scale, stored.scale, rtol=1e-5)
    angles = np.linalg.svd(low_rank.basis @ stored.basis.T, compute_uv=False)
    assert angles[:10].min() > 0.999


def test_thinned_niches_of_bins_stand_for_all_their_bins(bins):
    expression, _ = read(bins, replace(GAUSSIAN, log1p=False))
    rows, rng = np.array([400, 401, 900]), np.random.default_rng(0)
    drawn = [expression.niches(rows, rng) for _ in range(60)]
    assert max(np.diff(graph.indptr).max() for graph in drawn) <= 64
    means = np.mean([graph @ expression.scores for graph in drawn], axis=0)
    spread_of = np.std([graph @ expression.scores for graph in drawn], axis=0) / np.sqrt(60)
    assert (np.abs(means - expression.niche_scores[rows]) < 5 * spread_of + 0.01).all()


def test_all_niches_of_bins_have_the_sum_that_is_noted(bins):
    expression, _ = read(bins, GAUSSIAN)
    low = expression.low_rank
    rebuilt = low.mean + low.scale * expression.niche_scores @ low.basis
    np.testing.assert_allclose(rebuilt.sum(axis=1)[expression.has_niche], expression.niche_sum, rtol=0.01)
    plain, _ = read(bins, replace(GAUSSIAN, spot_um=4.0))  # weights that were trained on spots as small as these
    assert plain.niche_sum == 0
    np.testing.assert_allclose(plain.niche_scores, plain.graph @ plain.scores, atol=1e-6)


def test_spots_of_visium_keep_their_sum(small):
    expression, graph = read(small, replace(SPEC, niche_sigma=80.0))
    assert expression.niche_sum == 0


def test_thinned_and_dense_niches_of_bins_have_one_sum_too(bins):
    expression, _ = read(bins, GAUSSIAN)
    rows = np.array([400, 401, 900])
    graph = expression.niches(rows)
    members = np.unique(graph.indices)
    _, niches = expression.thinned(members, graph[:, members], 1.0, np.random.default_rng(0))
    np.testing.assert_allclose(niches, expression.niche_scores[rows], atol=0.02)
    _, niches = expression.dense(members, graph[:, members])
    np.testing.assert_allclose((niches + expression.low_rank.mean).sum(axis=1), expression.niche_sum, rtol=1e-3)


@pytest.mark.parametrize(("wanted", "expected"), [(80.0, 40.0), (20.0, 20.0)])
def test_the_gaussian_around_bins_is_no_wider_than_bins_need(bins, wanted, expected):
    expression, _ = read(bins, replace(SPEC, niche_sigma=wanted))
    assert 0.85 * expected < expression.niche_sd_um < 1.1 * expected
    wide, _ = read(bins, replace(SPEC, niche_sigma=wanted, spot_um=4.0))  # weights trained on spots as small as these
    assert 0.7 * wanted < wide.niche_sd_um < 1.1 * wanted


def test_niches_that_fall_short_of_their_gaussian_are_warned_of(bins):
    coords = bins.obsm["spatial"]
    island = np.abs(coords - np.median(coords, axis=0)).max(axis=1) < 24 / 0.5  # 48 µm across
    bins = bins[island].copy()
    with pytest.warns(UserWarning, match="Gaussian of 40 µm.*in effect.*larger bins"):
        expression, _ = read(bins, GAUSSIAN)
    assert expression.niche_sd_um < 0.7 * 40
