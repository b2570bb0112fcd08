from __future__ import annotations

import numpy as np
import pytest

from stalign.core.bilinear import Bilinear


def test_what_is_linear_is_exact():
    rng = np.random.default_rng(0)
    coords = rng.uniform(-50, 90, (200, 2))
    between = Bilinear.around(coords, 7.0)
    linear = np.stack([between.places @ [2.0, -1.0] + 3, between.places[:, 0]], axis=1)
    found = between.between(linear[:, :, None], np.arange(200))
    assert found.shape == (200, 2, 1)
    np.testing.assert_allclose(found[:, 0, 0], coords @ [2.0, -1.0] + 3, atol=1e-4)
    np.testing.assert_allclose(found[:, 1, 0], coords[:, 0], atol=1e-4)


def test_places_depend_on_nothing_but_the_spot():
    rng = np.random.default_rng(1)
    coords = rng.uniform(0, 100, (60, 2))
    whole, some = Bilinear.around(coords, 10.0), Bilinear.around(coords[[5, 9]], 10.0)
    np.testing.assert_array_equal(whole.places[whole.corners[5]], some.places[some.corners[0]])
    np.testing.assert_array_equal(whole.weights[[5, 9]], some.weights)
    mixed = Bilinear.around(coords[::-1], 10.0)
    np.testing.assert_array_equal(mixed.places, whole.places)
    np.testing.assert_array_equal(mixed.corners[::-1], whole.corners)
    assert len(np.unique(whole.places, axis=0)) == len(whole.places)


def test_spots_without_coordinates_have_no_places():
    between = Bilinear.around(np.array([[np.nan, 1.0], [3.0, 4.0]]), 2.0)
    assert (between.weights[0] == 0).all()
    assert len(between.places) == 4
    assert len(Bilinear.around(np.full((2, 2), np.nan), 2.0).places) == 0


@pytest.mark.parametrize("step", [0, -1.0, np.nan, "5"])
def test_steps_are_positive(step):
    with pytest.raises(ValueError, match="`step` to be a positive number"):
        Bilinear.around(np.zeros((1, 2)), step)
