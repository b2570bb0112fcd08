"""The toy section is whole, deterministic, and hard enough that a wrong pipeline scores low."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import issparse
from scipy.spatial import cKDTree
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stalign.datasets import toy
from stalign.datasets._toy_genes import PROGRAMMES, symbols


@pytest.fixture(scope="module")
def adata():
    return toy()


def niche_mean_ari(adata, *, counts=None, coords=None, n_neighbors=3):
    counts = adata.X.toarray() if counts is None else counts
    coords = adata.obsm["spatial"] if coords is None else coords
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    if n_neighbors:
        logs = logs[cKDTree(coords).query(coords, n_neighbors + 1)[1]].mean(axis=1)
    scores = PCA(15, random_state=0).fit_transform(logs)
    labels = GaussianMixture(5, covariance_type="tied", n_init=5, random_state=0).fit_predict(scores)
    return adjusted_rand_score(adata.obs["domain"], labels)


def patch_accuracy(adata, coords):
    """Cross-validated accuracy of the domain from mean and spread of each colour in the spot's patch."""
    slide = adata.uns["spatial"]["toy"]
    image = slide["images"]["hires"]
    centre = (coords * slide["scalefactors"]["tissue_hires_scalef"]).astype(int)
    window = np.arange(-14, 14)
    rows = np.clip(centre[:, 1, None, None] + window[:, None], 0, image.shape[0] - 1)
    columns = np.clip(centre[:, 0, None, None] + window, 0, image.shape[1] - 1)
    pixels = image[rows, columns].reshape(len(centre), -1, 3).astype(float)
    features = np.hstack([pixels.mean(axis=1), pixels.std(axis=1)])
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return cross_val_score(model, features, adata.obs["domain"].cat.codes, cv=3).mean()


def test_slots_have_the_documented_types(adata):
    assert 700 <= adata.n_obs <= 950
    assert issparse(adata.X) and adata.X.format == "csr" and adata.X.dtype == np.int32
    assert adata.X.min() >= 0 and 500 < np.median(np.asarray(adata.X.sum(axis=1))) < 10_000
    assert adata.obsm["spatial"].shape == (adata.n_obs, 2) and adata.obsm["spatial"].dtype == np.float64
    assert list(adata.obs["domain"].cat.categories) == ["L1", "L2/3", "L4", "L5/6", "WM"]
    assert adata.obs["domain"].cat.ordered and adata.obs["domain"].value_counts().min() > 30
    assert {"array_row", "array_col", "in_tissue", "library"} <= set(adata.obs)
    assert adata.obs_names.is_unique and adata.var_names.is_unique
    image = adata.uns["spatial"]["toy"]["images"]["hires"]
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_scale_factors_and_pitch_agree(adata):
    factors = adata.uns["spatial"]["toy"]["scalefactors"]
    distance, _ = cKDTree(adata.obsm["spatial"]).query(adata.obsm["spatial"], 7)
    mpp = 100 / np.median(distance[:, 1])
    assert mpp == pytest.approx(0.5, rel=0.01)
    inner = distance[:, 6] < distance[:, 1].min() * 1.03
    assert inner.mean() > 0.7  # six neighbours at one distance: the grid is hexagonal
    image = adata.uns["spatial"]["toy"]["images"]["hires"]
    on_image = adata.obsm["spatial"] * factors["tissue_hires_scalef"]
    assert (on_image > 0).all() and (on_image < image.shape[1::-1]).all()
    assert mpp / factors["tissue_hires_scalef"] == pytest.approx(2.0, rel=0.01)
    assert factors["spot_diameter_fullres"] * mpp == pytest.approx(65, rel=0.01)


def test_tissue_is_stained_and_the_outside_is_white(adata):
    slide = adata.uns["spatial"]["toy"]
    image = slide["images"]["hires"]
    x, y = (adata.obsm["spatial"] * slide["scalefactors"]["tissue_hires_scalef"]).astype(int).T
    green = image[..., 1].astype(float)
    assert green[y, x].mean() < 205
    assert green[:40, :40].mean() > 235 and green[-40:, -40:].mean() > 235


def test_same_seed_same_section_and_other_seed_another():
    first, again, other = toy(n_rows=12), toy(n_rows=12), toy(n_rows=12, seed=1)
    assert (first.X != again.X).nnz == 0
    np.testing.assert_array_equal(
        first.uns["spatial"]["toy"]["images"]["hires"], again.uns["spatial"]["toy"]["images"]["hires"]
    )
    pd.testing.assert_frame_equal(first.obs, again.obs)
    assert first.shape != other.shape or (first.X != other.X).nnz > 0


def test_counts_do_not_depend_on_the_image():
    with_image, without = toy(n_rows=12), toy(n_rows=12, image=False)
    assert (with_image.X != without.X).nnz == 0
    assert without.uns["spatial"]["toy"]["images"] == {}


def test_counts_are_overdispersed(adata):
    """Within one domain the variance of a well-expressed gene exceeds its mean by far more than Poisson allows."""
    counts = adata.X[(adata.obs["domain"] == "L2/3").to_numpy()].toarray()
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    assert np.median((variance / mean)[mean > 5]) > 2


def test_markers_peak_in_their_domain(adata):
    logs = np.log1p(adata.X.toarray() / np.asarray(adata.X.sum(axis=1)).reshape(-1, 1) * 1e4)
    mean = pd.DataFrame(logs, columns=adata.var_names).groupby(adata.obs["domain"].to_numpy()).mean()
    for gene, domain in {
        "MOBP": "WM",
        "PLP1": "WM",
        "PCP4": "L5/6",
        "CUX2": "L2/3",
        "RORB": "L4",
        "RELN": "L1",
    }.items():
        assert mean[gene].idxmax() == domain, gene
    assert mean["SNAP25"].idxmin() in {"WM", "L1"}


def test_right_pipeline_scores_high_and_wrong_ones_low(adata):
    rng = np.random.default_rng(0)
    right = niche_mean_ari(adata)
    assert 0.6 < right < 0.97
    assert niche_mean_ari(adata, n_neighbors=0) < right - 0.3
    assert niche_mean_ari(adata, coords=rng.permutation(adata.obsm["spatial"])) < 0.1
    assert niche_mean_ari(adata, counts=rng.permuted(adata.X.toarray(), axis=1)) < 0.1


def test_image_texture_follows_the_domains(adata):
    coords = adata.obsm["spatial"]
    chance = adata.obs["domain"].value_counts(normalize=True).max()
    assert patch_accuracy(adata, coords) > chance + 0.15
    assert patch_accuracy(adata, np.random.default_rng(0).permutation(coords)) < chance + 0.05


def test_two_sections_differ_in_donor_stain_and_depth():
    adata = toy(n_rows=16, n_sections=2)
    assert list(adata.obs["library"].cat.categories) == ["toy_1", "toy_2"]
    assert set(adata.uns["spatial"]) == {"toy_1", "toy_2"} and adata.obs_names.is_unique
    assert list(adata.obs["domain"].cat.categories) == ["L1", "L2/3", "L4", "L5/6", "WM"]
    first, second = (adata[adata.obs["library"] == name] for name in ("toy_1", "toy_2"))
    depth = [np.median(np.asarray(part.X.sum(axis=1))) for part in (first, second)]
    assert depth[1] < 0.8 * depth[0]
    colour = [
        np.median(adata.uns["spatial"][name]["images"]["hires"].reshape(-1, 3), axis=0) for name in ("toy_1", "toy_2")
    ]
    assert np.abs(colour[0] - colour[1]).max() > 5
    one = toy(n_rows=16)
    assert (one.X != first.X).nnz == 0  # the first of two is the only one of one


def test_spatialdata_holds_the_same_slide():
    adata, sdata = toy(n_rows=10), toy(n_rows=10, spatialdata=True)
    from spatialdata.transformations import get_transformation

    assert set(sdata.tables) == {"table"} and set(sdata.images) == {"toy_hires_image"} and set(sdata.shapes) == {"toy"}
    assert (sdata.tables["table"].X != adata.X).nnz == 0
    pixels = sdata.images["toy_hires_image"].transpose("y", "x", "c").to_numpy()
    np.testing.assert_array_equal(pixels, adata.uns["spatial"]["toy"]["images"]["hires"])
    matrix = get_transformation(sdata.images["toy_hires_image"], "toy").to_affine_matrix(("x", "y"), ("x", "y"))
    np.testing.assert_allclose(
        np.diag(matrix)[:2], 1 / adata.uns["spatial"]["toy"]["scalefactors"]["tissue_hires_scalef"]
    )
    circles = sdata.shapes["toy"].geometry
    np.testing.assert_allclose(np.column_stack([circles.x, circles.y]), adata.obsm["spatial"])
    names = sdata.tables["table"].uns["spatialdata_attrs"]
    assert (
        names["instance_key"] == "spot_id" and (sdata.tables["table"].obs["spot_id"].to_numpy() == circles.index).all()
    )


def test_written_and_read_back(tmp_path):
    from anndata import read_h5ad

    adata = toy(n_rows=8, n_sections=2)
    adata.write_h5ad(tmp_path / "toy.h5ad")
    back = read_h5ad(tmp_path / "toy.h5ad")
    assert (back.X != adata.X).nnz == 0
    pd.testing.assert_frame_equal(back.obs, adata.obs)


def test_symbols_are_unique_and_hold_every_marker():
    genes = symbols()
    assert len(genes) == len(set(genes)) > 500
    assert {gene for text in PROGRAMMES.values() for gene in text.split()} <= set(genes)


@pytest.mark.real
def test_symbols_are_real(shared_data):
    table = pd.read_csv(shared_data / "gene-tables" / "GRCh38-2020-A_ensembl_symbol.tsv.gz", sep="\t", header=None)
    assert set(symbols()) <= set(table[1])


@pytest.mark.parametrize(("arguments", "word"), [({"n_rows": 3}, "n_rows"), ({"n_sections": 0}, "n_sections")])
def test_bad_sizes_raise(arguments, word):
    with pytest.raises(ValueError, match=word):
        toy(**arguments)


def test_is_fast():
    toy(n_rows=8)
    start = time.process_time()
    toy()
    assert time.process_time() - start < 3  # under one second alone on one core
