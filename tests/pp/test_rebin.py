from __future__ import annotations

import numpy as np
import pytest

import stalign
from stalign.data import open_sections as sections


@pytest.fixture(scope="module")
def _bins():
    return stalign.datasets.toy_hd(8, side_um=320)


@pytest.fixture
def bins(_bins):
    return _bins.copy()


def test_counts_are_those_of_the_larger_bins_of_the_same_transcripts(bins):
    larger, true = stalign.pp.rebin(bins, 16), stalign.datasets.toy_hd(16, side_um=320)
    assert larger.X.dtype == np.float32
    assert larger.X.sum() == bins.X.sum()
    whole = larger.obs_names[larger.obs["bins_summed"] == 4]
    whole = whole[whole.isin(true.obs_names)]
    assert len(whole) > 200
    assert abs(larger[whole].X - true[whole].X).nnz == 0
    np.testing.assert_allclose(larger[whole].obsm["spatial"], true[whole].obsm["spatial"], atol=1e-6)
    assert larger.obs_names.is_unique
    np.testing.assert_array_equal(larger.obs["array_col"], [int(name[14:19]) for name in larger.obs_names])


def test_every_bin_knows_its_parent(bins):
    larger = stalign.pp.rebin(bins, 32)
    parent = bins.obs["square_032um"]
    assert parent.dtype == "category"
    np.testing.assert_array_equal(parent.value_counts()[larger.obs_names], larger.obs["bins_summed"])
    at = larger[parent.astype(str)].obsm["spatial"]
    assert np.abs(at - bins.obsm["spatial"]).max() < 32  # px: half of 32 µm, and a little for the turn of the array
    totals = np.asarray(bins.X.sum(axis=1)).ravel()
    summed = np.bincount(larger.obs_names.get_indexer(parent), totals)
    np.testing.assert_array_equal(summed, np.asarray(larger.X.sum(axis=1)).ravel())


def test_the_new_size_is_known_and_the_old_object_stays(bins):
    before = bins.copy()
    larger = stalign.pp.rebin(bins, 64)
    view = sections(larger)[0]
    assert view.technology == "hd"
    assert view.pitch_um == view.spot_diameter_um == 64
    assert view.coord_mpp == 0.5
    assert view.image is not None
    assert bins.uns["spatial"]["toy_hd"]["scalefactors"] == before.uns["spatial"]["toy_hd"]["scalefactors"]
    assert set(bins.obs) - set(before.obs) == {"square_064um"}
    again = stalign.pp.rebin(larger, 128)  # larger ones of larger ones
    assert abs(again.X - stalign.pp.rebin(bins, 128).X).nnz == 0


def test_bins_without_counts_stay_and_are_marked(bins):
    larger = stalign.pp.rebin(bins, 16)
    totals = np.asarray(larger.X.sum(axis=1)).ravel()
    assert (totals == 0).any()
    np.testing.assert_array_equal(larger.obs["bin_has_counts"], totals > 0)
    np.testing.assert_array_equal(stalign.pp.rebin(bins, 16, min_counts=20).obs["bin_has_counts"], totals >= 20)


def test_the_order_of_the_bins_does_not_matter(bins):
    mixed = bins[np.random.default_rng(0).permutation(bins.n_obs)].copy()
    one, other = stalign.pp.rebin(bins, 32), stalign.pp.rebin(mixed, 32)
    assert list(one.obs_names) == list(other.obs_names)
    assert abs(one.X - other.X).nnz == 0
    np.testing.assert_allclose(one.obsm["spatial"], other.obsm["spatial"], atol=1e-9)


def test_spatialdata_gets_squares_and_keeps_its_images():
    sdata = stalign.datasets.toy_hd(8, side_um=320, spatialdata=True)
    larger, plain = stalign.pp.rebin(sdata, 32), stalign.pp.rebin(stalign.datasets.toy_hd(8, side_um=320), 32)
    assert list(larger.tables) == ["square_032um"]
    assert list(larger.shapes) == ["toy_hd_square_032um"]
    assert list(larger.images) == ["toy_hd_hires_image"]
    assert "square_032um" in sdata.tables["square_008um"].obs
    table = larger.tables["square_032um"]
    assert abs(table.X - plain.X).nnz == 0
    np.testing.assert_allclose(larger.shapes["toy_hd_square_032um"].area, 64.0**2, rtol=1e-6)
    view = sections(larger)[0]
    assert view.pitch_um == 32
    np.testing.assert_allclose(view.coords, plain.obsm["spatial"], atol=1e-6)


def test_sections_are_not_mixed(bins):
    import anndata

    both = anndata.concat({"a": bins, "b": bins}, label="library", index_unique="-")
    both.uns["spatial"] = dict.fromkeys("ab", bins.uns["spatial"]["toy_hd"])
    larger, one = stalign.pp.rebin(both, 32, library_key="library"), stalign.pp.rebin(bins, 32)
    assert larger.n_obs == 2 * one.n_obs
    assert abs(larger[larger.obs["library"] == "b"].X - one.X).nnz == 0


def test_what_cannot_be_summed(bins):
    before = bins.copy()
    for um, match in ((12, "multiple of the bins of 8 µm"), (8, "multiple"), ("32", "whole number"), (0, "whole")):
        with pytest.raises(ValueError, match=match):
            stalign.pp.rebin(bins, um)
    with pytest.raises(ValueError, match="bins of a stated size.*bin_size_um"):
        stalign.pp.rebin(stalign.datasets.toy(8), 200)
    with pytest.raises(KeyError, match="array_row"):
        stalign.pp.rebin(stalign.datasets.toy_hd(cells=True, side_um=240))
    bins.obs["array_row"] = bins.obs["array_row"] + 0.5
    with pytest.raises(ValueError, match="whole numbers"):
        stalign.pp.rebin(bins)
    assert set(bins.obs) == set(before.obs)


def test_sections_of_several_sizes_are_told_by_their_own_bins(bins):
    """Not by the first row of the table, which took spots of Visium for bins of 8 µm."""
    import anndata

    other, visium = stalign.datasets.toy_hd(16, side_um=320), stalign.datasets.toy(8)
    parts = {"a": bins, "b": other, "c": visium}
    for name, part in parts.items():
        entry = next(iter(part.uns["spatial"].values()))
        entry["scalefactors"].pop("bin_size_um", None)
        part.uns["spatial"] = {name: entry}
    bins.obs_names = [f"first_{name}" for name in bins.obs_names]
    joined = anndata.concat(parts, label="section", index_unique="-", uns_merge="unique", join="outer")
    views = sections(joined, library_key="section", image=False)
    assert [view.technology for view in views] == ["hd", "hd", "visium"]
    assert [view.pitch_um for view in views] == [8, 16, 100]
    assert [view.coord_mpp for view in views] == pytest.approx([0.5, 0.5, 0.5], rel=1e-3)
    with pytest.raises(ValueError, match=r"'c' to have bins of a stated size.*visium"):
        stalign.pp.rebin(joined, 32, library_key="section")


@pytest.mark.parametrize("fewest", [0, -1, 1.5, "5", True])
def test_the_fewest_counts_are_a_whole_number(bins, fewest):
    with pytest.raises((TypeError, ValueError), match="Expected `min_counts`"):
        stalign.pp.rebin(bins, 32, min_counts=fewest)
