"""The two towers of HiBio-ST as encoders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import stalign
from stalign.models import save
from stalign.models.hibio import HiBioST, SentenceBatch
from stalign.models.hibio_config import HIBIO_MINI, PatchSpec, SentenceSpec, TextTower
from stalign.tl import embed, encode, retrieve, sentences


@pytest.fixture
def folder(toy, tmp_path):
    """Small weights of HiBio-ST, not trained."""
    torch.manual_seed(0)
    config = replace(
        HIBIO_MINI,
        text=TextTower(width=16, layers=1, heads=2, context=40),
        dim=12,
        input=PatchSpec(px=32),
        sentence=SentenceSpec(mode="top", length=30),
    )
    network = HiBioST(config, toy.n_vars).eval()
    network.idf.uniform_(0.5, 2)
    return save(tmp_path / "hibio", network, vocabulary=list(toy.var_names), meta={"licence": "BSD-3-Clause"})


def test_images_and_sentences_are_encoded_into_one_space(toy, folder):
    counts = toy.X.tolil()
    counts[3] = 0
    toy.X = counts.tocsr()
    with pytest.warns(UserWarning, match="1 of"):
        encode(toy, "hibio", weights=folder, modality="gene")
    encode(toy, "hibio", weights=folder)
    image, gene = toy.obsm["X_hibio_native"], toy.obsm["X_hibio-gene_spot"]
    assert image.shape == gene.shape == (toy.n_obs, 12)
    assert np.flatnonzero(np.isnan(gene).any(1)).tolist() == [3]
    np.testing.assert_allclose(np.linalg.norm(np.delete(gene, 3, 0), axis=1), 1, rtol=1e-5)
    assert float(toy.uns["X_hibio_native"]["sections"]["window_um"].iloc[0]) == pytest.approx(112, rel=0.01)


def test_sentences_are_those_of_the_weights(toy, folder):
    encode(toy, "hibio", weights=folder, modality="gene")
    found = stalign.models.load(folder)
    words = sentences(toy, folder)["sentence"].iloc[7].split()
    place = {name: i for i, name in enumerate(found.vocabulary)}
    ids = torch.tensor([[1, *(place[word] + 4 for word in words), 2]])
    with torch.no_grad():
        expected = found.network(SentenceBatch(tokens=ids, mask=ids > 0)).gene.numpy()[0]
    np.testing.assert_allclose(toy.obsm["X_hibio-gene_spot"][7], expected, atol=1e-5)


def test_images_find_sentences(toy, folder):
    encode(toy, "hibio", weights=folder)
    encode(toy, "hibio", weights=folder, modality="gene")
    found = retrieve(toy, use_rep=("X_hibio_native", "X_hibio-gene_spot"))
    assert set(found.attrs["recall"]) and len(found)


def test_weights_of_the_other_network_are_refused_both_ways(toy, folder):
    with pytest.raises(ValueError, match="weights of ST-Align. Found: 'hibio-mini', which are of HiBio-ST.*encode"):
        embed(toy, folder)
    with pytest.raises(ValueError, match="weights of HiBio-ST. Found: 'stalign-mini'.*stalign.tl.embed"):
        encode(toy, "hibio", weights="stalign-mini")
    with pytest.raises(ValueError, match="weights of HiBio-ST. Found: 'stalign-mini'"):
        sentences(toy, "stalign-mini")


def test_wrong_modalities(toy, folder):
    with pytest.raises(ValueError, match="`modality`.*'image', 'gene'"):
        encode(toy, "hibio", weights=folder, modality="text")
    with pytest.raises(ValueError, match="`modality` for weights of HiBio-ST only"):
        encode(toy, "colour", modality="image")


@pytest.mark.parametrize("bin_um", [8, 16])
def test_bins_of_visium_hd_are_encoded_with_a_warning(bin_um):
    adata = stalign.datasets.toy_hd(bin_um, side_um=208.0)
    adata = adata[:90].copy()
    for modality in ("image", "gene"):
        with pytest.warns(UserWarning, match=f"Expected spots of 55 µm or more.*Found: {bin_um} µm"):
            encode(adata, "hibio-mini", modality=modality, cache=False)
    keys = ("X_hibio-mini_native", "X_hibio-mini-gene_spot")
    assert np.isfinite(adata.obsm[keys[0]]).all()
    found = retrieve(adata, use_rep=keys)
    assert set(found.attrs["recall"]) == set(found.attrs["chance"])
    layers = stalign.tl.zero_shot(adata, "domain", use_rep=keys[0], n_domains=2, n_init=2)
    assert layers["n_spots"].iloc[0] == adata.n_obs


def test_spots_of_visium_and_of_older_arrays_are_no_surprise(toy, folder, recwarn):
    encode(toy, "hibio", weights=folder, cache=False)
    assert not [one for one in recwarn if "Expected spots of" in str(one.message)]
