from __future__ import annotations

import numpy as np
import pytest

from stalign.core.regression import fit_ridge
from stalign.core.reliability import is_reliable, levels, reliability, residual_range
from stalign.core.standardise import standardise


def made(n_sections=5, n=120, seed=0, level=1.0):
    """Sections with one gene that follows the features everywhere, one that turns its sign, and one of noise."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_sections), n)
    x = rng.normal(size=(len(groups), 5))
    sign = np.where(groups % 2, 1.0, -1.0)
    y = np.column_stack([x[:, 0], sign * x[:, 1], np.zeros(len(x))]) + rng.normal(0, 0.5, (len(x), 3))
    return x, y + 5 + rng.normal(0, level, (n_sections, 3))[groups], groups


def test_genes_that_hold_across_sections_are_told_from_those_that_do_not():
    x, y, groups = made()
    model = fit_ridge(standardise(x, groups), y, groups, groups)
    mean, error = reliability(y, model.pattern, groups, groups)
    assert mean[0] > 0.8 and is_reliable(mean, error).tolist() == [True, False, False]
    assert np.isfinite(model.held_out).all()


def test_held_out_predictions_saw_nothing_of_their_fold():
    x, y, groups = made()
    before = fit_ridge(standardise(x, groups), y, groups, groups, alphas=(0.1,))
    y[groups == 2] = 100 * np.random.default_rng(1).normal(size=(120, 3))
    after = fit_ridge(standardise(x, groups), y, groups, groups, alphas=(0.1,))
    rows = groups == 2
    np.testing.assert_allclose(after.pattern[rows], before.pattern[rows], atol=1e-5)
    assert np.abs(after.held_out[~rows] - before.held_out[~rows]).max() > 1
    within = np.ptp(before.held_out[rows], axis=0)
    assert (np.abs(after.held_out[rows] - before.held_out[rows]).max(axis=0) <= within + 1e-5).all()


def test_one_fold_tells_nothing():
    x, y, groups = made(1)
    model = fit_ridge(x, y, groups, groups)
    mean, error = reliability(y, model.pattern, groups, groups)
    assert np.isnan(mean).all() and not is_reliable(mean, error).any()
    assert np.isnan(residual_range(y, model.held_out, 0.9)).all()


def test_levels_count_units_alike_where_they_differ_and_spots_where_they_do_not():
    rng = np.random.default_rng(0)
    units = np.repeat([0, 1, 2], [400, 40, 40])
    differ = rng.normal(0, 0.1, len(units)) + np.array([0.0, 3.0, 6.0])[units]
    same = rng.normal(0, 1.0, len(units))
    level, spread = levels(np.column_stack([differ, same]), units)
    assert level[0] == pytest.approx(3.0, abs=0.05) and spread[0] == pytest.approx(3.0, abs=0.4)
    assert level[1] == pytest.approx(same.mean(), abs=0.1) and spread[1] < 0.3
    one, unknown = levels(np.column_stack([differ]), np.zeros(len(units)))
    assert one[0] == pytest.approx(differ.mean()) and np.isnan(unknown).all()


def test_intervals_hold_their_share_of_new_sections():
    covered = []
    for seed in range(6):
        x, y, groups = made(8, seed=seed, level=0.3)
        seen, new = groups < 7, groups == 7
        model = fit_ridge(standardise(x, groups)[seen], y[seen], groups[seen], groups[seen])
        below, above = residual_range(y[seen], model.held_out, 0.8)
        predicted = model.predict(standardise(x, groups)[new], groups[new])
        covered.append(((y[new] >= predicted + below) & (y[new] <= predicted + above)).mean())
    assert 0.7 < np.mean(covered) < 0.9
    assert np.isnan(residual_range(y[:5], y[:5], 0.9)).all()  # five spots can't tell a tenth
