"""What the steps wrote down, in the forms that it may have."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest

from stalign.core.training_data import trained_on
from stalign.data import record, result_record
from stalign.datasets import toy as make_toy
from stalign.pl._records import by_section, from_weights, seen_in_training, split_of

CARD = [
    {"section": "S1", "donor": "D1", "study": "Author 2020", "spots": 7},
    {"section": "S10", "donor": "D2", "study": "Author 2020", "spots": 9},
    {"section": "S2", "donor": None, "study": "Other 2021", "spots": 3},
]


@pytest.fixture
def table():
    adata = make_toy(n_rows=6)
    adata.uns["stalign"] = {"embed": {"weights": "w", "training_sections": pd.DataFrame(CARD).fillna({"donor": ""})}}
    return adata


def test_sections_of_a_dict_and_of_a_table():
    old = {"a": {"modality": "both", "n_valid": 3}, "b": {"modality": "gene"}}
    new = pd.DataFrame({"section": ["a", "b"], "modality": ["both", "gene"], "n_valid": [3.0, np.nan]})
    assert by_section(new) == {name: {"section": name, **row} for name, row in old.items()} == by_section(old)
    assert by_section(new.to_dict(orient="records")) == by_section(new)
    for other in (None, "text", 3, np.zeros(2), {"a": 1}, pd.DataFrame()):
        assert all("modality" not in row for row in by_section(other).values())


@pytest.mark.parametrize("value", [np.array(["a"]), "text", {"embed": 3}, None])
def test_an_entry_of_another_tool_is_no_record(table, value):
    table.uns["stalign"] = value
    assert record(table, "stalign", "embed") == {} and split_of(table) == "" and from_weights(table)
    assert seen_in_training(table, {"S1": np.arange(7)}) == []


def test_seen_sections_are_those_of_the_very_name(table):
    def said(name, n):
        return seen_in_training(table, {name: np.arange(n)})

    assert said("S1", 7) == ["S1 was in the training of w (Author 2020, donor D1)."]
    assert said("S1", 8) == ["A section named S1 was in the training of w (Author 2020, donor D1, 7 spots; here 8)."]
    assert said("S", 7) == said("S100", 7) == said("s1", 7) == []
    table.obs["patient_id"] = "D2"
    assert said("mine", 4) == ["mine: other sections of donor D2 were in the training of w (Author 2020)."]
    assert said("S2", 3) == ["S2 was in the training of w (Other 2021)."]


@pytest.mark.parametrize("earlier", [False, True])
def test_the_card_of_packaged_weights_is_read_where_the_record_says_nothing(table, earlier):
    params = {"weights": "stalign-mini"}
    table.uns["stalign"] = {"embed": params if earlier else result_record(params)}
    rows = {"A1": np.arange(4)}
    assert "A section named A1 was in the training of stalign-mini (Andersson 2021, donor A, 346 spots; here 4)." in (
        seen_in_training(table, rows)
    )
    params["sha256"] = "ab" * 32
    table.uns["stalign"] = {"embed": params if earlier else result_record(params)}  # other weights of the same name
    assert seen_in_training(table, rows) == []
    assert seen_in_training(table, rows, card={"meta": {"training_data": ["A1"]}}) == [
        "A section named A1 was in the training of stalign-mini."
    ]


def test_records_survive_a_file(table, tmp_path):
    table.uns["stalign"]["predict_genes"] = {"split": "reference", "n_reference": 12345, "reference_sections": ["a/b"]}
    table.write_h5ad(tmp_path / "x.h5ad")
    back = anndata.read_h5ad(tmp_path / "x.h5ad")
    rows = {"S1": np.arange(7)}
    assert seen_in_training(back, rows) == seen_in_training(table, rows) != []
    assert split_of(back) == split_of(table) == "Fitted to 12,345 spots of the reference a/b"


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"split": "spot"}, "Held-out spots of the same section, fitted to their neighbours"),
        ({"split": "section", "split_key": "slide"}, "Fitted to other sections, each value of obs['slide'] held out"),
        ({"split": "patient", "split_key": "donor"}, "Fitted to other patients, each value of obs['donor'] held out"),
        ({"split": "reference", "n_reference": 20}, "Fitted to 20 spots of a reference"),
        (
            {"split": "reference", "n_reference": 20, "reference_sections": list("abcde")},
            "Fitted to 20 spots of the reference a, b, c and 2 more",
        ),
        ({}, ""),
    ],
)
def test_what_a_prediction_was_fitted_to(table, record, said):
    table.uns["stalign"]["predict_genes"] = record  # as files of earlier versions have it
    assert split_of(table) == said
    asked = {name: value for name, value in record.items() if name.startswith("split")}
    found = {name: value for name, value in record.items() if name not in asked}
    table.uns["stalign"]["predict_genes"] = result_record(asked, **found)
    assert split_of(table) == said


def test_domains_of_other_features_do_not_come_from_the_weights(table):
    table.uns["stalign"]["domains"] = {"use_rep": "X_uni_niche"}
    assert not from_weights(table)
    table.uns["stalign_domain"] = {"params": {"use_rep": "X_stalign"}}
    assert from_weights(table)


def test_trained_on_takes_names_alone():
    assert trained_on(["S1", "S10"], ["S1"]) == [{"section": "S1"}]
    assert trained_on([], ["S1"]) == [] == trained_on([{"donor": None}], [], [])


def test_whether_reliability_was_told_across_patients():
    from stalign.pl._findings import gene_table

    predicted = anndata.AnnData(np.zeros((2, 2), np.float32))
    predicted.var["reliability"], predicted.var["reliable"] = [0.5, 0.1], [True, False]
    said = {"patient": "within the reference's patient only", "unknown": "within one patient only", "patients": ""}
    for scope, words in said.items():
        predicted.uns["stalign"] = {"predict_genes": {"split": "reference", "reliable_within": scope}}
        page = gene_table(predicted).unescape()
        assert (words in page) if words else ("only" not in page)
        assert "1 of 2 genes are not reliable" in page
