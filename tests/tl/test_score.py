"""tl.score: what is compared, what is left out, and that both are told."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score

from stalign.tl import probe, score


@pytest.fixture
def guessed(two):
    """Two sections with domains that are wrong in one spot of four."""
    rng = np.random.default_rng(0)
    truth = two.obs["domain"].astype(str).to_numpy()
    guess = np.where(rng.random(two.n_obs) < 0.25, rng.choice(np.unique(truth), two.n_obs), truth)
    two.obs["stalign_domain"] = pd.Categorical(guess)
    return two


def test_by_hand(guessed):
    table = score(guessed, "domain", library_key="library")
    assert table["library"].tolist() == ["toy_1", "toy_2", "all"]
    for name, row in table.set_index("library").iterrows():
        rows = slice(None) if name == "all" else (guessed.obs["library"] == name).to_numpy()
        truth, found = (guessed.obs[key].astype(str)[rows] for key in ("domain", "stalign_domain"))
        assert row["ARI"] == pytest.approx(adjusted_rand_score(truth, found))
        assert row["NMI"] == pytest.approx(normalized_mutual_info_score(truth, found))
        assert (row["n_spots"], row["n_scored"], row["n_unlabelled"], row["n_no_domain"]) == (
            len(truth),
            len(truth),
            0,
            0,
        )
        assert (row["n_domains"], row["n_truth"]) == (5, 5)


def test_unlabelled_spots_and_spots_without_a_domain_are_left_out_and_counted(guessed):
    labels = guessed.obs["domain"].astype(object)
    labels.iloc[:3] = np.nan
    labels.iloc[3:8] = ""
    labels.iloc[8:10] = "undetermined"
    guessed.obs["layer"] = labels
    guessed.obs.loc[guessed.obs_names[5:20], "stalign_domain"] = np.nan
    row = score(guessed)  # truth="layer" is the default
    row = row.iloc[0]
    assert (row["n_spots"], row["n_unlabelled"], row["n_no_domain"]) == (guessed.n_obs, 10, 10)
    assert row["n_scored"] == guessed.n_obs - 20
    kept = slice(20, None)
    truth, found = guessed.obs["domain"][kept].astype(str), guessed.obs["stalign_domain"][kept].astype(str)
    assert row["ARI"] == pytest.approx(adjusted_rand_score(truth, found))
    assert row["n_truth"] == 5
    assert score(guessed, ignore=()).iloc[0]["n_truth"] == 6  # "" as well


def test_other_columns_categories_and_numbers(guessed):
    guessed.obs["number"] = guessed.obs["domain"].cat.codes.to_numpy().astype(float)
    guessed.obs["same"] = guessed.obs["domain"]
    assert score(guessed, "number", key="same").iloc[0]["ARI"] == 1.0
    guessed.obs.loc[guessed.obs_names[0], "number"] = np.nan
    assert score(guessed, "number", key="same").iloc[0]["n_unlabelled"] == 1


def test_features_add_scores_without_labels(guessed):
    guessed.obsm["X_stalign"][:4] = np.nan
    found = score(guessed, "domain", use_rep="X_stalign").iloc[0]
    expected = silhouette_score(guessed.obsm["X_stalign"][4:], guessed.obs["stalign_domain"][4:].astype(str))
    assert found["silhouette"] == pytest.approx(expected, abs=1e-5)
    assert found["calinski_harabasz"] > 0 and found["davies_bouldin"] > 0


def test_a_library_without_labels_gets_nan(guessed):
    guessed.obs["half"] = guessed.obs["domain"].astype(object).where(guessed.obs["library"] == "toy_1")
    table = score(guessed, "half", library_key="library").set_index("library")
    assert np.isnan(table.loc["toy_2", "ARI"]) and table.loc["toy_2", "n_scored"] == 0
    assert table.loc["toy_1", "ARI"] == pytest.approx(table.loc["all", "ARI"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"truth": "none"}, "`truth`.*'none'.*Available: .*'domain'"),
        ({"truth": "domain", "key": "none"}, "`key`.*'none'.*stalign_domain"),
        ({"truth": "domain", "library_key": "none"}, "library_key"),
        ({"truth": "domain", "use_rep": "X_none"}, "X_none"),
    ],
)
def test_missing_columns_are_named(guessed, arguments, text):
    with pytest.raises(KeyError, match=text):
        score(guessed, **arguments)


def test_nothing_is_written(guessed):
    before = guessed.obs.copy()
    score(guessed, "domain")
    pd.testing.assert_frame_equal(guessed.obs, before)


def test_measurements_are_no_labels(toy):
    toy.obs["depth"] = np.linspace(0, 1, toy.n_obs)
    toy.obs["stalign_domain"] = toy.obs["domain"]
    text = "column of labels.*obs\\['depth'\\].*'domain'"
    with pytest.raises(ValueError, match=text):
        score(toy, "depth")
    with pytest.raises(ValueError, match=text):
        probe(toy, "depth", use_rep="spatial")
    toy.obs["layer"] = toy.obs["domain"].cat.codes.astype(float)
    assert score(toy, "layer")["ARI"].item() == pytest.approx(1)
