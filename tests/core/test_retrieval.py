from __future__ import annotations

import numpy as np
import pytest

from stalign.core.retrieval import Retrieval


def test_means_over_the_most_similar_by_direction():
    angles = np.radians([0.0, 10.0, 80.0, 170.0])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * [[1.0], [5.0], [1.0], [1.0]]
    targets = np.array([[1.0], [3.0], [10.0], [50.0]])
    query = np.array([[3.0, 0.0]])
    assert Retrieval(2, "mean").fit(features, targets).predict(query)[0, 0] == pytest.approx(2.0)
    cosine = np.cos(angles[:3])
    weights = np.exp(cosine / 0.1)
    expected = (weights * targets[:3, 0]).sum() / weights.sum()
    assert Retrieval(3, "softmax", 0.1).fit(features, targets).predict(query)[0, 0] == pytest.approx(expected)
    assert Retrieval(100, "mean").fit(features, targets).predict(query)[0, 0] == pytest.approx(16.0)


def test_blocks_are_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    model = Retrieval(5).fit(rng.normal(size=(40, 4)), rng.normal(size=(40, 3)))
    query = rng.normal(size=(17, 4))
    whole = model.predict(query)
    monkeypatch.setattr("stalign.core.retrieval._BLOCK", 4)
    np.testing.assert_allclose(model.predict(query), whole)


def test_bad_values():
    with pytest.raises(ValueError, match="weights"):
        Retrieval(weights="median")
    with pytest.raises(ValueError, match="n_neighbors"):
        Retrieval(0)
    with pytest.raises(ValueError, match="temperature"):
        Retrieval(temperature=0.0)
