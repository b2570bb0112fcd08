"""tl.few_shot: nested subsets, folds of whole samples, and the baseline."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

import stalign
from stalign.models.weights import load_weights
from stalign.pl import few_shot as draw
from stalign.tl import SGD, Retrieval, few_shot
from stalign.tl._patch_rows import patch_rows


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


def test_folds_hold_whole_samples_of_about_as_many_spots(planted):
    planted.obs["sample"] = [f"s{i % 7}" for i in np.arange(planted.n_obs) ** 2 % 11]
    table = few_shot(planted, 0.5, folds=3, sample_key="sample", use_rep="X_planted", genes=2, seeds=0)
    held = table.drop_duplicates("fold").set_index("fold")["samples"].str.split(", ")
    assert sorted(name for names in held for name in names) == sorted(planted.obs["sample"].unique())
    sizes = planted.obs["sample"].value_counts()
    assert table.drop_duplicates("fold")["n_test"].tolist() == [sizes[names].sum() for names in held]


def test_one_step_of_sgd_by_hand(planted):
    options = {"folds": 2, "sample_key": "library", "use_rep": "X_planted", "genes": list(planted.var_names)}
    model = SGD(epochs=1, lr=0.01, batch_size=10_000, weight_decay=0.0)
    table = few_shot(planted, 1.0, model=model, seeds=0, **options)
    values, x = np.log1p(planted.X), planted.obsm["X_planted"]
    rows = table[(table["model"] == "SGD") & (table["samples"] == "toy_2")]
    held = (planted.obs["library"] == "toy_2").to_numpy()
    mean = values[~held].mean(axis=0)
    step = 0.01 * 2 / 6 * (values[~held] - mean).T @ x[~held]  # of the sum over spots of the mean over genes
    assert rows["mse"].iloc[0] == pytest.approx(np.square(mean + x[held] @ step.T - values[held]).mean(), rel=1e-4)
    assert rows["pearson"].iloc[0] > 0.9
    axes = draw(pd.concat([table, few_shot(planted, 1.0, seeds=0, **options)]), "pearson", show=False)
    assert axes.get_legend_handles_labels()[1] == ["X_planted, SGD", "X_planted, linear", "training mean"]


def test_the_image_tower_is_trained_on_patches():
    adata = stalign.datasets.toy(6, n_sections=2)
    stalign.tl.encode(adata, "hibio-mini", library_key="library", cache=False)
    options = {"folds": 2, "sample_key": "library", "genes": 4, "seeds": 0, "use_rep": "X_hibio-mini_native"}
    fixed = few_shot(adata, 0.2, model=SGD(epochs=2, lr=1e-2), **options)
    trained, again = (few_shot(adata, 0.2, model=SGD("hibio-mini", epochs=2, lr=1e-2), **options) for _ in range(2))
    assert set(trained["use_rep"]) == {"hibio-mini"} and set(fixed["use_rep"]) == {"X_hibio-mini_native"}
    ours, base = trained["model"] == "SGD", trained["model"] == "training mean"
    assert np.isfinite(trained[["mse", "pearson"]].to_numpy()).all()
    assert (trained[ours]["mse"].to_numpy() != fixed[ours]["mse"].to_numpy()).all()
    np.testing.assert_allclose(trained[base]["mse"], fixed[base]["mse"])
    pd.testing.assert_frame_equal(trained, again)
    del adata.uns["spatial"]
    with pytest.raises(ValueError, match="Expected an image to train a tower on"):
        few_shot(adata, 0.5, model=SGD("hibio-mini"), **options)


def test_a_tower_starts_where_the_embedding_is():
    adata = stalign.datasets.toy(6)
    stalign.tl.encode(adata, "hibio-mini", cache=False)
    patches = patch_rows(adata, "hibio-mini")
    tower = load_weights("hibio-mini").network
    found = tower.embed_image(torch.from_numpy(patches[np.arange(len(patches))])).detach().numpy()
    np.testing.assert_allclose(found, adata.obsm["X_hibio-mini_native"], atol=1e-4)


def test_images_find_spots_by_their_sentences(planted):
    rng = np.random.default_rng(0)
    planted.obsm["X_gene"] = planted.obsm["X_planted"] + 0.05 * rng.normal(size=(planted.n_obs, 3))
    planted.obsm["X_gene"][3] = np.nan  # a spot without counts is predicted, and is no reference
    options = {"folds": 2, "sample_key": "library", "use_rep": "X_planted", "genes": 6, "seeds": 0}
    found = few_shot(planted, 1.0, model=Retrieval(20, weights="mean", match="X_gene"), **options)
    found = found[found["model"] == "Retrieval"]
    assert found["pearson"].min() > 0.6
    assert (found["n_train"] + found["n_test"]).tolist() == [planted.n_obs, planted.n_obs - 1]
    planted.obsm["X_gene"] = planted.obsm["X_gene"][:, :2]
    with pytest.raises(ValueError, match="3 in obsm.*2 in obsm"):
        few_shot(planted, 1.0, model=Retrieval(match="X_gene"), **options)
    with pytest.raises(TypeError, match="`fit` and `predict`"):
        few_shot(planted, 1.0, model="lasso", **options)
