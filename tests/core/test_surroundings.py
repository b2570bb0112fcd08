from __future__ import annotations

import numpy as np

from stalign.core.surroundings import gaussian_mean


def test_is_the_weighted_mean_of_all_spots_and_leaves_unknown_ones_out():
    rng = np.random.default_rng(0)
    coords, values = 100.0 * np.stack(np.divmod(np.arange(60), 8), axis=1), rng.normal(size=(60, 3))
    values[7], coords[9] = np.nan, np.nan
    found = gaussian_mean(values, coords, 150.0)
    seen = np.setdiff1d(np.arange(60), [7, 9])
    distance = np.linalg.norm(coords[seen, None] - coords[seen], axis=2)
    weights = np.exp(-((distance / 150) ** 2) / 2) * (distance <= 450)
    expected = weights @ values[seen] / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[seen], expected, atol=1e-9)
    assert np.isnan(found[[7, 9]]).all()


def test_the_density_of_spots_makes_no_difference():
    def mean(pitch):
        x = np.arange(0, 2000, pitch) + pitch / 2
        coords = np.stack(np.meshgrid(x, x), axis=-1).reshape(-1, 2)
        found = gaussian_mean(coords[:, :1] ** 2, coords, 200.0)
        return found[np.argmin(np.linalg.norm(coords - 1000, axis=1)), 0]

    assert abs(mean(20.0) / mean(100.0) - 1) < 0.15


def test_no_spots():
    assert gaussian_mean(np.zeros((0, 2)), np.zeros((0, 2)), 10.0).shape == (0, 2)
    assert np.isnan(gaussian_mean(np.full((3, 2), np.nan), np.zeros((3, 2)), 10.0)).all()
