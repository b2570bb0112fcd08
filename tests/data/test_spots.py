from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

import stalign
from stalign._constants import Keys
from stalign.data import Vocabulary
from stalign.data import open_sections as sections
from stalign.data.spots import read_section
from stalign.data.stack import stack
from stalign.models.config import InputSpec

SPEC = InputSpec(spot_px=8, niche_px=16, rank=6)


@pytest.fixture(scope="session")
def _slide():
    adata = stalign.datasets.toy(n_rows=12)
    stalign.pp.patches(adata)
    return adata


@pytest.fixture
def slide(_slide):
    return _slide.copy()


def open_section(adata, spec=SPEC, **options):
    section = sections(adata, image=options.pop("find_image", True))[0]
    return read_section(section, spec, Vocabulary(tuple(adata.var_names)), **options)


def test_a_batch_holds_the_patches_of_the_windows(slide):
    reader = open_section(slide)
    rows = np.array([7, 2, 50])
    batch = reader.batch(rows)
    for patches, slot, size in (
        (batch.spot_image, Keys.SPOT_WINDOW, 8),
        (batch.niche_image, Keys.NICHE_WINDOW, 16),
    ):
        expected = reader.image.patches(slide.obsm[slot][rows].astype(float), size)
        assert patches.dtype == torch.uint8
        np.testing.assert_array_equal(patches.numpy(), expected.transpose(0, 3, 1, 2))


def test_a_reader_without_counts_gives_the_same_batches_and_leaves_the_other_as_it_is(slide):
    reader, rows = open_section(slide), np.array([7, 2, 50])
    light = reader.without_counts()
    for name in ("niche_image", "spot_gene", "niche_gene", "basis"):
        np.testing.assert_array_equal(getattr(light.batch(rows), name), getattr(reader.batch(rows), name))
    assert light.expression.counts is None and reader.expression.counts is not None


def test_windows_of_fixed_sides_are_those_of_spots_of_any_size(slide):
    reader = open_section(slide, replace(SPEC, fixed_windows=True, spot_um=112.0, niche_um=224.0))
    side = np.diff(reader.windows[0][:, [0, 2]]) * reader.image.mpp
    np.testing.assert_allclose(side, 112, rtol=1e-3)
    np.testing.assert_allclose(np.diff(reader.windows[1][:, [0, 2]]) * reader.image.mpp, 224, rtol=1e-3)


def test_a_batch_holds_the_scores_of_spots_and_the_means_of_niches(slide):
    reader = open_section(slide)
    rows = np.array([7, 2, 50])
    batch = reader.batch(rows)
    scores, graph = reader.expression.scores, slide.obsp[Keys.NICHE_GRAPH].toarray()
    np.testing.assert_array_equal(batch.spot_gene.numpy(), scores[rows])
    for i, row in enumerate(rows):
        members = np.flatnonzero(graph[row])
        assert len(members) == 4
        np.testing.assert_allclose(batch.niche_gene[i], scores[members].mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(batch.basis[0], reader.expression.low_rank.basis)
    assert batch.section.tolist() == [0, 0, 0]
    assert batch.gene_valid is None


def test_only_the_levels_that_are_asked_for_are_read(slide):
    batch = open_section(slide).batch(np.arange(3), levels=("niche",))
    assert batch.spot_image is None
    assert batch.spot_gene is None
    assert batch.niche_image.shape == (3, 3, 16, 16)
    assert batch.niche_gene.shape == (3, 6)


def test_gene_by_gene_batches_are_the_means_of_niches_too(slide):
    reader = open_section(slide, replace(SPEC, rank=0, centre="none"))
    rows = np.array([30, 4])
    batch = reader.batch(rows)
    values = reader.expression.values.toarray()
    assert batch.basis is None
    np.testing.assert_allclose(batch.spot_gene, values[rows], atol=1e-6)
    np.testing.assert_allclose(batch.niche_gene, (slide.obsp[Keys.NICHE_GRAPH] @ values)[rows], atol=1e-5)


def test_thinned_batches_thin_a_spot_once(slide):
    # A spot that is in two niches of a batch gives the same thinned counts to both, and to itself.
    reader = open_section(slide)
    rows = np.arange(slide.n_obs)
    batch = reader.batch(rows, keep=0.5, rng=np.random.default_rng(0))
    expected = slide.obsp[Keys.NICHE_GRAPH] @ batch.spot_gene.numpy()
    np.testing.assert_allclose(batch.niche_gene, expected, atol=1e-5)
    assert not np.allclose(batch.spot_gene, reader.expression.scores, atol=1e-2)


def test_thinning_that_keeps_all_is_none(slide):
    reader = open_section(slide)
    plain, kept = reader.batch(np.arange(9)), reader.batch(np.arange(9), keep=1.0, rng=np.random.default_rng(0))
    np.testing.assert_allclose(kept.niche_gene, plain.niche_gene, atol=1e-5)
    np.testing.assert_allclose(kept.spot_gene, plain.spot_gene, atol=1e-5)


def test_colours_are_those_of_the_niches(slide):
    reader = open_section(slide)
    pixels = reader.image.patches(slide.obsm[Keys.NICHE_WINDOW].astype(float), 16).reshape(-1, 3) / 255
    np.testing.assert_allclose(reader.image_mean, pixels.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(reader.image_std, pixels.std(axis=0), atol=1e-4)
    batch = reader.batch(np.arange(2))
    np.testing.assert_array_equal(batch.image_mean, reader.image_mean[None])


def test_colours_of_many_spots_do_not_depend_on_their_order(slide, monkeypatch):
    monkeypatch.setattr("stalign.data.spots._STATISTICS_SPOTS", 20)
    order = np.random.default_rng(0).permutation(slide.n_obs)
    plain, mixed = open_section(slide), open_section(slide[order].copy())
    np.testing.assert_array_equal(mixed.image_mean, plain.image_mean)
    np.testing.assert_array_equal(mixed.image_std, plain.image_std)


def test_colours_of_imagenet_where_the_weights_say_so(slide):
    reader = open_section(slide, replace(SPEC, stain="imagenet"))
    np.testing.assert_allclose(reader.image_mean, SPEC.mean, rtol=1e-6)
    np.testing.assert_allclose(reader.image_std, SPEC.std, rtol=1e-6)


def test_a_plain_image_has_a_spread(slide):
    slide.uns[Keys.UNS_SPATIAL]["toy"]["images"]["hires"][:] = 200
    reader = open_section(slide)
    np.testing.assert_allclose(reader.image_std, 0.02, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "modality"),
    [({}, "both"), ({"image": False}, "gene"), ({"genes": False}, "image"), ({"find_image": False}, "gene")],
)
def test_the_modality_says_what_is_there(slide, options, modality):
    reader = open_section(slide, **options)
    assert reader.modality == modality
    batch = reader.batch(np.arange(2))
    assert (batch.niche_image is not None) == (modality != "gene")
    assert (batch.niche_gene is not None) == (modality != "image")
    assert len(reader) == slide.n_obs


def test_a_coarse_image_is_left_out_and_both_scales_are_named(slide, log):
    reader = open_section(slide, replace(SPEC, max_mpp=1.5))
    assert reader.modality == "gene"
    assert "2.0 µm per px, coarser than the 1.5 µm per px" in log.text
    with pytest.raises(ValueError, match=r"too coarse or was left out, and there are no counts.*at most 1.5 µm per px"):
        open_section(slide, replace(SPEC, max_mpp=1.5), genes=False)


def test_neither_image_nor_counts_is_an_error(slide):
    slide.X = None
    with pytest.raises(ValueError, match="Expected an image or counts for section 'toy'.*there is no image"):
        open_section(slide, find_image=False)


def test_a_section_whose_counts_are_all_zero_is_read_from_its_image(slide, log):
    slide.X = sparse.csr_matrix(slide.shape, dtype=np.float32)
    reader = open_section(slide)
    assert reader.modality == "image"
    assert "has no counts" in log.text
    with pytest.raises(ValueError, match="at least one spot with counts"):
        open_section(slide, image=False)


def test_spots_without_a_position_are_not_valid(slide):
    slide.obsm[Keys.SPATIAL][5] = np.nan
    del slide.obsm[Keys.SPOT_WINDOW], slide.obsm[Keys.NICHE_WINDOW], slide.obsp[Keys.NICHE_GRAPH]
    with pytest.warns(UserWarning, match="have no window"):
        stalign.pp.patches(slide)
    reader = open_section(slide)
    assert np.flatnonzero(~reader.valid).tolist() == [5]
    assert 5 not in reader.order()
    assert len(reader.order()) == slide.n_obs - 1


def test_a_spot_whose_niche_has_no_counts_is_valid_only_with_an_image(slide):
    members = slide.obsp[Keys.NICHE_GRAPH][20].indices
    matrix = slide.X.tolil()
    matrix[members] = 0
    slide.X = matrix.tocsr()
    both, genes = open_section(slide), open_section(slide, image=False)
    assert both.valid.all()
    assert not genes.valid[20]
    batch = both.batch(np.array([20, 100]))
    assert batch.gene_valid.tolist() == [False, True]
    assert genes.valid.sum() >= slide.n_obs - 4
    other = np.setdiff1d(np.flatnonzero(matrix.sum(axis=1) == 0), [20])
    alive = genes.valid[other]
    niches = np.asarray(slide.obsp[Keys.NICHE_GRAPH][other] @ slide.X.sum(axis=1)).ravel()
    np.testing.assert_array_equal(alive, niches > 0)  # a spot without counts lives on its neighbours' counts


def test_features_stand_in_for_what_a_branch_reads(slide):
    slide.obsm["X_own"] = np.arange(slide.n_obs * 4, dtype=np.float64).reshape(-1, 4)
    slide.obsm["X_own"][9] = np.nan
    reader = open_section(slide, features={"niche_image": slide.obsm["X_own"]})
    assert not reader.valid[9]
    batch = reader.batch(np.array([3, 1]))
    np.testing.assert_array_equal(batch.niche_image, slide.obsm["X_own"][[3, 1]])
    assert batch.niche_image.dtype == torch.float32
    assert batch.spot_image.shape == (2, 3, 8, 8)
    assert open_section(slide, features={"niche_image": slide.obsm["X_own"]}, image=False).features == {}


def test_features_alone_are_enough(slide):
    slide.obsm["X_own"] = np.ones((slide.n_obs, 4))
    slide.X = None
    reader = open_section(
        slide, find_image=False, features={"niche_gene": slide.obsm["X_own"], "spot_gene": slide.obsm["X_own"]}
    )
    assert reader.modality == "gene"
    assert reader.batch(np.arange(2)).niche_gene.shape == (2, 4)


def test_batches_of_several_sections_are_joined():
    adata = stalign.datasets.toy(n_rows=12, n_sections=2)
    stalign.pp.patches(adata, library_key="library")
    views = sections(adata, library_key="library")
    vocabulary = Vocabulary(tuple(adata.var_names))
    readers = [
        read_section(views[0], SPEC, vocabulary),
        read_section(views[1], replace(SPEC, rank=4), vocabulary, image=False),
    ]
    parts = [reader.batch(np.arange(n)) for reader, n in zip(readers, (3, 2), strict=True)]
    joined = stack(parts)
    assert joined.section.tolist() == [0, 0, 0, 1, 1]
    assert joined.image_valid.tolist() == [True, True, True, False, False]
    assert joined.gene_valid is None
    np.testing.assert_array_equal(joined.niche_image[:3], parts[0].niche_image)
    assert joined.basis.shape == (2, 6, adata.n_vars)
    # padded ranks change no expression
    for i in range(5):
        part, row = (parts[0], i) if i < 3 else (parts[1], i - 3)
        expected = part.niche_gene[row] @ part.basis[0]
        np.testing.assert_allclose(joined.niche_gene[i] @ joined.basis[joined.section[i]], expected, atol=1e-6)


def test_one_batch_is_joined_to_itself(slide):
    part = open_section(slide).batch(np.arange(3))
    joined = stack([part])
    for name in ("spot_image", "niche_image", "spot_gene", "niche_gene", "basis", "section"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(part, name))
    assert joined.image_valid is None
    assert joined.gene_valid is None
