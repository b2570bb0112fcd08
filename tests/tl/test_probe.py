from __future__ import annotations

import numpy as np
import pytest

import stalign


def test_one_row_per_representation(toy):
    codes = toy.obs["domain"].astype("category").cat.codes.to_numpy()
    toy.obsm["X_good"] = np.eye(codes.max() + 1)[codes] + np.random.default_rng(0).normal(size=(toy.n_obs, 5)) * 0.1
    toy.obsm["X_noise"] = np.random.default_rng(0).normal(size=(toy.n_obs, 5))
    toy.obsm["X_good"][7] = np.nan
    before = set(toy.obs), set(toy.uns)
    scores = stalign.tl.probe(toy, "domain", use_rep=["X_good", "X_noise"])
    assert list(scores.index) == ["X_good", "X_noise"]
    assert scores.loc["X_good", "macro_f1"] > 0.95
    assert scores.loc["X_noise", "macro_f1"] < 0.4
    assert scores.loc["X_good", "n_left_out"] == 1
    assert (set(toy.obs), set(toy.uns)) == before


def test_split_by_library(toy):
    toy.obs["patient"] = [f"p{i % 7}" for i in range(toy.n_obs)]
    toy.obsm["X_noise"] = np.random.default_rng(0).normal(size=(toy.n_obs, 5))
    scores = stalign.tl.probe(toy, "domain", use_rep="X_noise", split="library", library_key="patient", seeds=(0,))
    assert scores.loc["X_noise", "split"] == "library"
    assert np.isnan(scores.loc["X_noise", "macro_f1_sd"])


def test_errors(toy):
    with pytest.raises(KeyError, match="truth"):
        stalign.tl.probe(toy, "layers", use_rep="X_noise")
    with pytest.raises(KeyError, match="tl.encode"):
        stalign.tl.probe(toy, "domain", use_rep="X_noise")
    with pytest.raises(ValueError, match="split"):
        stalign.tl.probe(toy, "domain", split="gene")
