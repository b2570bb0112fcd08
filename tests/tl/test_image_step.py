from __future__ import annotations

import numpy as np
import pytest

import stalign
from stalign._constants import Keys


@pytest.fixture(scope="module")
def weights(small_weights):
    return small_weights(niche_px=20)


@pytest.fixture(scope="module")
def _bins():
    return stalign.datasets.toy_hd(16, side_um=320)


@pytest.fixture
def bins(_bins):
    return _bins.copy()


def embedded(adata, weights, **given):
    return stalign.tl.embed(adata, weights, copy=True, **given).obsm


def test_places_at_the_spots_give_what_encoding_them_gives(bins, weights):
    coords = bins.obsm["spatial"]
    coords[:] = np.round(coords / 32) * 32  # 16 µm; the array is turned by half a degree
    exact, found = embedded(bins, weights), embedded(bins, weights, image_step=16)
    for key in (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE):
        np.testing.assert_allclose(found[key], exact[key], atol=1e-4)


def test_the_nearer_the_places_the_nearer_the_embedding_and_genes_are_the_same(bins, weights):
    exact = embedded(bins, weights)
    errors = []
    for step in (2, 8, 40):
        found = embedded(bins, weights, image_step=step)
        np.testing.assert_allclose(found[Keys.EMBED_GENE], exact[Keys.EMBED_GENE], atol=1e-5)
        errors.append(np.linalg.norm(found[Keys.EMBED_IMAGE] - exact[Keys.EMBED_IMAGE]))
    assert 0 < errors[0] < errors[1] < errors[2]


def test_neither_order_nor_batches_nor_other_spots_matter(bins, weights):
    found = embedded(bins, weights, image_step=25, batch_size=64)[Keys.EMBED_IMAGE]
    order = np.random.default_rng(0).permutation(bins.n_obs)
    mixed = embedded(bins[order].copy(), weights, image_step=25, batch_size=17)[Keys.EMBED_IMAGE]
    np.testing.assert_allclose(mixed, found[order], atol=1e-4)


def test_fewer_windows_are_read(bins, weights, monkeypatch):
    from stalign.data.images import SectionImage

    read, patches = [], SectionImage.patches

    def counted(self, windows, size):
        read.append(len(windows) if size == 20 else 0)
        return patches(self, windows, size)

    monkeypatch.setattr(SectionImage, "patches", counted)
    stalign.tl.embed(bins, weights, image_step=64)
    few = sum(read)
    read.clear()
    stalign.tl.embed(bins, weights)
    assert few < sum(read) / 4


def test_it_is_written_down(bins, weights):
    stalign.tl.embed(bins, weights, image_step=25)
    assert bins.uns["stalign"]["embed"]["params"]["image_step"] == 25
    stalign.tl.embed(bins, weights)
    assert "image_step" not in bins.uns["stalign"]["embed"]["params"]


def test_windows_of_several_sizes_are_not_interpolated(weights):
    toy = stalign.datasets.toy(8)
    with pytest.raises(ValueError, match="windows of one size.*Leave `image_step` out"):
        stalign.tl.embed(toy, weights, image_step=25)
    stalign.tl.embed(toy, weights, image_step=25, niche_window=150)
    assert toy.obs[Keys.VALID].all()


@pytest.mark.parametrize("step", [0, -5, "25", np.nan])
def test_steps_are_positive(bins, weights, step):
    with pytest.raises(ValueError, match="`image_step` to be a positive number of µm"):
        stalign.tl.embed(bins, weights, image_step=step)
