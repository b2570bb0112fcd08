"""Scores of labels and of predicted expression."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from stalign.core import scores
from stalign.core.colour import N_FEATURES, colour_features
from stalign.core.scores import agreement, compactness, match_labels, per_gene


def slow_ari(truth, labels):
    """Count pairs of spots."""
    same = [(truth[i] == truth[j], labels[i] == labels[j]) for i, j in itertools.combinations(range(len(truth)), 2)]
    both = sum(a and b for a, b in same)
    first, second = sum(a for a, _ in same), sum(b for _, b in same)
    expected = first * second / len(same)
    return (both - expected) / ((first + second) / 2 - expected)


def test_agreement_against_counted_pairs():
    rng = np.random.default_rng(0)
    truth = rng.choice(["a", "b", "c"], 60)
    labels = np.where(rng.random(60) < 0.6, truth, rng.choice(["a", "b", "c"], 60))
    found = agreement(truth, labels)
    assert found["ARI"] == pytest.approx(slow_ari(truth, labels))
    assert found["NMI"] == pytest.approx(normalized_mutual_info_score(truth, labels))


def test_homogeneity_and_completeness_tell_splitting_from_merging():
    truth = np.repeat(["a", "b"], 20)
    split, merged = np.repeat(["1", "2", "3", "4"], 10), np.repeat("1", 40)
    assert agreement(truth, split) == pytest.approx(
        {"ARI": 0.4800, "NMI": 2 / 3, "homogeneity": 1, "completeness": 0.5}, abs=1e-3
    )
    assert agreement(truth, merged) == pytest.approx({"ARI": 0, "NMI": 0, "homogeneity": 0, "completeness": 1})


def test_agreement_without_spots_and_with_wrong_lengths():
    assert np.isnan(list(agreement([], []).values())).all()
    with pytest.raises(ValueError, match="one label per spot"):
        agreement(["a"], ["a", "b"])


def test_compactness_prefers_the_right_cut(monkeypatch):
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 40)
    features = np.eye(3)[truth] * 5 + rng.normal(size=(120, 3))
    right, wrong = compactness(features, truth), compactness(features, rng.permutation(truth))
    assert right["silhouette"] > wrong["silhouette"] + 0.3
    assert right["calinski_harabasz"] > wrong["calinski_harabasz"]
    assert right["davies_bouldin"] < wrong["davies_bouldin"]
    assert np.isnan(list(compactness(features, np.zeros(120)).values())).all()
    monkeypatch.setattr(scores, "MAX_SILHOUETTE", 60)
    assert compactness(features, truth)["silhouette"] == pytest.approx(right["silhouette"], abs=0.1)


def test_match_labels_is_the_best_of_all_pairings():
    rng = np.random.default_rng(1)
    truth, labels = rng.choice(["a", "b", "c"], 50), rng.choice(["1", "2", "3"], 50)
    found = match_labels(truth, labels)
    hits = {
        names: sum(((labels == domain) & (truth == name)).sum() for domain, name in zip("123", names, strict=True))
        for names in itertools.permutations("abc")
    }
    assert hits[tuple(found[domain] for domain in "123")] == max(hits.values())


def test_match_labels_with_more_domains_than_labels():
    found = match_labels(["a", "a", "b", "b"], ["1", "2", "3", "3"])
    assert len(found) == 2 and found["3"] == "b" and len(set(found.values())) == 2


def test_per_gene_by_hand():
    truth = np.array([[0.0, 1.0, 5.0, 1.0], [1.0, 1.0, 5.0, 2.0], [2.0, 1.0, np.nan, 3.0]])
    predicted = np.array([[0.0, 0.0, 4.0, 2.0], [2.0, 1.0, 6.0, 2.0], [4.0, 2.0, 9.0, 2.0]])
    found = per_gene(truth, predicted)
    np.testing.assert_allclose(found["mse"], [5 / 3, 2 / 3, 1.0, 2 / 3])
    np.testing.assert_allclose(found["mae"], [1.0, 2 / 3, 1.0, 2 / 3])
    np.testing.assert_array_equal(found["n"], [3, 3, 2, 3])
    assert found["pearson"][0] == pytest.approx(1.0)
    assert np.isnan(found["pearson"][1:3]).all()  # the truth is constant
    assert found["pearson"][3] == 0.0  # only the prediction is


def test_per_gene_against_numpy_with_missing_values():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(40, 6))
    predicted = truth + rng.normal(size=(40, 6))
    truth[rng.random((40, 6)) < 0.2] = np.nan
    predicted[5] = np.nan
    found = per_gene(truth, predicted)
    for gene in range(6):
        seen = np.isfinite(truth[:, gene]) & np.isfinite(predicted[:, gene])
        expected = np.corrcoef(truth[seen, gene], predicted[seen, gene])[0, 1]
        assert found["pearson"][gene] == pytest.approx(expected)
        assert found["n"][gene] == seen.sum()


def test_per_gene_without_any_value_and_with_wrong_shapes():
    found = per_gene(np.full((3, 1), np.nan), np.zeros((3, 1)))
    assert np.isnan([found["mse"][0], found["mae"][0], found["pearson"][0]]).all() and found["n"][0] == 0
    with pytest.raises(ValueError, match="one shape"):
        per_gene(np.zeros((3, 1)), np.zeros((3, 2)))


def test_colour_features_against_a_loop():
    patches = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    found = colour_features(patches)
    assert found.shape == (5, N_FEATURES) and found.dtype == np.float32
    for patch, row in zip(patches, found, strict=True):
        np.testing.assert_allclose(row[:3], patch.mean(axis=(0, 1)) / 255, atol=1e-6)
        np.testing.assert_allclose(row[3:6], patch.std(axis=(0, 1)) / 255, atol=1e-6)
        for channel in range(3):
            expected = np.histogram(patch[..., channel], bins=np.arange(0, 257, 32))[0] / 42
            np.testing.assert_allclose(row[6 + 8 * channel : 14 + 8 * channel], expected, atol=1e-6)
    np.testing.assert_allclose(colour_features(patches[:, ::-1].transpose(0, 2, 1, 3)), found, atol=1e-6)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 4, 4, 4), np.uint8), np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)]
)
def test_colour_features_check_their_input(bad):
    with pytest.raises(ValueError, match="uint8"):
        colour_features(bad)
