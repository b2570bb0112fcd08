"""The simulated Visium HD section: sparse, of cells, the same in whatever it is counted, and hard for single bins."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stalign.core.expression import normalise
from stalign.core.gaussian import gaussian_mean
from stalign.datasets import toy_hd, write_toy_hd


@pytest.fixture(scope="module")
def bins():
    return toy_hd()


def totals(adata):
    return np.asarray(adata.X.sum(axis=1)).ravel()


def test_bins_are_as_sparse_as_was_asked_for(bins):
    assert 7000 < bins.n_obs < 8464
    assert (totals(bins) == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert (totals(toy_hd(empty=0.5, side_um=400, image=False)) == 0).mean() == pytest.approx(0.5, abs=0.02)
    assert set(bins.obs["domain"].unique()) == {"D1", "D2", "D3", "D4", "D5", "D6"}


def test_bins_of_all_sizes_and_cells_hold_the_same_transcripts(bins):
    small = toy_hd(2, image=False)
    parent = np.column_stack([small.obs["array_row"], small.obs["array_col"]]) // 4
    position = {(r, c): i for i, (r, c) in enumerate(zip(bins.obs["array_row"], bins.obs["array_col"], strict=True))}
    of = np.array([position.get(tuple(pair), -1) for pair in parent])
    counted = np.bincount(of[of >= 0], totals(small)[of >= 0], minlength=bins.n_obs)
    assert counted.sum() == pytest.approx(totals(bins).sum(), rel=0.02)  # but for the border
    assert np.corrcoef(counted, totals(bins))[0, 1] > 0.98
    cells = toy_hd(cells=True)
    assert 0.5 * totals(bins).sum() < totals(cells).sum() < totals(bins).sum()
    nearest = np.sqrt(np.square(cells.obsm["spatial"][:, None] - cells.obsm["spatial"][:50]).sum(-1))
    assert np.median(np.sort(nearest, axis=0)[1]) * 0.5 == pytest.approx(9, abs=2)  # µm


def test_a_seed_gives_a_section(bins):
    again, other = toy_hd(), toy_hd(seed=1, image=False)
    assert abs(again.X - bins.X).nnz == 0
    np.testing.assert_array_equal(*(a.uns["spatial"]["toy_hd"]["images"]["hires"] for a in (again, bins)))
    assert other.n_obs != bins.n_obs or abs(other.X - bins.X).nnz > 0


def test_positions_lie_on_a_turned_array_of_the_stated_scale(bins):
    xy, array = bins.obsm["spatial"], bins.obs[["array_col", "array_row"]].to_numpy(dtype=float)
    step = np.linalg.lstsq(array - array.mean(0), xy - xy.mean(0), rcond=None)[0]
    np.testing.assert_allclose(np.linalg.norm(step, axis=1), 16, rtol=1e-6)
    assert abs(step[0, 1]) > 0.1
    height, width = bins.uns["spatial"]["toy_hd"]["images"]["hires"].shape[:2]
    assert (xy.min(0) > 0).all()
    assert (xy.max(0) * 0.5 < [width, height]).all()


def test_niches_tell_domains_and_single_bins_do_not(bins):
    counted = totals(bins) > 0
    values = normalise(bins.X[counted].astype(float)).toarray()
    truth = bins.obs["domain"][counted]

    def ari(values):
        values = PCA(10, random_state=0).fit_transform(values)
        labels = GaussianMixture(6, covariance_type="tied", n_init=3, random_state=0).fit_predict(values)
        return adjusted_rand_score(truth, labels)

    smoothed = gaussian_mean(bins.obsm["spatial"][counted] * 0.5, 40.0) @ values
    assert ari(values) < 0.3
    assert ari(smoothed) > 0.6


def test_nuclei_of_the_image_are_those_of_the_cells():
    cells = toy_hd(cells=True, side_um=320)
    image = cells.uns["spatial"]["toy_hd"]["images"]["hires"].astype(float)
    x, y = (cells.obsm["spatial"] * 0.5).astype(int).T
    assert image[y, x].mean() < image[image.mean(axis=2) < 235].mean() - 25


def test_it_is_quick():
    start = time.process_time()
    toy_hd()
    assert time.process_time() - start < 2


@pytest.mark.parametrize("given", [{"side_um": 100}, {"bin_um": 7}, {"bin_um": 0}, {"empty": 1.0}, {"empty": -0.1}])
def test_what_it_cannot_make(given):
    with pytest.raises(ValueError, match="Expected `(side_um|empty)`"):
        toy_hd(**given)


def test_spatialdata_has_the_names_of_spatialdata_io():
    sdata = toy_hd(16, side_um=240, spatialdata=True)
    assert list(sdata.tables) == ["square_016um"]
    assert list(sdata.shapes) == ["toy_hd_square_016um"]
    cells = toy_hd(cells=True, side_um=240, spatialdata=True)
    outlines = cells.shapes["toy_hd_cell_segmentations"]
    assert list(outlines.index) == list(cells.tables["cell_segmentations"].obs["cell_id"])
    centres = np.c_[outlines.centroid.x, outlines.centroid.y]
    np.testing.assert_allclose(centres, cells.tables["cell_segmentations"].obsm["spatial"], atol=0.5)


def test_a_folder_is_written_once_and_whole(tmp_path):
    folder = write_toy_hd(tmp_path / "outs", bins=(16,), side_um=240, cells=False)
    assert not (folder / "segmented_outputs").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["outs"]
    with pytest.raises(FileExistsError, match="does not exist or is empty"):
        write_toy_hd(folder)
    with pytest.raises(ValueError, match="multiple of `bin_um`"):
        write_toy_hd(tmp_path / "other", bins=(16, 7))
    with pytest.raises(ValueError, match="at least one size"):
        write_toy_hd(tmp_path / "other", bins=())
    assert [path.name for path in tmp_path.iterdir()] == ["outs"]
