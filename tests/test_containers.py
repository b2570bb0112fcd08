"""The same slide as AnnData and as SpatialData gives the same results."""

from __future__ import annotations

import numpy as np
import pytest

import stalign
from stalign._constants import Keys
from stalign.data import section_row

ALL = (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE)


@pytest.fixture(scope="session")
def weights(small_weights):
    return small_weights()


@pytest.fixture(params=[1, 2], ids=["one section", "two sections"])
def pair(request):
    """A slide in both containers, and what tells the sections of the AnnData apart."""
    options = {"n_rows": 12, "n_sections": request.param}
    return (
        stalign.datasets.toy(**options),
        stalign.datasets.toy(**options, spatialdata=True),
        {"library_key": "library"} if request.param == 2 else {},
    )


def table(data):
    return data.tables["table"]


def test_niches(pair):
    adata, sdata, options = pair
    stalign.pp.niches(adata, **options)
    stalign.pp.niches(sdata)
    assert abs(adata.obsp[Keys.NICHE_GRAPH] - table(sdata).obsp[Keys.NICHE_GRAPH]).nnz == 0


def test_windows(pair):
    adata, sdata, options = pair
    stalign.pp.patches(adata, **options)
    stalign.pp.patches(sdata)
    for slot in (Keys.SPOT_WINDOW, Keys.NICHE_WINDOW):
        np.testing.assert_array_equal(adata.obsm[slot], table(sdata).obsm[slot])


def test_embeddings(pair, weights):
    adata, sdata, options = pair
    stalign.tl.embed(adata, weights, **options)
    assert stalign.tl.embed(sdata, weights) is None
    for key in ALL:
        np.testing.assert_allclose(table(sdata).obsm[key], adata.obsm[key], atol=1e-6, err_msg=key)
    np.testing.assert_array_equal(table(sdata).obs[Keys.VALID], adata.obs[Keys.VALID])
    for name in adata.uns[Keys.UNS]["embed"]["sections"]["section"]:
        record, other = section_row(adata, "embed", name), section_row(table(sdata), "embed", name)
        assert other == {**record, "image_key": f"{name}_hires_image", "image_mpp": pytest.approx(record["image_mpp"])}


def test_what_follows(pair, weights):
    adata, sdata, options = pair
    for data, keys in ((adata, options), (sdata, {})):
        stalign.tl.embed(data, weights, **keys)
        stalign.tl.domains(data, 4, refine=True, random_state=0, **keys)
    assert table(sdata).obs[Keys.DOMAIN].tolist() == adata.obs[Keys.DOMAIN].tolist()
    ours, theirs = (stalign.tl.score(data, "domain", library_key="library") for data in (adata, sdata))
    np.testing.assert_allclose(ours["ARI"], theirs["ARI"], atol=1e-6)
    predicted = [
        stalign.tl.predict_genes(data, genes=4, use_rep=Keys.EMBED_IMAGE, random_state=0, **keys)
        for data, keys in ((adata, options), (sdata, {}))
    ]
    assert list(predicted[0].var_names) == list(predicted[1].var_names)
    np.testing.assert_allclose(predicted[0].X, predicted[1].X, atol=1e-4)
    matches = [stalign.tl.retrieve(data, n=2) for data in (adata, sdata)]
    assert matches[0]["match"].tolist() == matches[1]["match"].tolist()


def test_features_of_frozen_encoders(pair):
    adata, sdata, options = pair
    stalign.tl.encode(adata, "colour", level="niche", cache=False, **options)
    stalign.tl.encode(sdata, "colour", level="niche", cache=False)
    np.testing.assert_allclose(table(sdata).obsm["X_colour_niche"], adata.obsm["X_colour_niche"], atol=1e-6)


def test_a_copy_of_a_spatialdata_shares_what_is_not_changed(pair, weights, snapshot):
    _, sdata, _ = pair
    before = snapshot(sdata)
    copy = stalign.tl.embed(sdata, weights, copy=True)
    assert snapshot(sdata) == before
    assert Keys.EMBED in table(copy).obsm
    for name, element in sdata.images.items():
        assert copy.images[name] is element


def test_after_an_error_a_spatialdata_is_as_it_was(pair, weights, snapshot):
    _, sdata, _ = pair
    before = snapshot(sdata)
    with pytest.raises(KeyError, match="'counts'"):
        stalign.tl.embed(sdata, weights, layer="counts")
    with pytest.raises(KeyError, match="'fullres'"):
        stalign.tl.embed(sdata, weights, image_key="fullres")
    with pytest.raises(KeyError, match="'cells'"):
        stalign.tl.embed(sdata, weights, table_key="cells")
    assert snapshot(sdata) == before


def test_no_image(weights):
    adata, sdata = (stalign.datasets.toy(n_rows=12, image=False, spatialdata=kind) for kind in (False, True))
    stalign.tl.embed(adata, weights)
    stalign.tl.embed(sdata, weights)
    np.testing.assert_allclose(table(sdata).obsm[Keys.EMBED], adata.obsm[Keys.EMBED], atol=1e-6)
    assert Keys.EMBED_IMAGE not in table(sdata).obsm


class TestPyramids:
    """Images of several levels, in dask arrays."""

    @pytest.fixture
    def sdata(self):
        """The toy's image at four times its size, and smaller copies of that."""
        from spatialdata.models import Image2DModel
        from spatialdata.transformations import Scale

        sdata = stalign.datasets.toy(n_rows=12, spatialdata=True)
        pixels = np.asarray(sdata.images["toy_hires_image"].data)
        large = pixels.repeat(4, axis=1).repeat(4, axis=2)
        scale = Scale([1.0, 1.0], axes=("x", "y"))
        sdata.images["toy_hires_image"] = Image2DModel.parse(
            large, dims=("c", "y", "x"), scale_factors=[2, 2, 2], transformations={"toy": scale}, chunks=(3, 500, 500)
        )
        return sdata

    def test_the_level_that_the_weights_need_is_read(self, sdata, weights, small_weights, monkeypatch):
        import dask.array as da

        read = []
        compute = da.Array.__array__
        monkeypatch.setattr(da.Array, "__array__", lambda x, *a, **k: read.append(x.shape) or compute(x, *a, **k))
        edge = sdata.images["toy_hires_image"]["scale0"]["image"].sizes["x"]
        for spot_px, step in ((8, 8), (28, 2), (110, 1)):
            read.clear()
            data = stalign.tl.embed(sdata, small_weights(spot_px=spot_px), copy=True)
            # 55 µm in `spot_px` px: the coarsest of 0.5, 1, 2 and 4 µm per px that is fine enough
            assert section_row(table(data), "embed", "toy")["image_mpp"] == pytest.approx(0.5 * step, rel=0.01)
            assert {shape[2] for shape in read} in ({-(-edge // step)}, {edge // step})  # strips of its whole width
            width = np.ptp(table(data).obsm[Keys.SPOT_WINDOW][0, ::2])
            assert width == pytest.approx(110 / step, rel=0.01)

    def test_embeddings_are_those_of_the_single_image(self, sdata, small_weights):
        # level 2 of the pyramid holds the pixels of the toy's own image
        weights = small_weights(spot_px=28)
        own = stalign.datasets.toy(n_rows=12, spatialdata=True)
        stalign.tl.embed(own, weights)
        stalign.tl.embed(sdata, weights)
        np.testing.assert_allclose(table(sdata).obsm[Keys.EMBED_GENE], table(own).obsm[Keys.EMBED_GENE], atol=1e-6)
        ours, theirs = table(sdata).obsm[Keys.EMBED_IMAGE], table(own).obsm[Keys.EMBED_IMAGE]
        cosine = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosine.min() > 0.99

    def test_large_levels_are_read_chunk_by_chunk(self, sdata, weights, monkeypatch):
        whole = stalign.tl.embed(sdata, weights, copy=True)
        monkeypatch.setattr("stalign.data.images._IN_MEMORY", 1000)
        tiled = stalign.tl.embed(sdata, weights, copy=True)
        np.testing.assert_allclose(table(tiled).obsm[Keys.EMBED], table(whole).obsm[Keys.EMBED], atol=1e-5)
