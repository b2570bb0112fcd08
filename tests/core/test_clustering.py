"""Clusterers, the rule they leave behind, and the model of domains."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stalign.core.clustering import GMM, KMeans, Leiden, _choose, rand_indices
from stalign.core.domain_model import DomainModel, Projection, principal_axes
from stalign.core.leiden import nearest_graph, search
from stalign.core.mixture import Mixture
from stalign.core.palette import palette


def blobs(sizes=(100, 80, 60), d=4, spread=0.4, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 4, (len(sizes), d))
    features = np.concatenate([rng.normal(centre, spread, (n, d)) for centre, n in zip(centres, sizes, strict=True)])
    return features, np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("clusterer", [GMM(3), KMeans(3), Leiden(n_domains=3)], ids=["gmm", "kmeans", "leiden"])
def test_finds_blobs_and_assigns_further_spots(clusterer):
    features, truth = blobs()
    labels, mixture = clusterer.fit(features[::2])
    assert labels.dtype == np.intp and set(labels) == {0, 1, 2}
    assert adjusted_rand_score(truth[::2], labels) == 1.0
    np.testing.assert_array_equal(mixture.predict(features[::2]), labels)
    assert adjusted_rand_score(truth[1::2], mixture.predict(features[1::2])) == 1.0
    np.testing.assert_array_equal(clusterer.fit_predict(features[::2]), labels)


@pytest.mark.parametrize("clusterer", [GMM(3), KMeans(3), Leiden(n_domains=3)], ids=["gmm", "kmeans", "leiden"])
def test_same_seed_same_labels(clusterer):
    features = np.random.default_rng(1).normal(size=(150, 5))
    first, second = (clusterer.fit(features, random_state=7)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_seed_of_the_object_wins():
    features = np.random.default_rng(1).normal(size=(150, 5))
    own = GMM(4, n_init=1, random_state=3)
    np.testing.assert_array_equal(own.fit(features, random_state=0)[0], own.fit(features, random_state=9)[0])
    free = [GMM(4, n_init=1).fit(features, random_state=seed)[0] for seed in range(6)]
    assert any(not np.array_equal(free[0], other) for other in free)


def test_gmm_with_tied_covariance_finds_long_parallel_groups_that_kmeans_cuts():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 200)
    features = rng.normal(size=(400, 2)) * (1.5, 0.2) + np.outer(truth, (2.0, 1.2))
    assert adjusted_rand_score(truth, GMM(2).fit_predict(features)) > 0.95
    assert adjusted_rand_score(truth, KMeans(2).fit_predict(features)) < 0.5


def test_agreement_takes_the_start_that_others_agree_with_and_likelihood_does_not():
    good = np.repeat([0, 1, 2], 20)
    starts = [good, (good + 1) % 3, np.where(np.arange(60) < 2, 0, 1 + (good == 2)), good]
    bounds = [-2.0, -1.5, -0.5, -1.9]
    assert _choose(starts, bounds, by="likelihood") == 2
    assert _choose(starts, bounds, by="agreement") == 1  # of three that agree fully, the likeliest


def test_gmm_is_steadier_by_agreement_than_by_likelihood():
    rng = np.random.default_rng(3)
    features, truth = blobs((150, 150, 150), d=10, spread=2.6, seed=3)
    features[rng.choice(450, 12, replace=False)] += rng.normal(0, 25, (12, 10))
    spread = {}
    for choose in ("agreement", "likelihood"):
        spread[choose] = [
            adjusted_rand_score(truth, GMM(3, n_init=10, choose=choose).fit(features, random_state=100 * seed)[0])
            for seed in range(3)
        ]
    assert np.mean(spread["agreement"]) > np.mean(spread["likelihood"]) + 0.1


@pytest.mark.parametrize("clusterer", [GMM(5), KMeans(5)])
def test_one_spot_is_one_domain(clusterer):
    labels, mixture = replace(clusterer, n_domains=1).fit(np.ones((1, 2)))
    assert labels.tolist() == [0] and mixture.predict(np.zeros((3, 2))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("clusterer", [GMM(5), KMeans(5)])
def test_fewer_spots_or_distinct_spots_than_domains(clusterer):
    with pytest.raises(ValueError, match="at least 5 spots.*Found: 4 usable"):
        clusterer.fit(np.random.default_rng(0).normal(size=(4, 2)))
    with pytest.raises(ValueError, match="3 distinct rows"):
        clusterer.fit(np.repeat(np.eye(3), 10, axis=0))


@pytest.mark.parametrize("bad", [np.array([[0.0], [np.nan]]), np.zeros(3)])
def test_features_must_be_finite_and_two_dimensional(bad):
    with pytest.raises(ValueError, match="finite features"):
        GMM(1).fit(bad)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="choose"):
        GMM(2, choose="best")
    with pytest.raises(ValueError, match="at least one domain"):
        Leiden(n_domains=0)
    with pytest.raises(ValueError, match="resolution above 0"):
        Leiden(resolution=0)
    with pytest.raises(ValueError, match="3 by 3"):
        Leiden().fit(np.zeros((3, 1)), sparse.csr_matrix((2, 2)))


def test_leiden_orders_by_size_and_searches_every_number():
    features = np.random.default_rng(0).normal(size=(250, 2)) * (3, 1)
    graph = nearest_graph(features)
    for number in (2, 3, 4, 6, 8):
        labels, resolution = search(graph, number)
        assert labels.max() + 1 == number and resolution > 0
        sizes = np.bincount(labels)
        assert (np.diff(sizes) <= 0).all()


def test_leiden_says_what_came_closest(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stalign"), "propagate", True)
    pieces = sparse.block_diag([np.ones((10, 10)) - np.eye(10)] * 4).tocsr()  # four cliques: never fewer than four
    with caplog.at_level(logging.WARNING, logger="stalign"):
        labels, _ = search(pieces, 2)
    assert labels.max() + 1 == 4
    assert "2 domains" in caplog.text and "4 came closest" in caplog.text


def test_leiden_gives_the_random_generator_back():
    import random

    random.seed(5)
    expected = [random.random() for _ in range(2)]
    random.seed(5)
    assert random.random() == expected[0]
    Leiden(n_domains=2).fit(blobs()[0])
    assert random.random() == expected[1]


@pytest.mark.parametrize("clusterer", [GMM(3, n_init=2), KMeans(3)], ids=["tied", "spherical"])
def test_posterior_is_that_of_the_mixture(clusterer):
    features, _ = blobs(spread=2.0)
    _, mixture = clusterer.fit(features)
    log = np.empty((len(features), 3))
    for k in range(3):  # log of weight times density, literally
        factor = mixture.precisions if mixture.covariance == "tied" else np.eye(4) * mixture.precisions[k]
        precision = factor @ factor.T
        rest = features - mixture.means[k]
        log[:, k] = np.log(mixture.weights[k]) + 0.5 * np.linalg.slogdet(precision)[1]
        log[:, k] -= 0.5 * np.einsum("nd,de,ne->n", rest, precision, rest)
    expected = np.exp(log - log.max(axis=1, keepdims=True))
    np.testing.assert_allclose(mixture.posterior(features), expected / expected.sum(axis=1, keepdims=True), atol=1e-10)


def test_mixture_reorders_and_checks_its_arrays():
    _, mixture = GMM(3, n_init=2).fit(blobs()[0])
    order = np.array([2, 0])
    kept = mixture.take(order)
    np.testing.assert_allclose(kept.means, mixture.means[order])
    assert kept.weights.sum() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="kind of covariance"):
        Mixture("round", mixture.weights, mixture.means, mixture.precisions)
    with pytest.raises(ValueError, match="tied mixture"):
        Mixture("tied", mixture.weights, mixture.means, np.eye(3))
    with pytest.raises(ValueError, match="4 features"):
        mixture.predict(np.zeros((2, 3)))


def test_discriminant_is_linear_discriminant_analysis():
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    features, truth = blobs(spread=3.0)
    expected = LinearDiscriminantAnalysis(solver="lsqr").fit(features, truth).predict_proba(features)
    np.testing.assert_allclose(Mixture.discriminant(features, truth).posterior(features), expected, atol=0.02)


def test_projection_is_principal_component_analysis_with_fixed_signs():
    from sklearn.decomposition import PCA

    features = np.random.default_rng(0).normal(size=(50, 8)) @ np.random.default_rng(1).normal(size=(8, 8))
    points = Projection.fit(features, 3)(features)
    expected = PCA(3, svd_solver="full").fit_transform(features)
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    for matrix in (features, features[:5]):  # more rows than columns, and fewer
        axes = principal_axes(matrix - matrix.mean(axis=0), 2)
        assert (axes[np.arange(2), np.abs(axes).argmax(axis=1)] > 0).all()
    assert Projection.fit(features[:3], 15)(features).shape == (50, 2)
    np.testing.assert_allclose(Projection.fit(features, None)(features), features - features.mean(axis=0))


def model():
    features, _ = blobs()
    projection = Projection.fit(features, 2)
    _, mixture = GMM(3, n_init=2).fit(projection(features))
    return DomainModel(("1", "2", "3"), tuple(palette(3)), "X_stalign", projection, mixture), features


def test_model_survives_saving(tmp_path):
    before, features = model()
    path = before.save(tmp_path / "domains")
    assert path.name == "domains.npz"
    after = DomainModel.load(path)
    assert (after.names, after.colors, after.use_rep) == (before.names, before.colors, before.use_rep)
    np.testing.assert_array_equal(after.predict(features), before.predict(features))
    with np.load(path, allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored)


def test_model_leaves_rows_with_nan_out_and_checks_the_width():
    found, features = model()
    features[3, 1] = np.nan
    labels = found.predict(features)
    assert labels[3] == -1 and (np.delete(labels, 3) >= 0).all()
    with pytest.raises(ValueError, match=r"features \(n, 4\)"):
        found.predict(features[:, :3])


def test_a_file_that_is_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="saved domain model"):
        DomainModel.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(ValueError, match="saved domain model"):
        DomainModel.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(2))
    with pytest.raises(ValueError, match="saved domain model"):
        DomainModel.load(tmp_path / "other.npz")
    whole = model()[0].save(tmp_path / "whole.npz")
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError, match="saved domain model"):
        DomainModel.load(whole)
    state = model()[0].to_dict()
    with pytest.raises(ValueError, match="without means"):
        DomainModel.from_dict({name: value for name, value in state.items() if name != "means"})


@pytest.mark.parametrize("n", [0, 3, 30])
def test_palette_is_distinct_and_grows_by_appending(n):
    colors = palette(n)
    assert len(set(colors)) == n and all(len(color) == 7 and color[0] == "#" for color in colors)
    assert palette(40)[:n] == colors


def test_many_rows_are_projected_piece_by_piece(monkeypatch):
    features = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32) * [4, 3, 2, 1, 1, 1] + 5
    expected = Projection.fit(features, 3)
    monkeypatch.setattr("stalign.core.domain_model._ROWS", 64)
    pieces = Projection.fit(features, 3)
    np.testing.assert_allclose(pieces.components, expected.components, atol=1e-9)
    np.testing.assert_allclose(pieces(features), expected(features), atol=1e-9)
    assert expected(features[:0]).shape == (0, 3)


def test_a_tied_mixture_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(4, 4))
    truth = rng.integers(3, size=900)
    features = 100 + (rng.normal(size=(900, 4)) + 2 * np.eye(4)[truth]) @ shape
    start = np.where(rng.random(900) < 0.3, rng.integers(3, size=900), truth)
    means = np.stack([features[start == k].mean(axis=0) for k in range(3)])
    within = np.cov((features - means[start]).T, bias=True) + 1e-6 * np.eye(4)
    theirs = GaussianMixture(
        3,
        covariance_type="tied",
        weights_init=np.bincount(start) / 900,
        means_init=means,
        precisions_init=np.linalg.inv(within),
        reg_covar=1e-6,
        tol=1e-9,
        max_iter=1000,
    ).fit(features)
    ours, bound = Mixture.tied(features, start, least=1e-6, tol=1e-9, max_iter=1000)
    assert bound == pytest.approx(theirs.lower_bound_, abs=1e-6)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-4)
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-3)
    np.testing.assert_allclose(ours.precisions, theirs.precisions_cholesky_, atol=1e-3)
    assert (ours.predict(features) == theirs.predict(features)).all()


def test_rand_indices_are_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(k, size=200) for k in (2, 5, 5, 3)] + [np.zeros(200, dtype=int)])
    labels[2, 150:] = labels[1, 150:]
    wanted = [[adjusted_rand_score(first, second) for second in labels] for first in labels]
    np.testing.assert_allclose(rand_indices(labels), wanted, atol=1e-12)
