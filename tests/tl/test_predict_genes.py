"""tl.predict_genes: splits, truth, scores, shift between sections, bad input."""

from __future__ import annotations

import logging
from functools import partial

import anndata
import numpy as np
import pytest
from scipy import sparse
from sklearn.neighbors import KNeighborsRegressor

import stalign
from stalign._constants import Keys
from stalign.core.expression import normalise
from stalign.pl._records import split_of
from stalign.tl import Folds, ImageFeatures, Retrieval, VariableGenes
from stalign.tl import predict_genes as predict

predict_genes = partial(predict, use_rep=Keys.EMBED_IMAGE, model="ridge")  # these features are linear in expression


@pytest.fixture
def first(two):
    return two[two.obs["library"] == "toy_1"].copy()


@pytest.fixture
def second(two):
    return two[two.obs["library"] == "toy_2"].copy()


def expression(adata, genes):
    return normalise(adata.X)[:, adata.var_names.get_indexer(list(genes))].toarray()


def test_predicts_another_section(first, second):
    found = predict_genes(second, first, genes=12)
    assert found.shape == (second.n_obs, 12) and found.X.dtype == np.float32
    assert found.obs_names.tolist() == second.obs_names.tolist() and "domain" in found.obs
    dense = normalise(first.X).toarray()
    top = first.var_names[np.argsort(-dense.var(axis=0), kind="stable")[:12]]
    assert found.var_names.tolist() == top.tolist()
    truth = expression(second, top)
    np.testing.assert_allclose(found.layers["truth"], truth, rtol=1e-6)
    predicted = np.asarray(found.X, dtype=float)
    np.testing.assert_allclose(found.var["mse"], ((predicted - truth) ** 2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.var["mae"], np.abs(predicted - truth).mean(axis=0), rtol=1e-5)
    pearson = [np.corrcoef(predicted[:, i], truth[:, i])[0, 1] for i in range(12)]
    np.testing.assert_allclose(found.var["pearson"], pearson, atol=1e-5)
    mean = expression(first, top).mean(axis=0)
    np.testing.assert_allclose(found.var["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found.var["mse_mean"], ((truth - mean) ** 2).mean(axis=0), rtol=1e-5)
    record = found.uns["stalign"]["predict_genes"]
    assert record["params"]["split"] == "reference" and record["params"]["model"] == "ridge"
    assert len(record["alpha"]) == 1
    assert (record["n_reference"], record["n_predicted"]) == (first.n_obs, second.n_obs)
    assert Keys.SPATIAL in found.obsm and Keys.UNS_SPATIAL in found.uns


def test_predictions_are_good_where_features_tell_and_not_worse_than_the_mean(first, second):
    found = predict_genes(second, first, genes=20)
    assert found.var["pearson"].mean() > 0.3
    noise = np.random.default_rng(0).normal(size=(1070, 20)).astype(np.float32)
    first.obsm["X_noise"], second.obsm["X_noise"] = noise[: first.n_obs], noise[-second.n_obs :]
    useless = predict_genes(second, first, genes=20, use_rep="X_noise")
    assert (useless.var["mse"] < 1.03 * useless.var["mse_mean"]).all()
    assert useless.var["shrink"].mean() < 0.3


def test_stain_and_scale_shift_of_the_query_change_nothing(first, second):
    shifted = second.copy()
    # in double precision, as single precision would make neighbouring values one and so change their ranks
    shifted.obsm[Keys.EMBED_IMAGE] = second.obsm[Keys.EMBED_IMAGE].astype(np.float64) * 3 + 10
    for how in ("section", "rank"):
        plain, moved = (predict_genes(query, first, genes=5, standardise=how) for query in (second, shifted))
        np.testing.assert_allclose(plain.X, moved.X, atol=1e-4)
    worse = predict_genes(shifted, first, genes=5, standardise="reference")
    assert worse.var["mse"].mean() > moved.var["mse"].mean()
    assert worse.X.max() <= expression(first, worse.var_names).max() + 1e-5


def test_the_counts_of_the_query_are_never_used(first, second):
    blind = second.copy()
    blind.X = sparse.csr_matrix(blind.shape)
    without = anndata.AnnData(obs=second.obs, obsm=dict(second.obsm))
    expected = predict_genes(second, first, genes=4)
    for query in (blind, without):
        found = predict_genes(query, first, genes=4)
        np.testing.assert_array_equal(found.X, expected.X)
        assert found.var["mse"].isna().all() and found.uns["stalign"]["predict_genes"]["n_scored"] == 0
    assert "truth" not in found.layers


def test_held_out_spots_do_not_see_their_own_counts(embedded):
    gene = embedded.var_names[0]
    before = predict_genes(embedded, genes=[gene], split="spot")
    counts = embedded.X.tolil()
    counts[17, 0] = 900
    embedded.X = counts.tocsr()
    after = predict_genes(embedded, genes=[gene], split="spot")
    assert abs(before.X[17, 0] - after.X[17, 0]) < 0.02 < 1 < after.layers["truth"][17, 0]
    assert before.uns["stalign"]["predict_genes"]["params"]["split"] == "spot"
    assert len(before.uns["stalign"]["predict_genes"]["alpha"]) == 5


def test_leaving_a_patient_out_is_fitting_to_the_others(two, first, second):
    two.obs["patient"] = two.obs["library"].map({"toy_1": "P1", "toy_2": "P2"}).astype("category")
    genes = list(two.var_names[:4])
    found = predict_genes(two, genes=genes, split="patient", library_key="library")
    record = found.uns["stalign"]["predict_genes"]
    assert (record["params"]["split"], record["params"]["split_key"]) == ("patient", "patient")
    expected = [predict_genes(q, r, genes=genes) for q, r in ((first, second), (second, first))]
    np.testing.assert_allclose(found.X, np.concatenate([part.X for part in expected]), atol=1e-5)
    np.testing.assert_allclose(
        found.var["pearson"], np.mean([part.var["pearson"] for part in expected], axis=0), atol=1e-5
    )
    np.testing.assert_allclose(found.var["n"], two.n_obs)
    by_section = predict_genes(two, genes=genes, split="library")
    assert by_section.uns["stalign"]["predict_genes"]["params"]["split"] == "section"
    np.testing.assert_allclose(by_section.X, found.X, atol=1e-6)


def test_several_references_are_one_reference(two, first, second, embedded):
    reference = two.copy()
    genes = list(two.var_names[:3])
    one = predict_genes(embedded, reference, genes=genes, library_key="library")
    listed = predict_genes(embedded, [first, second], genes=genes)
    np.testing.assert_allclose(one.X, listed.X, atol=1e-5)
    short = second[:, 1:].copy()
    with pytest.raises(KeyError, match=str(genes[0])):
        predict_genes(embedded, [first, short], genes=genes)


def test_genes_that_the_query_lacks_have_no_truth(first, second):
    genes = list(first.var_names[:3])
    found = predict_genes(second[:, 1:].copy(), first, genes=genes)
    assert np.isnan(found.layers["truth"][:, 0]).all() and np.isfinite(found.layers["truth"][:, 1:]).all()
    assert found.var["n"].tolist() == [0, second.n_obs, second.n_obs]
    np.testing.assert_allclose(found.X[:, 1], predict_genes(second, first, genes=genes).X[:, 1])


def test_constant_genes_have_no_correlation_and_are_counted(first, second):
    counts = second.X.tolil()
    counts[:, 0] = 0
    second.X = counts.tocsr()
    found = predict_genes(second, first, genes=list(first.var_names[:2]))
    assert np.isnan(found.var["pearson"].iloc[0]) and np.isfinite(found.var["pearson"].iloc[1])
    assert found.uns["stalign"]["predict_genes"]["n_constant_genes"] == 1


def test_spots_without_features_or_counts(first, second):
    second.obsm[Keys.EMBED_IMAGE][3] = np.nan
    counts = second.X.tolil()
    counts[5] = 0
    second.X = counts.tocsr()
    first.obsm[Keys.EMBED_IMAGE][2] = np.nan
    found = predict_genes(second, first, genes=3)
    assert np.isnan(found.X[3]).all() and np.isfinite(np.delete(found.X, 3, axis=0)).all()
    assert np.isnan(found.layers["truth"][5]).all()
    assert (found.var["n"] == second.n_obs - 2).all()
    assert found.uns["stalign"]["predict_genes"]["n_reference"] == first.n_obs - 1


def test_totals_and_layers_are_those_of_both(first, second):
    for part in (first, second):
        part.obs["sum_umi"] = np.asarray(part.X.sum(axis=1)).ravel() * 2.0
        part.layers["counts"] = part.X.copy()
        part.X = sparse.csr_matrix(part.shape)
    gene = first.var_names[:1]
    found = predict_genes(second, first, genes=list(gene), layer="counts", total_counts="sum_umi")
    truth = normalise(second.layers["counts"], second.obs["sum_umi"].to_numpy())[:, 0].toarray()
    np.testing.assert_allclose(found.layers["truth"], truth, rtol=1e-6)


@pytest.mark.parametrize("model", ["mean", "mlp", KNeighborsRegressor(10)], ids=["mean", "mlp", "sklearn"])
def test_other_models_are_seeded_and_predict(first, second, model):
    found, again = (predict_genes(second, first, genes=4, model=model, random_state=3) for _ in range(2))
    np.testing.assert_array_equal(found.X, again.X)
    assert found.var["pearson"].mean() > 0.15
    assert ("alpha" in found.uns["stalign"]["predict_genes"]) == (model == "mean")


def test_mlp_learns_what_is_not_linear(first):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(first.n_obs, 2))
    counts = np.column_stack([rng.poisson(np.exp(1 + np.abs(x[:, 0]))), np.full(len(x), 500)])
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=first.obs, obsm={"X_x": x})
    adata.var_names = ["curved", "flat"]
    query, reference = adata[:200].copy(), adata[200:].copy()
    ridge, mlp, kernel = (
        predict_genes(query, reference, genes=["curved"], use_rep="X_x", model=model).var["pearson"].iloc[0]
        for model in ("ridge", "mlp", "kernel")
    )
    assert min(mlp, kernel) > 0.5 > ridge + 0.2


def test_several_representations_side_by_side(first, second):
    for part in (first, second):
        part.obsm["X_a"], part.obsm["X_b"] = np.split(part.obsm[Keys.EMBED_IMAGE], [8], axis=1)
    both = predict_genes(second, first, genes=3, use_rep=["X_a", "X_b"])
    np.testing.assert_allclose(both.X, predict_genes(second, first, genes=3).X, atol=1e-5)
    assert both.uns["stalign"]["predict_genes"]["params"]["use_rep"] == ["X_a", "X_b"]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_result_can_be_written_and_read(first, second, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stalign"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="stalign"):
        found = predict_genes(second, first, genes=3)
    assert "mean Pearson" in caplog.text
    found.write_h5ad(tmp_path / "x.h5ad")
    found.write_zarr(tmp_path / "x.zarr")
    back = anndata.read_h5ad(tmp_path / "x.h5ad")
    assert back.uns["stalign"]["predict_genes"]["params"]["split"] == "reference"
    np.testing.assert_array_equal(back.X, found.X)


def test_the_result_does_not_share_what_can_be_changed(embedded):
    image = embedded.uns["spatial"]["toy"]["images"]["hires"]
    factors = embedded.uns["spatial"]["toy"]["scalefactors"]
    before = dict(factors), image.copy()
    factors["offset"] = np.zeros(2)
    embedded.uns["stalign"] = {"embed": {"weights": "w", "sections": {"toy": {"n_valid": 3}}}}
    found = predict_genes(embedded, genes=2)
    own = found.uns["spatial"]["toy"]
    assert np.shares_memory(own["images"]["hires"], image)  # a section's image is large
    with pytest.raises(ValueError, match="read-only"):
        own["images"]["hires"][0, 0] = 7
    own["scalefactors"].clear()
    own["images"]["hires"] = None
    found.uns["spatial"]["other"] = {}
    found.uns["stalign"]["embed"]["sections"]["toy"]["n_valid"] = 4
    assert list(embedded.uns["spatial"]) == ["toy"]
    assert {key: value for key, value in factors.items() if key != "offset"} == before[0]
    np.testing.assert_array_equal(embedded.uns["spatial"]["toy"]["images"]["hires"], before[1])
    assert image.flags.writeable and embedded.uns["stalign"]["embed"]["sections"]["toy"]["n_valid"] == 3
    own = predict_genes(embedded, genes=2).uns["spatial"]["toy"]["scalefactors"]["offset"]
    own += 1
    assert factors["offset"].tolist() == [0, 0]


def test_reference_sections_and_weights_are_recorded(first, second):
    second.uns["stalign"] = {"embed": {"weights": "w"}}
    record = predict_genes(second, first, genes=2).uns["stalign"]
    assert record["embed"] == {"weights": "w"} and record["predict_genes"]["reference_sections"] == ["toy_1"]
    second.obsm["X_other"] = np.asarray(second.obsm["X_stalign_image"])
    record = predict_genes(second, genes=2, use_rep="X_other").uns["stalign"]
    assert "embed" not in record and "reference_sections" not in record["predict_genes"]
    second.uns["stalign"] = np.array(["of another tool"])
    assert "embed" not in predict_genes(second, genes=2).uns["stalign"]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"genes": ["no such"]}, KeyError, "no such"),
        ({"genes": 0}, ValueError, "one gene"),
        ({"genes": []}, KeyError, "genes of the reference"),
        ({"model": "forest"}, ValueError, "ridge"),
        ({"model": object()}, TypeError, "fit"),
        ({"standardise": "batch"}, ValueError, "standardise"),
        ({"split": "spot"}, ValueError, "both"),
        ({"layer": "none"}, KeyError, "none"),
        ({"total_counts": "none"}, KeyError, "none"),
        ({"use_rep": "X_none"}, KeyError, "X_none"),
        ({"library_key": "none"}, KeyError, "library_key"),
    ],
)
def test_bad_arguments(first, second, arguments, error, text):
    with pytest.raises(error, match=text):
        predict_genes(second, first, **arguments)


def test_bad_splits_and_inputs(first, second):
    with pytest.raises(KeyError, match="`split`.*Available: .*'domain'"):
        predict_genes(first, split="none")
    with pytest.raises(ValueError, match="at least two values"):
        predict_genes(first, split="library")
    with pytest.raises(ValueError, match="empty list"):
        predict_genes(first, [])
    with pytest.raises(ValueError, match="raw counts"):
        predict_genes(first, anndata.AnnData(obs=second.obs, obsm=dict(second.obsm)))
    del first.obsm[Keys.EMBED_IMAGE]
    with pytest.raises(KeyError, match="stalign.tl.embed"):
        predict_genes(first, second)
    first.obsm[Keys.EMBED_IMAGE] = np.zeros((first.n_obs, 3))
    with pytest.raises(ValueError, match="one width"):
        predict_genes(first, second)
    first.obsm[Keys.EMBED_IMAGE] = np.full((first.n_obs, 20), np.nan)
    with pytest.raises(ValueError, match="NaN in every row"):
        predict_genes(first, second)
    with pytest.raises(ValueError, match="two spots"):
        predict_genes(second, first)
    second.var_names = [second.var_names[0], *second.var_names[:-1]]
    with pytest.raises(ValueError, match="each gene once"):
        predict_genes(second, split="spot")


@pytest.mark.real
def test_real_bulb_sections_beat_the_mean(shared_data):
    """Image features that need no weights: colours of windows of three sizes."""
    from stalign import settings
    from stalign.core.colour import colour_features
    from stalign.core.patches import spot_windows_um
    from stalign.data import open_sections as sections

    parts = []
    for name in ("rep1", "rep2"):
        adata = anndata.read_h5ad(shared_data / "mob" / f"{name}.h5ad")
        slide = adata.uns["spatial"][name]
        slide["metadata"] = {**slide["metadata"], "image_file": str(shared_data / "mob" / f"{name}.jpg")}
        with settings.override(image_root=shared_data):
            (view,) = sections(adata)
            assert view.image is not None
        windows = [spot_windows_um(view.coords_um, size) / view.image.mpp for size in (100.0, 250.0, 600.0)]
        adata.obsm["X_colour"] = np.hstack([colour_features(view.image.patches(box, 24)) for box in windows])
        parts.append(adata)
    found = predict_genes(parts[1], parts[0], use_rep="X_colour", genes=50)
    assert found.var["pearson"].mean() > 0.4
    assert found.var["mse"].mean() < 0.8 * found.var["mse_mean"].mean()


def colour(**more):
    return ImageFeatures("colour", windows=(100.0,), **more)


def test_computes_its_own_features_and_writes_nothing(snapshot):
    adata = stalign.datasets.toy(10)
    before = snapshot(adata)
    found = predict(adata, genes=2, use_rep=colour())
    assert snapshot(adata) == before
    stalign.tl.encode(adata, "colour", level=100.0)
    own = predict(adata, genes=2, use_rep=colour(context=None))
    np.testing.assert_allclose(own.X, predict(adata, genes=2, use_rep="X_colour_100um").X, atol=1e-6)
    assert np.abs(np.asarray(own.X) - found.X).max() > 1e-3  # the context tells, too
    assert found.uns["stalign"]["predict_genes"]["params"]["use_rep"] == ["X_colour_100um", "mean over 250 µm"]
    del adata.uns["spatial"]["toy"]["images"]
    with pytest.raises(ValueError, match="image"):
        predict(adata, genes=2)


def test_default_features_are_those_of_lite0():
    adata = stalign.datasets.toy(6)
    stalign.tl.encode(adata, "efficientnet-lite0", level=112)
    stalign.tl.encode(adata, "efficientnet-lite0", level=224)
    keys = ["X_efficientnet-lite0_112um", "X_efficientnet-lite0_224um"]
    features = ImageFeatures()
    found = features.of(adata, library_key=None, table_key=None)
    assert found.shape == (adata.n_obs, 4 * 424)
    np.testing.assert_allclose(found[:, :848], np.hstack([adata.obsm[key] for key in keys]), atol=1e-6)
    np.testing.assert_allclose(found[:, 848:].mean(), found[:, :848].mean(), rtol=0.1)


def test_colours_are_put_beside_the_features():
    adata = stalign.datasets.toy(8)
    features = colour(colours=(100.0, 300.0))
    found = features.of(adata, library_key=None, table_key=None)
    assert len(features.names) == sum(map(len, features.sources)) == 4
    assert sum(map(sum, features.sources)) == found.shape[1] == 27 * 2 + 60 * 2
    np.testing.assert_allclose(found[:, :54], colour().of(adata, library_key=None, table_key=None))
    (section,) = stalign.data.open_sections(adata)
    own = section.image.patches(section.windows("spot", width_um=300.0).astype(float), 24)
    np.testing.assert_allclose(found[:, 54 + 30 : 54 + 33], own.mean(axis=(1, 2)) / 255, atol=0.02)
    record = predict(adata, genes=2, use_rep=features).uns["stalign"]["predict_genes"]
    assert record["params"]["use_rep"] == features.names and record["params"]["model"] == "mean"


def test_each_source_of_features_counts_alike_in_the_kernel(first, second):
    for part in (first, second):
        part.obsm["X_a"] = part.obsm[Keys.EMBED_IMAGE][:, :3]
        part.obsm["X_noise"] = np.random.default_rng(part.n_obs).normal(size=(part.n_obs, 300))
        part.obsm["X_both"] = np.hstack([part.obsm["X_a"], part.obsm["X_noise"]])
    apart, together = (
        predict(second, first, genes=10, use_rep=rep, model="kernel").var["pearson"].mean()
        for rep in (["X_a", "X_noise"], "X_both")
    )
    assert apart > together + 0.02


def test_slides_without_spots_are_predicted(tmp_path):
    reference = stalign.datasets.toy(12)
    fine = stalign.io.read_slide(reference, grid=50)
    found = predict(fine, reference, genes=["MOBP"], use_rep=colour())
    assert found.n_obs == fine.n_obs and np.isfinite(found.X).all() and "truth" not in found.layers
    near = np.linalg.norm(reference.obsm["spatial"][:, None] - fine.obsm["spatial"][None], axis=2).argmin(axis=1)
    measured = normalise(reference.X)[:, reference.var_names.get_loc("MOBP")].toarray().ravel()
    assert np.corrcoef(np.asarray(found.X)[near, 0], measured)[0, 1] > 0.3


def test_reliable_genes_are_the_default_and_the_others_are_marked(first, second):
    found = predict_genes(second, first)
    assert found.var["reliable"].all() and found.var["reliability"].is_monotonic_decreasing
    record = found.uns["stalign"]["predict_genes"]
    assert record["params"]["genes"] == "reliable" and record["n_candidates"] == first.n_vars > record["n_reliable"]
    assert record["n_reliable"] == found.n_vars and record["held_out"] == "region" and record["n_units"] == 1
    every = predict_genes(second, first, genes=None)
    assert set(every.var_names[every.var["reliable"]]) == set(found.var_names) and not every.var["reliable"].all()
    kept, left = every.var[every.var["reliable"]], every.var[~every.var["reliable"]]
    assert kept["pearson"].mean() > 0.2 > 0.1 > left["pearson"].mean()


def test_reliability_does_not_see_the_query(first, second):
    told = ["reliability", "reliability_se", "reliable", "level", "level_sd", "shrink"]
    before = predict_genes(second, first, genes=20).var[told]
    second.X = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, second.shape).astype(np.float32))
    assert predict_genes(second, first, genes=20).var[told].equals(before)


def test_nothing_reliable_is_said_and_marked(first, second):
    rng = np.random.default_rng(0)
    for part in (first, second):
        part.obsm["X_noise"] = rng.normal(size=(part.n_obs, 10))
    with pytest.warns(UserWarning, match="none; the best is"):
        found = predict_genes(second, first, use_rep="X_noise")
    assert found.n_vars == 50 and not found.var["reliable"].any()


def test_intervals_hold_what_they_promise(first, second):
    found = predict_genes(second, first, genes=10, coverage=0.8)
    truth, low, high = (np.asarray(found.layers[name]) for name in ("truth", "lower", "upper"))
    assert (low <= found.X).all() and (found.X <= high).all() and (low >= 0).all()
    inside = ((truth >= low) & (truth <= high)).mean(axis=0)
    np.testing.assert_allclose(found.var["covered"], inside, atol=1e-6)
    assert 0.7 < inside.mean() < 0.9
    with pytest.raises(ValueError, match="coverage"):
        predict_genes(second, first, coverage=1.0)


def test_patients_are_held_out_where_they_are_known(two, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stalign"), "propagate", True)
    sections = []
    for number in range(4):
        part = two[two.obs["library"] == f"toy_{1 + number % 2}"].copy()
        part.obs["who"] = f"P{number // 2}"
        sections.append(part)
    found = predict_genes(sections[0], sections, genes=3, patient_key="who")
    record = found.uns["stalign"]["predict_genes"]
    assert (record["held_out"], record["n_units"], record["n_patients"]) == ("patient", 2, 2)
    by_section = predict_genes(sections[0], sections, genes=3).uns["stalign"]["predict_genes"]
    assert (by_section["held_out"], by_section["n_units"], by_section["n_patients"]) == ("section", 4, 0)
    assert "one patient" not in caplog.text
    one = predict_genes(sections[0], sections[:2], genes=3, patient_key="who").uns["stalign"]["predict_genes"]
    assert (one["held_out"], one["n_patients"], one["reliable_within"]) == ("section", 1, "patient")
    assert "one patient" not in caplog.text  # the query is of that patient, too
    with pytest.raises(KeyError, match="patient_key"):
        predict_genes(sections[0], sections, genes=3, patient_key="nobody")


def test_a_reference_of_one_patient_says_so(two, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stalign"), "propagate", True)
    parts = [two[two.obs["library"] == f"toy_{number}"].copy() for number in (1, 2)]
    found = predict_genes(*parts, genes=3)
    assert (found.var["reliable_within"] == "unknown").all()
    assert "patients of the reference are not known" in caplog.text
    plain = found
    for part, who in zip(parts, ("P0", "P1"), strict=True):
        part.obs["patient"] = who
    caplog.clear()
    found = predict_genes(*parts, genes=3)
    assert (found.var["reliable_within"] == "patient").all()
    assert found.uns["stalign"]["predict_genes"]["carry"] == 0.5  # the query is of another
    np.testing.assert_allclose(found.var["shrink"], plain.var["shrink"] / 2)
    assert np.abs(found.X - found.var["level"].to_numpy()).max() < np.abs(plain.X - plain.var["level"].to_numpy()).max()
    assert "The reference is one patient: genes are reliable within the reference's patient only" in caplog.text
    caplog.clear()
    found = predict_genes(parts[0], parts, genes=3)
    record = found.uns["stalign"]["predict_genes"]
    assert (found.var["reliable_within"] == "patients").all() and record["held_out"] == "patient"
    assert "within" not in caplog.text


def test_raw_counts_as_target(first, second):
    found = predict_genes(second, first, genes=4, target="counts")
    columns = second.var_names.get_indexer(found.var_names)
    np.testing.assert_allclose(found.layers["truth"], np.log1p(second.X[:, columns].toarray()), rtol=1e-6)
    assert found.uns["stalign"]["predict_genes"]["params"]["target"] == "counts"
    with pytest.raises(ValueError, match="target"):
        predict_genes(second, first, target="raw")


def test_folds_of_samples_and_of_spots(two):
    two.obs["sample"] = np.random.default_rng(0).permutation(np.arange(two.n_obs) % 6).astype(str)
    found = predict_genes(two, genes=2, split=Folds("sample", n=3), library_key="library")
    assert len(found.uns["stalign"]["predict_genes"]["alpha"]) == 3 and np.isfinite(found.X).all()
    spots = predict_genes(two, genes=2, split=Folds(n=4), library_key="library")
    assert len(spots.uns["stalign"]["predict_genes"]["alpha"]) == 4
    with pytest.raises(ValueError, match="at least 7 values"):
        predict_genes(two, genes=2, split=Folds("sample", n=7), library_key="library")
    with pytest.raises(ValueError, match="two folds"):
        Folds(n=1)


def test_retrieval(first, second):
    found = predict_genes(second, first, genes=4, model="retrieval")
    assert found.var["pearson"].mean() > 0.15
    nearest = predict_genes(second, first, genes=4, model=stalign.tl.Retrieval(1))
    assert nearest.uns["stalign"]["predict_genes"]["params"]["model"].startswith("Retrieval(n_neighbors=1")
    assert not np.allclose(nearest.X, found.X)


def test_the_result_can_be_changed_without_the_query(first, second):
    found = predict_genes(second, first, genes=2)
    found.uns["spatial"]["toy_2"]["scalefactors"]["new"] = 1.0
    assert "new" not in second.uns["spatial"]["toy_2"]["scalefactors"]


def test_a_split_is_recorded_as_what_it_is(two):
    two.obs["fold"] = (np.arange(two.n_obs) % 3).astype(str)
    found = predict_genes(two, genes=2, split="fold", library_key="library")
    record = found.uns["stalign"]["predict_genes"]["params"]
    assert (record["split"], record["split_key"]) == ("column", "fold")
    assert split_of(found) == "Fitted to the other spots, each value of obs['fold'] held out"
    two.obs["block"] = two.obs["library"].map({"toy_1": "a", "toy_2": "b"})
    assert Folds("block").held_out(two.obs, "library") == "section"
    assert Folds("block").held_out(two.obs, None) == "column"


def test_plain_retrieval_by_gene_sentences_is_a_mean_over_the_reference(first, second):
    model = Retrieval(7, weights="mean", match=Keys.EMBED_GENE)
    options = {"genes": 5, "standardise": "none", "shrink": False, "target": "counts", "model": model}
    del second.obsm[Keys.EMBED_GENE]
    found = predict_genes(second, first, **options)
    both = second.obsm[Keys.EMBED_IMAGE].astype(float), first.obsm[Keys.EMBED_GENE].astype(float)
    image, sentence = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in both)
    nearest = np.argsort(-(image @ sentence.T), axis=1)[:, :7]
    values = np.log1p(first[:, found.var_names].X.toarray())
    np.testing.assert_allclose(found.X, values[nearest].mean(axis=1), rtol=1e-4)
    assert not found.uns["stalign"]["predict_genes"]["params"]["shrink"] and (found.var["shrink"] == 1).all()
    with pytest.raises(ValueError, match="standardise='none'"):
        predict_genes(second, first, model=model)
    first.obsm[Keys.EMBED_GENE] = first.obsm[Keys.EMBED_GENE][:, :3]
    with pytest.raises(ValueError, match="one width"):
        predict_genes(second, first, **options)


def test_folds_of_samples_are_recorded_and_matched_across(two):
    two.obs["sample"] = two.obs["library"].astype(str) + [str(i % 3) for i in range(two.n_obs)]
    options = {"standardise": "none", "shrink": False, "genes": VariableGenes(4), "target": "counts"}
    model = Retrieval(9, weights="mean", match=Keys.EMBED_GENE)
    found = predict_genes(two, split=Folds("sample", 2), model=model, library_key="library", **options)
    record = found.uns["stalign"]["predict_genes"]
    assert record["params"]["genes"] == "variable within sections"
    folds = record["folds"].set_index("sample")
    assert folds["n_spots"].to_dict() == two.obs["sample"].value_counts().to_dict()
    sizes = folds.groupby("fold")["n_spots"].sum()
    assert len(sizes) == 2 and sizes.max() - sizes.min() <= folds["n_spots"].max()
    held = two.obs["sample"].map(folds["fold"]).to_numpy() == 0
    alone = predict_genes(two[held].copy(), two[~held].copy(), model=model, library_key="library",
                          **{**options, "genes": found.var_names.tolist()})  # fmt: skip
    np.testing.assert_allclose(found.X[held], alone.X, rtol=1e-5)


def test_variable_genes_vary_within_sections(two):
    first = (two.obs["library"] == "toy_1").to_numpy()
    two.X = two.X.toarray()
    two.X[:, 0] = np.where(first, 0, 5000)  # differs between sections alone
    options = {"target": "counts", "library_key": "library"}
    over_all, within = (predict_genes(two, two, genes=genes, **options).var_names for genes in (1, VariableGenes(1)))
    assert over_all[0] == two.var_names[0] and within[0] != two.var_names[0]
