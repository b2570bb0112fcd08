from __future__ import annotations

import numpy as np
import pytest

from stalign.core.kernel import GaussianMap
from stalign.core.views import Views


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(40, 7))


def test_each_source_is_seen_as_it_is_and_through_its_own_map(features):
    views = Views.fit(features, [(2, 3), (2,)], linear=True, kernel=True, seed=1)
    first, second = GaussianMap.fit(features[:, :5], (2, 3), seed=1), GaussianMap.fit(features[:, 5:], (2,), seed=1)
    expected = [features[:, :5], first(features[:, :5]), features[:, 5:], second(features[:, 5:])]
    np.testing.assert_allclose(views(features), np.concatenate(expected, axis=1))
    assert views.widths(features) == [part.shape[1] for part in expected]


def test_a_linear_view_of_one_source_is_the_features(features):
    views = Views.fit(features, [(7,)], linear=True, kernel=False)
    np.testing.assert_array_equal(views(features), features)
    assert views.widths(features) == [7]
