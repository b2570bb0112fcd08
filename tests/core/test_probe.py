from __future__ import annotations

import numpy as np
import pytest

from stalign.core.probe import ALPHAS, linear_probe


@pytest.fixture
def blobs():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b", "c"], [120, 60, 20])
    centres = {"a": (0, 0, 0), "b": (4, 0, 0), "c": (0, 4, 0)}
    return rng.normal(size=(200, 3)) + np.array([centres[label] for label in labels]), labels


def test_equals_the_protocol_written_out(blobs):
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import f1_score

    features, labels = blobs
    found = linear_probe(features, labels, seeds=(0, 1))
    scores = {}
    for alpha in ALPHAS:
        for seed in (0, 1):
            order = np.random.default_rng(seed).permutation(200)
            parts = {"test": order[:20], "validation": order[20:40], "train": order[40:]}
            train = np.sort(parts["train"])
            model = SGDClassifier(
                loss="log_loss", alpha=alpha, class_weight="balanced", max_iter=10_000, random_state=1
            ).fit(features[train], labels[train])
            for part in ("validation", "test"):
                rows = np.sort(parts[part])
                predicted = model.predict(features[rows])
                scores[alpha, seed, part] = f1_score(labels[rows], predicted, average="macro", zero_division=0.0)
    best = max(ALPHAS, key=lambda alpha: np.mean([scores[alpha, seed, "validation"] for seed in (0, 1)]))
    assert found.alpha == best
    np.testing.assert_allclose(found.test, [scores[best, seed, "test"] for seed in (0, 1)])
    np.testing.assert_allclose(found.validation, [scores[best, seed, "validation"] for seed in (0, 1)])


def test_noise_scores_low(blobs):
    features, labels = blobs
    noise = np.random.default_rng(1).normal(size=features.shape)
    assert linear_probe(features, labels).test.mean() > 0.85
    assert linear_probe(noise, labels).test.mean() < 0.5


def test_unlabelled_and_missing_are_left_out(blobs):
    features, labels = blobs
    labels = labels.astype(object)
    labels[:3] = ["undetermined", "", "Exclude"]
    features[5] = np.nan
    found = linear_probe(features, labels)
    assert found.n_left_out == 4
    assert found.n_spots == 196
    assert found.classes == ("a", "b", "c")


def test_groups_stay_together(blobs, monkeypatch):
    """A feature that names the group gives everything away where spots are split, and nothing where groups are."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    labels = rng.integers(0, 2, 20)[groups].astype(str)
    features = np.eye(20)[groups] * 10
    assert linear_probe(features, labels).test.mean() > 0.95
    assert linear_probe(features, labels, groups=groups).test.mean() < 0.8


def test_too_little_raises(blobs):
    features, labels = blobs
    with pytest.raises(ValueError, match="at least ten"):
        linear_probe(features[:5], labels[:5])
    with pytest.raises(ValueError, match="two labels"):
        linear_probe(features[:100], labels[:100])
    with pytest.raises(ValueError, match="three groups"):
        linear_probe(features, labels, groups=np.arange(200) % 2)
    with pytest.raises(ValueError, match="one label per spot"):
        linear_probe(features, labels[:-1])
