"""Suggested spots: representative, uncertain, spread."""

from __future__ import annotations

import numpy as np
import pytest

from stalign.core.suggestions import informative, representatives


def test_representatives_are_one_per_group():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), [40, 30, 20, 10])
    features = 20 * np.eye(4)[groups] + rng.normal(size=(100, 4))
    found = representatives(features, 4)
    assert groups[found].tolist() == [0, 1, 2, 3]  # large ones first
    assert len(representatives(features[:3], 10)) == 3
    assert len(representatives(features[:0], 3)) == 0
    assert len(set(representatives(features, 100))) == len(representatives(features, 100))


def test_informative_spots_are_uncertain_and_apart():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 3))
    probability = np.tile([0.99, 0.01], (200, 1))
    doubtful = np.arange(40)
    probability[doubtful] = [0.52, 0.48]
    features[:20] += 30
    found = informative(features, probability, np.full((200, 2), np.nan), 8)
    assert len(found) == len(set(found)) == 8
    assert set(found) <= set(doubtful)
    assert (found < 20).any()
    assert (found >= 20).any()
    with pytest.raises(ValueError, match="two classes"):
        informative(features, probability[:, :1], np.zeros((200, 2)), 3)
