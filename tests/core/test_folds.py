"""core.folds: whole samples dealt to folds."""

from __future__ import annotations

import numpy as np

from stalign.core.folds import deal


def test_folds_are_seeded_balanced_and_complete():
    sizes = np.random.default_rng(0).integers(100, 700, 36)
    dealt = [deal(sizes, 4, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(dealt[0], dealt[1])
    assert (dealt[0] != dealt[2]).any()
    for fold in dealt:
        assert np.bincount(fold).tolist() == [9] * 4
        spots = np.bincount(fold, weights=sizes)
        assert spots.max() - spots.min() < 0.06 * spots.mean()


def test_as_many_folds_as_samples():
    assert sorted(deal(np.array([5, 1, 9]), 3, np.random.default_rng(0))) == [0, 1, 2]
