"""Regression from sections to sections."""

from __future__ import annotations

import numpy as np
import pytest

from stalign.core.folds import shrinkage
from stalign.core.regression import ALPHAS, Regression, _ridge, _ridge_at, centred, fit_mean, fit_model, fit_ridge
from stalign.core.standardise import spatial_blocks, standardise


def sections(n_sections=4, n=80, f=6, seed=0):
    """Sections whose features are shifted and scaled, with two genes that follow them and one that does not."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_sections), n)
    x = rng.normal(size=(len(groups), f))
    y = np.column_stack([x[:, 0] - x[:, 1], 0.5 * x[:, 2], np.zeros(len(x))])
    y += rng.normal(0, 0.5, y.shape) + rng.normal(0, 1, (n_sections, 3))[groups] + 4
    stained = x * rng.uniform(0.5, 3, (n_sections, f))[groups] + rng.normal(0, 5, (n_sections, f))[groups]
    return stained, y, groups


def test_standardise_by_section_undoes_shift_and_scale():
    rng = np.random.default_rng(0)
    part = rng.normal(size=(50, 3))
    features = np.concatenate([part, part * (1, 7, 0.1) + (3, -2, 9)])
    groups = np.repeat(["a", "b"], 50)
    for how in ("section", "rank"):
        found = standardise(features, groups, how=how)
        np.testing.assert_allclose(found[:50], found[50:], atol=1e-9)
        np.testing.assert_allclose(found[:50].mean(axis=0), 0, atol=0.05)
    raw = standardise(features, groups, how="reference", reference=part)
    np.testing.assert_allclose(raw[:50].std(axis=0), 1)
    assert np.abs(raw[50:, 2].mean()) > 5


def test_standardise_cuts_off_outliers_and_zeroes_what_does_not_vary():
    features = np.random.default_rng(0).normal(size=(200, 2))
    features[0, 0], features[:, 1] = 1e6, 0.3
    found = standardise(features, np.zeros(200))
    assert found.max() == 4.0 and (found[:, 1] == 0).all()
    assert (standardise(features[:1], np.zeros(1)) == 0).all()
    with pytest.raises(ValueError, match="standardise"):
        standardise(features, np.zeros(200), how="batch")


def test_ranks_have_normal_scores_and_ties_share_one():
    found = standardise(np.array([[5.0], [1.0], [1.0], [9.0]]), np.zeros(4), how="rank")[:, 0]
    assert found[1] == found[2] < found[0] < found[3] == pytest.approx(1.1503, abs=1e-4)  # normal quantile of 3.5 / 4


def test_blocks_are_compact():
    y, x = np.divmod(np.arange(400), 20)
    coords = np.column_stack([x, y]).astype(float)
    coords[7] = np.nan
    blocks = spatial_blocks(coords)
    assert set(blocks) == set(range(5)) and np.bincount(blocks).min() > 40
    seen = np.isfinite(coords[:, 0])
    within = np.mean([coords[seen & (blocks == block)].var(axis=0).sum() for block in range(5)])
    assert within < 0.4 * coords[seen].var(axis=0).sum()
    assert (spatial_blocks(np.full((4, 2), np.nan)) == 0).all()


@pytest.mark.parametrize("n", [30, 8])
def test_ridge_is_the_textbook_solution(n):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 12)), rng.normal(size=(n, 3))
    for alpha in (0.01, 1.0):
        expected = Ridge(alpha=alpha * n, fit_intercept=False, solver="cholesky").fit(x, y).coef_.T
        np.testing.assert_allclose(_ridge(x, y)(alpha), expected, atol=1e-8)
        np.testing.assert_allclose(_ridge_at(alpha, x, y), expected, atol=1e-8)


def test_shrinkage_by_hand():
    truth = np.array([2.0, -2.0, 1.0, -1.0])
    predicted = np.array([4.0, -4.0, 2.0, -2.0])  # twice too large, in both folds alike
    hits = np.array([[(truth[:2] * predicted[:2]).sum()], [(truth[2:] * predicted[2:]).sum()]])
    sizes = np.array([[(predicted[:2] ** 2).sum()], [(predicted[2:] ** 2).sum()]])
    assert shrinkage(hits, sizes)[0] == pytest.approx(0.5)
    assert shrinkage(np.array([[3.0], [-3.0]]), np.ones((2, 1)))[0] == 0  # the folds disagree
    assert shrinkage(-hits, sizes)[0] == 0  # never against the prediction
    assert shrinkage(4 * hits, sizes)[0] == 1
    assert shrinkage(hits[:1], sizes[:1])[0] == 0  # one fold says nothing
    assert shrinkage(hits, 0 * sizes)[0] == 0


def test_centred_takes_group_means():
    values = np.array([[1.0], [3.0], [10.0]])
    np.testing.assert_allclose(centred(values, np.array(["a", "a", "b"])), [[-1], [1], [0]])
    np.testing.assert_allclose(values, [[1], [3], [10]])


def test_ridge_predicts_another_section_and_gives_the_mean_where_it_cannot():
    x, y, groups = sections(5)
    seen, new = groups < 4, groups == 4
    scaled = standardise(x, groups)
    found = fit_ridge(scaled[seen], y[seen], groups[seen], groups[seen])
    predicted = found.predict(scaled[new], groups[new])
    assert [np.corrcoef(predicted[:, gene], y[new, gene])[0, 1] > 0.6 for gene in (0, 1)] == [True, True]
    assert found.alpha[0] in ALPHAS and (found.shrink[:2] > 0.7).all()
    assert found.shrink[2] < 0.3 and predicted[:, 2].std() < 0.05
    np.testing.assert_allclose(predicted.mean(axis=0), y[seen].mean(axis=0), atol=0.05)
    assert (predicted >= y[seen].min(axis=0)).all() and (predicted <= y[seen].max(axis=0)).all()


def test_stain_shift_breaks_reference_standardisation_but_not_that_by_section():
    x, y, groups = sections(5)
    seen, new = groups < 4, groups == 4
    error = {}
    for how in ("section", "reference"):
        scaled = standardise(x, groups, how=how, reference=x[seen])
        fold = groups[seen] if how == "section" else np.zeros(seen.sum(), int)
        found = fit_ridge(scaled[seen], y[seen], fold, groups[seen])
        deviation = found.predictor(scaled[new])[:, :2]
        error[how] = np.mean((centred(deviation, groups[new]) - centred(y[new, :2], groups[new])) ** 2)
    assert error["section"] < 0.7 * error["reference"]


def test_pure_noise_is_predicted_by_about_the_mean():
    rng = np.random.default_rng(0)
    x, y, groups = rng.normal(size=(300, 40)), rng.normal(size=(300, 30)), np.repeat(np.arange(3), 100)
    found = fit_ridge(x[groups < 2], y[groups < 2], groups[groups < 2], groups[groups < 2])
    predicted = found.predict(x[groups == 2], groups[groups == 2])
    truth = y[groups == 2]
    assert ((predicted - truth) ** 2).mean() < 1.05 * ((y[groups < 2].mean(axis=0) - truth) ** 2).mean()


def test_penalty_grows_with_noise():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 60)
    x = rng.normal(size=(180, 40))
    signal = x @ rng.normal(size=(40, 4))
    clean, noisy = (fit_ridge(x, signal + rng.normal(0, noise, signal.shape), groups, groups) for noise in (0.01, 12.0))
    assert clean.alpha < noisy.alpha


def test_any_model_is_shrunk_on_held_out_folds():
    from sklearn.tree import DecisionTreeRegressor

    x, y, groups = sections(4)
    scaled = standardise(x, groups)
    calls = []

    def fit(features, targets):
        calls.append(len(features))
        tree = DecisionTreeRegressor(random_state=0).fit(features, targets)
        return tree.predict

    found = fit_model(fit, scaled, y, groups, groups)
    assert calls == [240, 240, 240, 240, 320]
    assert 0.2 < found.shrink[0] < 0.9 and found.shrink[2] < 0.2  # a tree overfits
    assert found.alpha == ()


def test_one_fold_gives_the_mean():
    x, y, groups = sections(1)
    found = fit_ridge(x, y, groups, np.zeros(80, int))
    np.testing.assert_allclose(found.predict(x), np.tile(y.mean(axis=0), (80, 1)))


def test_prediction_stays_in_the_range_of_the_reference():
    none = np.zeros((0, 1))
    found = Regression(
        np.zeros(1), np.zeros(1), np.zeros(1), np.array([-1.0]), np.array([2.0]), np.ones(1), lambda x: x, none, none
    )
    np.testing.assert_allclose(found.predict(np.array([[-9.0], [0.5], [9.0]])), [[-1], [0.5], [2]])


def test_lengths_are_checked():
    with pytest.raises(ValueError, match="for every spot"):
        fit_ridge(np.zeros((3, 1)), np.zeros((3, 1)), np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="at least two spots"):
        fit_ridge(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), np.zeros(1))


def test_the_mean_of_one_view_is_its_ridge_regression():
    x, y, groups = sections(4)
    scaled = standardise(x, groups)
    one, ridge = fit_mean(scaled, [6], y, groups, groups), fit_ridge(scaled, y, groups, groups)
    np.testing.assert_array_equal(one.predict(scaled, groups), ridge.predict(scaled, groups))


def test_a_view_that_tells_nothing_hardly_counts_in_the_mean():
    x, y, groups = sections(5)
    seen, new = groups < 4, groups == 4
    noise = np.random.default_rng(3).normal(size=(len(x), 30))
    views = np.concatenate([standardise(x, groups), standardise(noise, groups)], axis=1)
    found = fit_mean(views[seen], [6, 30], y[seen], groups[seen], groups[seen])
    ridge = fit_ridge(views[seen, :6], y[seen], groups[seen], groups[seen])
    error = [
        np.square(fit.predict(x_new, groups[new])[:, :2] - y[new, :2] - (fit.level - y[new].mean(axis=0))[:2]).mean()
        for fit, x_new in ((found, views[new]), (ridge, views[new, :6]))
    ]
    assert error[0] < 1.1 * error[1]
    assert len(found.alpha) == 2


def test_two_views_are_better_than_either():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 80)
    parts = [standardise(rng.normal(size=(320, 8)), groups) for _ in range(2)]
    y = sum(part @ rng.normal(size=(8, 5)) for part in parts) + rng.normal(0, 1, (320, 5))
    seen, new = groups < 3, groups == 3
    views = np.concatenate(parts, axis=1)
    both = fit_mean(views[seen], [8, 8], y[seen], groups[seen], groups[seen]).predict(views[new], groups[new])
    alone = [fit_ridge(p[seen], y[seen], groups[seen], groups[seen]).predict(p[new], groups[new]) for p in parts]

    def right(predicted):
        return np.mean([np.corrcoef(predicted[:, gene], y[new, gene])[0, 1] for gene in range(5)])

    assert right(both) > max(map(right, alone)) + 0.05
