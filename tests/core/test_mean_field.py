"""Mean field: by hand, and what is held."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from stalign.core.mean_field import mean_field


def _chain(n):
    return sparse.diags([np.ones(n - 1), np.ones(n - 1)], [-1, 1], format="csr")


def test_converges_to_the_fixed_point():
    logs = np.log([[0.7, 0.3], [0.4, 0.6]])
    found = mean_field(logs, _chain(2), 0.8, n_iter=200)
    expected = logs + 0.8 * found[::-1]
    expected = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_strength_0_and_spots_without_neighbours_keep_their_probabilities():
    probability = np.array([[0.7, 0.3], [0.2, 0.8]])
    np.testing.assert_allclose(mean_field(np.log(probability), _chain(2), 0.0), probability)
    none = sparse.csr_matrix((2, 2))
    np.testing.assert_allclose(mean_field(np.log(probability), none, 3.0), probability, atol=1e-3)


def test_given_labels_are_held_and_pull_their_neighbours():
    logs = np.log([[0.5, 0.5], [0.55, 0.45], [0.5, 0.5]])
    found = mean_field(logs, _chain(3), 2.0, given=np.array([1, -1, 1]))
    np.testing.assert_array_equal(found[[0, 2]], [[0, 1], [0, 1]])
    assert found[1, 1] > 0.9


@pytest.mark.parametrize("strength", [-1, float("nan")])
def test_bad_strength(strength):
    with pytest.raises(ValueError, match="strength"):
        mean_field(np.zeros((2, 2)), _chain(2), strength)


def test_graph_of_another_size():
    with pytest.raises(ValueError, match="3 by 3"):
        mean_field(np.zeros((3, 2)), _chain(2), 1.0)
