"""Visium HD as it should not come: one error or warning each, which says what was found and what to do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from anndata import AnnData

import stalign
from stalign._constants import Keys
from stalign.data import open_sections


@pytest.fixture(scope="module")
def _bins():
    return stalign.datasets.toy_hd(16, side_um=320)


@pytest.fixture
def bins(_bins):
    return _bins.copy()


@pytest.fixture
def sdata():
    return stalign.datasets.toy_hd(16, side_um=320, spatialdata=True)


def turned(xy, degrees):
    angle, middle = np.deg2rad(degrees), xy.mean(axis=0)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (xy - middle) @ matrix.T + middle


def heard(call):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(one.message) for one in caught if one.category is UserWarning]


@pytest.mark.parametrize("degrees", [30, 90, 180, -45])
def test_an_array_may_be_turned_against_its_image(bins, degrees):
    before = open_sections(bins)[0]
    bins.obsm["spatial"] = turned(bins.obsm["spatial"], degrees)
    view = open_sections(bins, image=False)[0]
    assert (view.technology, view.spot_diameter_um, view.coord_mpp) == ("hd", 16, 0.5)
    assert view.pitch_um == pytest.approx(before.pitch_um)
    assert heard(lambda: open_sections(bins, image=False)[0].scale) == []
    larger = stalign.pp.rebin(bins, 32)
    expected = turned(stalign.pp.rebin(stalign.datasets.toy_hd(16, side_um=320, image=False), 32).obsm["spatial"], 0)
    assert np.linalg.norm(np.diff(larger.obsm["spatial"][:2], axis=0)) == pytest.approx(
        np.linalg.norm(np.diff(expected[:2], axis=0))
    )


def test_a_turned_array_in_its_image_is_not_warned_of(bins):
    bins.obsm["spatial"] = turned(bins.obsm["spatial"], 90)
    assert heard(lambda: stalign.pp.patches(bins)) == []


def test_bins_outside_the_image(bins):
    bins.obsm["spatial"] += [300, 0]
    with pytest.raises(ValueError, match=r"(?s)inside its image 'hires' of 400 x 400 px.*of \d+ outside, at x"):
        stalign.pp.patches(bins)
    bins.obsm["spatial"] -= [300, 0]
    bins.obsm["spatial"][0] = [-50, 20]
    said = heard(lambda: open_sections(bins)[0].coords)
    assert len(said) == 1
    assert f"1 of {bins.n_obs} spots" in said[0]
    with pytest.warns(UserWarning, match="outside its image"):
        stalign.pp.patches(bins)
    assert not bins.obs[Keys.VALID].iloc[0]


def test_x_and_y_swapped_are_named_in_a_square_image_too(bins):
    bins.obsm["spatial"] = bins.obsm["spatial"][:, ::-1].copy()
    said = heard(lambda: stalign.pp.patches(bins))
    assert len(said) == 1
    assert "x and y look swapped" in said[0]
    assert "obsm['spatial'][:, ::-1]" in said[0]
    assert heard(lambda: stalign.pp.niches(bins)) == []  # who needs no image is not bothered


def test_x_and_y_swapped_in_another_image(bins):
    entry = bins.uns["spatial"]["toy_hd"]["images"]
    below = bins.obsm["spatial"][:, 1] < 350
    bins = bins[below].copy()
    entry["hires"] = entry["hires"][:200]
    bins.uns["spatial"]["toy_hd"]["images"]["hires"] = entry["hires"]
    bins.obsm["spatial"] = bins.obsm["spatial"][:, ::-1].copy()
    with pytest.warns(UserWarning, match="swapped"), pytest.raises(ValueError, match="x and y look swapped"):
        stalign.pp.patches(bins)


def test_a_wrong_table_key(sdata):
    with pytest.raises(KeyError, match=r"(?s)`table_key` to name a table.*'square_008um'.*square_016um"):
        stalign.pp.patches(sdata, table_key="square_008um")


def test_tables_of_several_sizes_are_not_guessed_between(sdata):
    larger = stalign.pp.rebin(sdata, 32)
    name = next(iter(larger.shapes))
    sdata.shapes[name] = larger.shapes[name]
    sdata.tables["square_032um"] = larger.tables["square_032um"]
    with pytest.raises(KeyError, match=r"2 tables.*square_016um.*square_032um.*`table_key=`"):
        stalign.pp.patches(sdata)
    stalign.pp.patches(sdata, table_key="square_032um")
    assert Keys.SPOT_WINDOW in sdata.tables["square_032um"].obsm
    assert Keys.SPOT_WINDOW not in sdata.tables["square_016um"].obsm


def test_a_cropped_object_has_the_windows_of_the_whole(sdata):
    from spatialdata import bounding_box_query

    system = sdata.coordinate_systems[0]
    part = bounding_box_query(
        sdata, axes=("x", "y"), min_coordinate=[200, 200], max_coordinate=[600, 600], target_coordinate_system=system
    )
    table, whole = (next(iter(one.tables.values())) for one in (part, sdata))
    assert 0 < table.n_obs < whole.n_obs
    view, entire = open_sections(part)[0], open_sections(sdata)[0]
    said = heard(lambda: view.coords)  # squares on the border are kept, though their centres lie beyond it
    assert len(said) == 1
    assert "outside its image" in said[0]
    rows = whole.obs_names.get_indexer(table.obs_names)
    inner = np.abs(view.positions - [400, 400]).max(axis=1) < 80
    assert inner.sum() > 20
    ours, theirs = (one.windows("spot", width_um=40)[at] for one, at in ((view, inner), (entire, rows[inner])))
    ours, theirs = view.image.patches(ours, 20).astype(int), entire.image.patches(theirs, 20).astype(int)
    np.testing.assert_allclose(ours, theirs, atol=1)  # windows are stored as float32


def test_a_table_that_was_not_cropped_with_its_squares(sdata):
    name = next(iter(sdata.shapes))
    sdata.shapes[name] = sdata.shapes[name].iloc[:-30]
    said = heard(lambda: stalign.pp.patches(sdata))
    table = next(iter(sdata.tables.values()))
    assert int((~table.obs[Keys.VALID]).sum()) == 30
    assert len(said) == 1
    assert "30 of" in said[0]


def test_an_image_that_was_cropped_alone(bins):
    entry = bins.uns["spatial"]["toy_hd"]["images"]
    entry["hires"] = entry["hires"][:200, :200]
    with pytest.raises(ValueError, match=r"(?s)inside its image 'hires' of 200 x 200 px.*image and the coordinates"):
        stalign.pp.patches(bins)


def test_counts_of_another_size_than_the_positions(bins):
    names = [name.replace("s_016um", "s_008um") for name in bins.obs_names]
    other = AnnData(bins.X, obs=bins.obs.set_axis(names), obsm=dict(bins.obsm), uns=dict(bins.uns))
    factors = bins.uns["spatial"]["toy_hd"]["scalefactors"]
    other.uns["spatial"] = {"toy_hd": {"scalefactors": {**factors, "bin_size_um": 8.0}, "images": {}}}
    said = heard(lambda: stalign.pp.niches(other, n_neighbors=3) or open_sections(other, image=False)[0].scale)
    assert len(said) == 1
    assert "0.5 µm per px" in said[0]
    assert "bin size of 8 µm gives 0.25" in said[0]
