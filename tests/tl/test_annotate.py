"""tl.annotate: completion, carrying over, records, and what it refuses."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from sklearn.neighbors import KNeighborsClassifier
from tests.tl.conftest import add_features

import stalign
from stalign.tl import annotate, annotation_model, score

KEY = "stalign_annotation"
PLAIN = {"classifier": "lda", "spatial": False}


@pytest.fixture
def few(embedded):
    """The toy section with one label in six."""
    embedded.obs["few"] = embedded.obs["domain"].where(np.arange(embedded.n_obs) % 6 == 0)
    return embedded


def accuracy(adata, rows=slice(None)):
    return (adata.obs["domain"].astype(str) == adata.obs[KEY].astype(str)).to_numpy()[rows].mean()


def test_completes_a_section_and_records_it(few, tmp_path):
    few.uns["few_colors"] = [f"#00000{i}" for i in range(5)]
    annotate(few, "few")
    given = few.obs[f"{KEY}_given"].to_numpy()
    np.testing.assert_array_equal(given, few.obs["few"].notna())
    assert (few.obs[KEY].astype(str) == few.obs["few"].astype(str))[given].all()
    assert accuracy(few, ~given) > 0.8
    assert list(few.obs[KEY].cat.categories) == list(few.obs["few"].cat.categories)
    assert few.uns[f"{KEY}_colors"] == [f"#00000{i}" for i in range(5)]
    probability = few.obsm[f"{KEY}_probability"]
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(few.obs[f"{KEY}_confidence"], probability.max(axis=1))
    assert (few.obs[f"{KEY}_confidence"][given] == 1).all()
    assert few.uns[KEY]["params"]["truth"] == "few"
    few.write_h5ad(tmp_path / "a.h5ad")
    again = read_h5ad(tmp_path / "a.h5ad")
    assert annotation_model(again).names == annotation_model(few).names
    table = score(few, "domain", key=KEY)
    assert table["n_given"][0] == given.sum()
    assert table["n_scored"][0] == (~given).sum()
    assert table["accuracy"][0] == pytest.approx(accuracy(few, ~given))
    assert "accuracy" not in score(few, "domain", key="few")


def test_carries_labels_to_another_section_and_from_a_saved_model(few, tmp_path):
    query = few.copy()
    del query.obs["few"]
    annotate(query, "few", reference=few, **PLAIN)
    assert not query.obs[f"{KEY}_given"].any()
    assert accuracy(query) > 0.8
    other = few.copy()
    del other.obs["few"]
    annotate(other, "few", reference=annotation_model(query).save(tmp_path / "m"))
    assert (other.obs[KEY] == query.obs[KEY]).all()
    np.testing.assert_allclose(other.obsm[f"{KEY}_probability"], query.obsm[f"{KEY}_probability"], atol=1e-5)


def test_labels_of_the_query_count_beside_the_reference(few):
    query = few.copy()
    query.obs["few"] = pd.Categorical(np.where(np.arange(query.n_obs) < 9, "new", None))
    annotate(query, "few", reference=few, **PLAIN)
    assert list(query.obs[KEY].cat.categories) == [*few.obs["few"].cat.categories, "new"]
    assert (query.obs[KEY][:9] == "new").all()
    annotate(query, "few", reference=few, overwrite=True, **PLAIN)
    assert query.obs[f"{KEY}_given"].sum() == 9
    assert query.obs[f"{KEY}_confidence"][:9].max() < 1


def test_reference_that_is_the_query(few, log):
    annotate(few, "few", reference=few, **PLAIN)
    assert "their own labels are completed" in log.text
    found = few.obs[KEY].copy()
    annotate(few, "few", **PLAIN)
    assert (few.obs[KEY] == found).all()


@pytest.mark.parametrize("nothing", ["", "nan", "unknown", "undetermined", None, np.nan])
def test_values_that_are_no_labels(few, nothing):
    text = few.obs["few"].astype(object)
    few.obs["text"] = text.where(text.notna(), nothing)
    annotate(few, "text", **PLAIN)
    assert list(few.obs[KEY].cat.categories) == sorted(few.obs["domain"].unique())


def test_several_sections_and_several_references(two):
    first = (two.obs["library"] == "toy_1").to_numpy()
    two.obs["part"] = two.obs["domain"].where(first)
    annotate(two, "part", library_key="library", **PLAIN)
    assert accuracy(two, ~first) > 0.7
    one, other = two[first].copy(), two[~first].copy()
    one.obs["layer"] = one.obs["domain"]
    annotate(other, reference=[one, one.copy()], **PLAIN)
    assert accuracy(other) > 0.7


def test_spots_without_features(few):
    few.obsm["X_stalign"][[1, 6, 13]] = np.nan  # 6 has a label
    annotate(few, "few", **PLAIN)
    assert few.obs[KEY].isna().to_numpy().nonzero()[0].tolist() == [1, 13]
    assert few.obs[KEY].iloc[6] == few.obs["few"].iloc[6]
    assert np.isnan(few.obsm[f"{KEY}_probability"][1]).all()


def test_unknown_spots(few):
    text = few.obs["domain"].astype(object)
    few.obs["some"] = text.where((text != "WM") & (np.arange(few.n_obs) % 3 == 0), None)
    few.obsm["X_stalign"][(text == "WM").to_numpy()] += 5 * np.abs(few.obsm["X_stalign"]).max()
    annotate(few, "some", unknown=True, **PLAIN)
    unknown = (few.obs[KEY] == "unknown").to_numpy()
    assert unknown[(text == "WM").to_numpy()].mean() > 0.9
    assert unknown[(text != "WM").to_numpy()].mean() < 0.1
    assert len(few.uns[f"{KEY}_colors"]) == len(few.obs[KEY].cat.categories)


def test_a_label_called_unknown_is_not_mixed_with_unknown_spots(few):
    few.obs["some"] = few.obs["few"].astype(object).replace("WM", "unknown")
    with pytest.raises(ValueError, match="no label 'unknown'"):
        annotate(few, "some", unknown=True, ignore=(), **PLAIN)
    annotate(few, "some", ignore="L1", **PLAIN)
    assert list(few.obs[KEY].cat.categories) == ["L2/3", "L4", "L5/6", "unknown"]


@pytest.mark.parametrize("kind", ["Int64", "float", "category"])
def test_labels_that_are_whole_numbers(few, kind):
    number = pd.Series(few.obs["few"].cat.codes, index=few.obs_names).replace({2: 10}).where(few.obs["few"].notna())
    few.obs["number"] = number.astype(kind)
    annotate(few, "number", **PLAIN)
    assert list(few.obs[KEY].cat.categories) == ["0", "1", "3", "4", "10"]


def test_labels_that_a_model_does_not_know_are_kept(few):
    annotate(few, "few", **PLAIN)
    query = few.copy()
    query.obs["few"] = few.obs["few"].astype(object).where(few.obs["few"] != "WM", "other")
    annotate(query, "few", reference=annotation_model(few))
    other = (query.obs["few"] == "other").to_numpy()
    assert other.any()
    assert (query.obs[KEY] == "other").to_numpy().tolist() == other.tolist()
    assert list(query.obs[KEY].cat.categories) == ["L1", "L2/3", "L4", "L5/6", "WM", "other"]
    assert query.obsm[f"{KEY}_probability"].shape == (few.n_obs, 6)
    assert (query.obsm[f"{KEY}_probability"][~other, 5] == 0).all()
    colors = query.uns[f"{KEY}_colors"]
    assert colors[:5] == list(few.uns[f"{KEY}_colors"])
    assert len(set(colors)) == 6
    assert query.uns[KEY]["labels"][5] == "other"


def test_a_section_of_several_without_features(two, recwarn):
    first = (two.obs["library"] == "toy_1").to_numpy()
    two.obsm["X_stalign"][first] = np.nan
    annotate(two, "domain", library_key="library", overwrite=True, **PLAIN)
    assert two.obs[KEY].isna().to_numpy().tolist() == first.tolist()
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_other_classifiers_and_embeddings(few):
    few.obsm["X_other"] = few.obsm["X_stalign"][:, :7].astype(np.float64)
    annotate(few, "few", classifier=KNeighborsClassifier(5), use_rep="X_other", key_added="mine")
    assert few.uns["mine"]["params"]["use_rep"] == "X_other"
    assert {"mine", "mine_confidence", "mine_given", "mine_novelty"} <= set(few.obs)
    assert "model" not in few.uns["mine"]
    with pytest.raises(KeyError, match="linear classifier"):
        annotation_model(few, key="mine")
    annotate(few, "few", classifier="logistic")
    assert annotation_model(few).can_be_saved


def test_works_without_coordinates_or_counts(few):
    del few.obsm["spatial"]
    few.X = None
    annotate(few, "few")
    assert accuracy(few) > 0.5


def test_same_seed_same_result_and_copy(few):
    before = set(few.obs)
    one, two_ = annotate(few, "few", copy=True), annotate(few, "few", copy=True)
    assert set(few.obs) == before
    assert (one.obs[KEY] == two_.obs[KEY]).all()
    np.testing.assert_array_equal(one.obsm[f"{KEY}_probability"], two_.obsm[f"{KEY}_probability"])


@pytest.mark.parametrize(
    ("change", "options", "error", "text"),
    [
        (None, {"truth": "nowhere"}, KeyError, "nowhere"),
        (None, {"use_rep": "X_none"}, KeyError, "X_none"),
        ("single", {"truth": "single"}, ValueError, "at least two labels. Found: 'L1'"),
        ("none", {"truth": "none"}, ValueError, "no labelled spot"),
        (None, {"classifier": "svm"}, ValueError, "'lda', 'logistic'"),
        (None, {"classifier": 3}, TypeError, "predict_proba"),
        (None, {"spatial": -1.0}, ValueError, "spatial"),
        (None, {"spatial": "yes"}, ValueError, "spatial"),
        (None, {"unknown": "unknown"}, ValueError, "unknown"),
        (None, {"unknown": 2.0}, ValueError, "unknown"),
        (None, {"reference": []}, ValueError, "empty list"),
        (None, {"reference": "no-file"}, FileNotFoundError, "no-file"),
        (None, {"truth": "measured"}, ValueError, "column of labels"),
    ],
)
def test_refusals_leave_the_data_alone(few, change, options, error, text):
    few.obs["single"] = few.obs["domain"].where(few.obs["domain"] == "L1")
    few.obs["none"] = pd.Categorical([None] * few.n_obs, categories=["a"])
    few.obs["measured"] = np.linspace(0, 1, few.n_obs)
    before = set(few.obs), set(few.obsm), set(few.uns)
    with pytest.raises(error, match=text):
        annotate(few, **{"truth": "few", **options})
    assert (set(few.obs), set(few.obsm), set(few.uns)) == before


def test_embeddings_of_other_widths(few):
    narrow = few.copy()
    narrow.obsm["X_stalign"] = narrow.obsm["X_stalign"][:, :5]
    with pytest.raises(ValueError, match="5 and 20 columns"):
        annotate(narrow, "few", reference=few)
    annotate(few, "few", **PLAIN)
    with pytest.raises(ValueError, match="the model in `reference` has its own. Found: classifier='logistic'"):
        annotate(narrow, "few", reference=annotation_model(few), classifier="logistic")
    with pytest.raises(ValueError, match="20 columns of the model"):
        annotate(narrow, "few", reference=annotation_model(few))


def test_report_and_figure(few, tmp_path):
    annotate(few, "few", **PLAIN)
    axes = stalign.pl.annotate(few, truth="few", show=False)
    assert [ax.get_title() for ax in axes] == ["few", KEY, "confidence"]
    page = stalign.pl.report(few, tmp_path / "r.html", truth="domain", umap=False).read_text()
    assert "Annotation" in page
    assert "spots that had a label" in page
    with pytest.raises(KeyError, match="tl.annotate"):
        stalign.pl.annotate(few, "nothing")


def test_a_slide_without_spots_is_annotated_by_its_image():
    reference = stalign.datasets.toy(20)
    fine = stalign.io.read_slide(reference, grid=60)
    for part in (reference, fine):
        stalign.tl.embed(part)
    annotate(fine, "domain", reference=reference)
    assert fine.uns[KEY]["params"]["use_rep"] == "X_stalign_image"
    distance = np.linalg.norm(reference.obsm["spatial"][:, None] - fine.obsm["spatial"][None], axis=2)
    there = reference.obs["domain"].astype(str).to_numpy()[distance.argmin(axis=0)]
    right = (fine.obs[KEY].astype(str) == there).mean()
    annotate(fine, "domain", reference=reference, use_rep="X_stalign")
    assert right > 0.4 and right >= (fine.obs[KEY].astype(str) == there).mean()
    annotate(reference, "domain", reference=reference.copy())
    assert reference.uns[KEY]["params"]["use_rep"] == "X_stalign"


def test_the_same_in_spatialdata(tmp_path):
    adata, sdata = (stalign.datasets.toy(12, image=False, spatialdata=kind) for kind in (False, True))
    found = []
    for data in (adata, sdata):
        table = stalign.data.table_of(data)
        table.obsm["X_stalign"] = np.asarray(add_features(adata.copy(), n_components=10).obsm["X_stalign"])
        table.obs["few"] = table.obs["domain"].where(np.arange(table.n_obs) % 4 == 0)
        annotate(data, "few", **PLAIN)
        path = stalign.io.write_annotations(data, tmp_path / "a.geojson")
        stalign.io.read_annotations(data, path, key="back")
        table = stalign.data.table_of(data)
        assert (table.obs["back"].astype(str) == table.obs[KEY].astype(str)).mean() > 0.95
        found.append((table.obs[KEY].astype(str).tolist(), list(stalign.tl.suggest(data, 4, truth="few")["label"])))
    assert found[0] == found[1]
