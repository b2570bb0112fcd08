"""tl.few_shot: nested subsets, folds of whole samples, and the baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stalign.pl import few_shot as draw
from stalign.tl import few_shot


@pytest.fixture
def planted(two):
    """Two sections whose log counts follow a feature."""
    rng = np.random.default_rng(0)
    feature = rng.normal(size=(two.n_obs, 3))
    counts = np.rint(np.exp(2 + feature @ rng.normal(size=(3, 6)) * 0.5))
    two = two[:, :6].copy()
    two.X = counts.astype(np.float32)
    two.obsm["X_planted"], two.obsm["X_noise"] = feature, rng.normal(size=(two.n_obs, 3))
    return two


def test_planted_expression_is_found_and_noise_is_not(planted):
    options = {"folds": 2, "sample_key": "library", "genes": 6, "seeds": (0, 1)}
    table = few_shot(planted, (0.1, 0.5), use_rep=["X_planted", "X_noise"], **options)
    assert len(table) == 2 * 2 * 2 * 2 * 2
    mean = table.groupby(["use_rep", "model", "ratio"])["pearson"].mean()
    assert mean["X_planted", "linear"].min() > 0.9
    assert abs(mean["X_noise", "linear"]).max() < 0.15
    assert (mean[:, "training mean"] == 0).all()
    planted_, base = (table[(table["use_rep"] == "X_planted") & (table["model"] == m)] for m in table["model"].unique())
    assert (planted_["mse"].to_numpy() < 0.5 * base["mse"].to_numpy()).all()
    assert set(table["n_train"]) == {round(r * n) for r in (0.1, 0.5) for n in planted.obs["library"].value_counts()}
    axes = draw(table, show=False)
    assert [ax.get_ylabel() for ax in axes] == ["Pearson", "MSE", "MAE"]
    assert len(axes[0].lines) == 3


def test_training_mean_by_hand(planted):
    table = few_shot(planted, (1.0,), folds=2, sample_key="library", use_rep="X_planted", genes=6, seeds=(0,))
    values = np.log1p(planted.X)
    held = (planted.obs["library"] == "toy_1").to_numpy()
    expected = np.square(values[held] - values[~held].mean(axis=0)).mean()
    assert table[(table["fold"] == 0) & (table["model"] == "training mean")]["mse"].iloc[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"ratios": (0,)}, ValueError, "ratios"),
        ({"ratios": (float("nan"),)}, ValueError, "ratios"),
        ({"genes": 0}, ValueError, "`genes` to be at least 1"),
        ({"genes": "nothing"}, KeyError, "nothing"),
        ({"seeds": ()}, ValueError, "at least one seed"),
        ({"use_rep": []}, ValueError, "one `use_rep`"),
        ({"folds": 1.5}, TypeError, "folds"),
        ({"sample_key": None}, ValueError, "sample_key"),
        ({"folds": 3}, ValueError, "2 samples"),
        ({"genes": ["nothing"]}, KeyError, "nothing"),
        ({"use_rep": "X_none"}, KeyError, "X_none"),
    ],
)
def test_refusals(planted, options, error, text):
    given = {"folds": 2, "sample_key": "library", "use_rep": "X_planted", "genes": 3, **options}
    with pytest.raises(error, match=text):
        few_shot(planted, **given)


def test_one_ratio_and_one_seed(planted):
    options = {"folds": 2, "sample_key": "library", "use_rep": "X_planted", "genes": 3}
    one = few_shot(planted, 0.5, seeds=1, **options)
    pd.testing.assert_frame_equal(one, few_shot(planted, (0.5,), seeds=(1,), **options))
