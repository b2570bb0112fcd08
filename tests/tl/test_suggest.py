"""tl.suggest: order, what is left out, and that it beats random labelling."""

from __future__ import annotations

import numpy as np
import pytest

from stalign.tl import annotate, score, suggest


def test_representatives_first_then_uncertain_ones(embedded):
    first = suggest(embedded, 7)
    assert set(first["reason"]) == {"representative"}
    assert len(first.index.unique()) == 7
    embedded.obs["few"] = embedded.obs["domain"].where(embedded.obs_names.isin(first.index))
    then = suggest(embedded, 8, truth="few")
    assert not set(then.index) & set(first.index)
    assert then["reason"].tolist() == ["uncertain"] * 4 + ["representative"] * 4
    assert then["confidence"].between(0, 1).all()
    position = embedded.obs_names.get_indexer(then.index)
    np.testing.assert_array_equal(then[["x", "y"]], embedded.obsm["spatial"][position])


def test_what_is_not_suggested(embedded):
    embedded.obsm["X_stalign"][::2] = np.nan
    found = suggest(embedded, 10)
    assert (embedded.obs_names.get_indexer(found.index) % 2 == 1).all()
    with pytest.raises(ValueError, match="at least 1"):
        suggest(embedded, 0)
    with pytest.raises(TypeError, match="whole number"):
        suggest(embedded, 2.5)
    with pytest.raises(ValueError, match="without a label"):
        suggest(embedded, 3, truth="domain")
    few = np.where(np.arange(embedded.n_obs) == 0, "a", np.where(np.arange(embedded.n_obs) == 1, "b", None))
    embedded.obs["few"] = few  # the first has no features
    assert set(suggest(embedded, 3, truth="few")["reason"]) == {"representative"}
    embedded.obsm["X_stalign"][:] = np.nan
    with pytest.raises(ValueError, match="no spot with features"):
        suggest(embedded, 3)


@pytest.mark.parametrize("ids", [range(5)], ids=["five seeds"])
def test_ten_rounds_of_seven_beat_random_labels(embedded, ids):
    options = {"classifier": "lda", "spatial": False}
    gains = []
    for seed in ids:
        chosen: list[str] = []
        for _ in range(10):
            embedded.obs["few"] = embedded.obs["domain"].where(embedded.obs_names.isin(chosen))
            chosen += list(suggest(embedded, 7, truth="few", random_state=seed).index)
        drawn = np.random.default_rng(seed).choice(embedded.obs_names, 70, replace=False)
        result = []
        for names in (chosen, drawn):
            embedded.obs["few"] = embedded.obs["domain"].where(embedded.obs_names.isin(names))
            annotate(embedded, "few", **options)
            result.append(score(embedded, "domain", key="stalign_annotation")["accuracy"][0])
        gains.append(result[0] - result[1])
    assert np.mean(gains) > 0


@pytest.mark.parametrize("truth", [None, "few"])
def test_order_of_rows_does_not_matter(embedded, truth):
    embedded.obs["few"] = embedded.obs["domain"].where(np.arange(embedded.n_obs) % 9 == 0)
    shuffled = embedded[np.random.default_rng(0).permutation(embedded.n_obs)].copy()
    assert list(suggest(shuffled, 9, truth=truth).index) == list(suggest(embedded, 9, truth=truth).index)
