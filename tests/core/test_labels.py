"""One reading of labels for all that uses them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stalign.core.labels import NO_LABEL, as_labels
from stalign.core.probe import linear_probe
from stalign.pl._labels import read_labels
from stalign.tl import probe, score

FORMS = {
    "list": lambda values: values,
    "object": lambda values: np.array(values, dtype=object),
    "series": pd.Series,
    "categorical": lambda values: pd.Series(pd.Categorical(values)),
    "string": lambda values: pd.Series(pd.array(values, dtype="string")),
}


@pytest.mark.parametrize("form", FORMS)
def test_text_in_any_form(form):
    found = as_labels(FORMS[form](["L1", "", None, "NA", "x y", " undetermined ", "Na", "unknown"]))
    assert found.dtype == object
    assert found.tolist() == ["L1", None, None, None, "x y", None, "Na", "unknown"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([1, 2]), ["1", "2"]),
        (np.array([1.0, np.nan, 2.5]), ["1", None, "2.5"]),
        (pd.Series([1, None], dtype="Int64"), ["1", None]),
        (np.array([True, False]), ["True", "False"]),
        (pd.Series([True, None], dtype="boolean"), ["True", None]),
        (np.array([b"a", b"nan"]), ["a", None]),
        ([pd.NA, pd.NaT, np.nan, None, np.float32(3)], [None, None, None, None, "3"]),
        ([], []),
    ],
)
def test_other_types(values, expected):
    assert as_labels(values).tolist() == expected


def test_ignored_labels_can_be_others():
    values = ["", "nan", "a", None, np.nan]
    assert as_labels(values, ignore=()).tolist() == ["", "nan", "a", None, None]
    assert as_labels(values, ignore=["a", 7]).tolist() == ["", "nan", None, None, None]


@pytest.mark.parametrize("value", [*NO_LABEL, None, np.nan])
def test_score_probe_and_figures_agree_on_what_is_no_label(toy, value):
    labels = toy.obs["domain"].astype(object)
    labels.iloc[:9] = value
    toy.obs["layer"], toy.obs["stalign_domain"] = labels, toy.obs["domain"]
    toy.obsm["X_noise"] = np.random.default_rng(0).normal(size=(toy.n_obs, 2))
    assert score(toy, "layer")["n_unlabelled"].item() == 9
    left_out = probe(toy, "layer", use_rep="X_noise", seeds=(0,))
    assert left_out["n_left_out"].item() == 9 and left_out["n_classes"].item() == 5
    assert int((read_labels(toy, "layer").codes < 0).sum()) == 9
    toy.obs["stalign_domain"] = labels
    assert score(toy, "domain")["n_no_domain"].item() == 9


def test_a_probe_takes_what_a_table_holds():
    labels = pd.Series(pd.Categorical(["a", "b", None, "c"] * 20))
    found = linear_probe(np.random.default_rng(0).normal(size=(80, 2)), labels, seeds=(0,), alphas=(1.0,))
    assert found.n_left_out == 20 and found.classes == ("a", "b", "c")
