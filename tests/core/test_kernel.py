from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from stalign.core import kernel
from stalign.core.kernel import GaussianMap


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(60, 5))


def test_products_are_the_kernel(points):
    mapped = GaussianMap.fit(points[:40], gamma=0.5)
    squared = ((points[:, None] - points[None, :40]) ** 2).mean(axis=2)
    np.testing.assert_allclose(mapped(points) @ mapped(points[:40]).T, 100 * np.exp(-0.5 * squared), atol=1e-4)


def test_ridge_on_the_map_is_kernel_ridge(points):
    rng = np.random.default_rng(1)
    train, new, y = points[:40], points[40:], rng.normal(size=(40, 3))
    expected = KernelRidge(alpha=0.2, kernel="rbf", gamma=kernel.GAMMA / 5).fit(train, y).predict(new)
    mapped = GaussianMap.fit(train)
    x = mapped(train)
    found = mapped(new) @ np.linalg.solve(x.T @ x + 20.0 * np.eye(x.shape[1]), x.T @ y)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_few_landmarks_are_an_approximation_that_the_seed_decides(points, monkeypatch):
    monkeypatch.setattr(kernel, "LANDMARKS", 30)
    some, again, other = (GaussianMap.fit(points, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(some.landmarks, again.landmarks)
    assert some.landmarks.shape == (30, 5) and not np.array_equal(some.landmarks, other.landmarks)
    squared = ((points[:, None] - points[None]) ** 2).mean(axis=2)
    off = some(points) @ some(points).T - 100 * np.exp(-kernel.GAMMA * squared)
    assert np.abs(off).mean() < 2


def test_equal_points_are_no_harm():
    mapped = GaussianMap.fit(np.ones((4, 2)))
    np.testing.assert_allclose(mapped(np.ones((1, 2))) @ mapped(np.ones((1, 2))).T, 100)
