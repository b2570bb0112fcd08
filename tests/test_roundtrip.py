"""What pp and tl write comes back from h5ad and zarr as it was, and is understood again."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import stalign
from stalign._constants import Keys


@pytest.fixture(scope="session")
def weights(small_weights):
    return small_weights()


@pytest.fixture(scope="session")
def slide(weights):
    """A table of two sections, one of them without an image, with a spot that has no position."""
    adata = stalign.datasets.toy(n_rows=12, n_sections=2)
    del adata.uns[Keys.UNS_SPATIAL]["toy_2"]["images"]["hires"]
    adata.obsm[Keys.SPATIAL][7] = np.nan
    return adata


def embedded(adata, weights):
    stalign.tl.embed(adata, weights, library_key="library")


def domains(adata, weights):
    embedded(adata, weights)
    stalign.tl.domains(adata, 3, refine=True, library_key="library")
    stalign.tl.domains(adata, stalign.tl.KMeans(3), key_added="kmeans", n_components=None)
    other = stalign.tl.domain_model(adata)
    stalign.tl.domains(adata, reference=other, key_added="again")


STEPS = {
    "niches": lambda adata, weights: stalign.pp.niches(adata, 4, include_self=False, library_key="library"),
    "patches": lambda adata, weights: stalign.pp.patches(adata, library_key="library"),
    "embed": embedded,
    "encode image": lambda adata, weights: stalign.tl.encode(
        adata, "colour", level="niche", cache=False, library_key="library"
    ),
    "encode genes": lambda adata, weights: stalign.tl.encode(
        adata, "pca", level="spot", cache=False, library_key="library"
    ),
    "domains": domains,
}
FORMS = {
    "h5ad": (lambda adata, path: adata.write_h5ad(path), anndata.read_h5ad),
    "zarr": (lambda adata, path: adata.write_zarr(path), anndata.read_zarr),
}


def same(ours, theirs, where):
    """Compare values as files hold them: lists are arrays, numbers lose their Python type, nothing else changes."""
    if isinstance(ours, pd.DataFrame):
        pd.testing.assert_frame_equal(ours, theirs)
    elif hasattr(ours, "items"):
        assert set(ours) == set(theirs), where
        for key in ours:
            same(ours[key], theirs[key], f"{where}/{key}")
    elif sparse.issparse(ours):
        assert sparse.issparse(theirs), where
        assert ours.dtype == theirs.dtype, where
        assert abs(ours - theirs).nnz == 0, where
    elif isinstance(ours, str | bool | int | float | np.generic):
        assert ours == theirs or (ours != ours and theirs != theirs), where
    else:
        first, second = np.asarray(ours), np.asarray(theirs)
        assert first.shape == second.shape, where
        if first.dtype.kind in "fiub":
            assert first.dtype == second.dtype, where
            np.testing.assert_array_equal(first, second, err_msg=where)
        else:
            assert first.tolist() == second.tolist(), where


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.filterwarnings("ignore:.*(could not be|have no window|have no coordinates)")
def test_what_a_function_writes_comes_back(slide, weights, tmp_path, step, form):
    adata = slide.copy()
    STEPS[step](adata, weights)
    write, read = FORMS[form]
    write(adata, tmp_path / f"slide.{form}")
    back = read(tmp_path / f"slide.{form}")
    pd.testing.assert_frame_equal(back.obs, adata.obs, check_categorical=True)
    for slot in ("obsm", "obsp", "varm", "layers", "uns"):
        same(getattr(adata, slot), getattr(back, slot), slot)
    assert abs(adata.X - back.X).nnz == 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*could not be")
def test_what_comes_back_is_understood(slide, weights, tmp_path, form, log):
    adata = slide.copy()
    domains(adata, weights)
    write, read = FORMS[form]
    write(adata, tmp_path / f"slide.{form}")
    back = read(tmp_path / f"slide.{form}")
    # niches and windows are those that are there, and the embedding is the same
    windows = back.obsm[Keys.NICHE_WINDOW].copy()
    stalign.tl.embed(back, weights, library_key="library")
    np.testing.assert_array_equal(back.obsm[Keys.NICHE_WINDOW], windows)
    np.testing.assert_allclose(back.obsm[Keys.EMBED_GENE], adata.obsm[Keys.EMBED_GENE], atol=1e-5)
    assert "made again" not in log.text
    # saved domains can be applied, to the same labels
    before = adata.obs[Keys.DOMAIN].astype(str)
    back.obsm[Keys.EMBED] = adata.obsm[Keys.EMBED]
    stalign.tl.domains(back, reference=back, refine=True, library_key="library", key_added="saved")
    assert (back.obs["saved"].astype(str) == before).mean() > 0.99
    assert list(stalign.tl.domain_model(back).names) == ["1", "2", "3"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:.*could not be")
def test_predictions_come_back(slide, weights, tmp_path, form):
    adata = slide.copy()
    embedded(adata, weights)
    predicted = stalign.tl.predict_genes(adata, genes=3, use_rep=Keys.EMBED_IMAGE, library_key="library")
    write, read = FORMS[form]
    write(predicted, tmp_path / f"genes.{form}")
    back = read(tmp_path / f"genes.{form}")
    np.testing.assert_array_equal(back.X, predicted.X)
    np.testing.assert_array_equal(back.layers["truth"], predicted.layers["truth"])
    pd.testing.assert_frame_equal(back.var, predicted.var)
    same(predicted.uns[Keys.UNS], back.uns[Keys.UNS], "uns")


def test_a_spatialdata_comes_back(weights, tmp_path):
    import spatialdata

    sdata = stalign.datasets.toy(n_rows=12, n_sections=2, spatialdata=True)
    stalign.tl.embed(sdata, weights)
    stalign.tl.domains(sdata, 3, refine=True)
    sdata.write(tmp_path / "slide.zarr")
    back = spatialdata.read_zarr(tmp_path / "slide.zarr")
    ours, theirs = sdata.tables["table"], back.tables["table"]
    for slot in ("obsm", "obsp"):
        same(getattr(ours, slot), getattr(theirs, slot), slot)
    for key in (Keys.UNS, Keys.UNS_NICHES, Keys.DOMAIN):
        same(ours.uns[key], theirs.uns[key], "uns")
    assert theirs.obs[Keys.DOMAIN].tolist() == ours.obs[Keys.DOMAIN].tolist()
    # images are read from disk now
    again = stalign.tl.embed(back, weights, copy=True).tables["table"]
    np.testing.assert_allclose(again.obsm[Keys.EMBED], ours.obsm[Keys.EMBED], atol=1e-5)
