from __future__ import annotations

import numpy as np
import pytest
from anndata import concat, read_h5ad, read_zarr

import stalign
from stalign._constants import Keys
from stalign.core.niches import Niche, members
from stalign.core.patches import niche_windows_um, spot_windows_um
from stalign.data import open_sections as sections
from stalign.data import section_row


def windows_of(adata):
    return adata.obsm[Keys.SPOT_WINDOW], adata.obsm[Keys.NICHE_WINDOW]


@pytest.fixture(scope="module")
def _pair():
    return stalign.datasets.toy(n_rows=10, n_sections=2)


@pytest.fixture
def pair(_pair):
    """A fresh copy of two small sections in one table."""
    return _pair.copy()


def test_windows_are_boxes_in_um_put_in_px(toy):
    assert stalign.pp.patches(toy) is None
    spot, niche = windows_of(toy)
    view = sections(toy)[0]
    assert spot.dtype == niche.dtype == np.float32
    um_per_px = view.image.mpp
    centre = view.coords * view.image.scale
    np.testing.assert_allclose((spot[:, :2] + spot[:, 2:]) / 2, centre, atol=1e-2)
    np.testing.assert_allclose((spot[:, 2:] - spot[:, :2]) * um_per_px, 55, rtol=1e-3)
    for row in (0, 5, 100):
        near = np.argsort(np.linalg.norm(view.coords - view.coords[row], axis=1), kind="stable")[:4]
        low, high = spot[near, :2].min(axis=0), spot[near, 2:].max(axis=0)
        np.testing.assert_array_equal(niche[row], [*low, *high])
    extent = (niche[:, 2:] - niche[:, :2]) * um_per_px
    assert (extent >= 55 - 0.1).all()
    assert np.median(extent.max(axis=1)) == pytest.approx(55 + 200, rel=0.25)


def test_what_is_written(toy):
    before = toy.copy()
    stalign.pp.patches(toy)
    assert set(toy.obsm) - set(before.obsm) == {Keys.SPOT_WINDOW, Keys.NICHE_WINDOW}
    assert set(toy.obs) - set(before.obs) == {Keys.VALID}
    assert toy.obs[Keys.VALID].dtype == bool
    assert toy.obs[Keys.VALID].all()
    assert Keys.NICHE_GRAPH in toy.obsp
    view = sections(toy)[0]
    noted = toy.uns[Keys.UNS]["patches"]
    assert noted["params"] == {"n_neighbors": 3, "include_self": True, "ties": "position"}
    assert noted["sections"].to_dict("records") == [
        {
            "section": "toy",
            "image_key": "hires",
            "mpp": pytest.approx(view.image.mpp),
            "mpp_origin": view.mpp_origin,
            "coord_mpp": pytest.approx(view.coord_mpp),
            "scale": pytest.approx(view.image.scale),
            "spot_diameter_um": 55.0,
            "spot_window_um": 55.0,
            "niche_window_um": pytest.approx(204, abs=1),
            "mpp_given": False,
            "spot_diameter_given": False,
            "spot_window_given": False,
            "niche_window_given": False,
        }
    ]


def test_the_patch_of_a_window_is_the_place_of_the_spot(toy):
    # A black square is drawn around one spot, and its patch is black.
    spot = 200
    view = sections(toy)[0]
    x, y = view.image.to_pixels(view.coords[[spot]])[0]
    half = 28 / view.image.mpp
    picture = np.array(view.image.pixels())
    picture[int(y - half) : int(y + half) + 2, int(x - half) : int(x + half) + 2] = 0
    toy.uns[Keys.UNS_SPATIAL]["toy"]["images"]["hires"] = picture
    stalign.pp.patches(toy)
    patches = sections(toy)[0].image.patches(toy.obsm[Keys.SPOT_WINDOW], 28)
    brightness = patches.reshape(toy.n_obs, -1).mean(axis=1)
    assert brightness[spot] == 0
    assert brightness.argmin() == spot
    assert np.median(brightness) > 50


def test_other_slots_of_stalign_are_kept(toy):
    toy.uns[Keys.UNS] = {"embed": {"weights": "x"}}
    stalign.pp.patches(toy)
    assert set(toy.uns[Keys.UNS]) == {"embed", "patches"}


def test_diameter_scales_the_windows(toy):
    stalign.pp.patches(toy)
    narrow = toy.obsm[Keys.SPOT_WINDOW].astype(float)
    stalign.pp.patches(toy, spot_diameter=110)
    wide = toy.obsm[Keys.SPOT_WINDOW].astype(float)
    np.testing.assert_allclose(wide[:, 2:] - wide[:, :2], 2 * (narrow[:, 2:] - narrow[:, :2]), rtol=1e-3)
    assert section_row(toy, "patches", "toy")["spot_diameter_um"] == 110


def test_mpp_given_scales_the_windows(toy):
    stalign.pp.patches(toy)
    derived = toy.obsm[Keys.SPOT_WINDOW].astype(float)
    mpp = section_row(toy, "patches", "toy")["coord_mpp"]
    with pytest.warns(UserWarning, match="pitch"):
        stalign.pp.patches(toy, mpp=2 * mpp)
    given = toy.obsm[Keys.SPOT_WINDOW].astype(float)
    np.testing.assert_allclose(given[:, 2:] - given[:, :2], (derived[:, 2:] - derived[:, :2]) / 2, rtol=1e-3)
    record = section_row(toy, "patches", "toy")
    assert record["coord_mpp"] == pytest.approx(2 * mpp)
    assert record["mpp_origin"] != "unknown"


def test_niches_that_are_there_are_taken(toy):
    stalign.pp.niches(toy, 6)
    graph = toy.obsp[Keys.NICHE_GRAPH].copy()
    stalign.pp.patches(toy)
    assert abs(toy.obsp[Keys.NICHE_GRAPH] - graph).nnz == 0
    assert toy.uns[Keys.UNS]["patches"]["params"]["n_neighbors"] == 6
    six = toy.obsm[Keys.NICHE_WINDOW]
    stalign.pp.patches(toy, n_neighbors=3)
    assert toy.uns[Keys.UNS_NICHES]["params"]["n_neighbors"] == 3
    three = toy.obsm[Keys.NICHE_WINDOW]
    assert ((six[:, :2] <= three[:, :2]) & (six[:, 2:] >= three[:, 2:])).all()
    assert (six != three).any()


def test_include_self_does_not_change_windows(toy):
    stalign.pp.patches(toy)
    expected = toy.obsm[Keys.NICHE_WINDOW].copy()
    stalign.pp.niches(toy, include_self=False)
    stalign.pp.patches(toy)
    np.testing.assert_array_equal(toy.obsm[Keys.NICHE_WINDOW], expected)


def test_sections_are_on_their_own(pair):
    stalign.pp.patches(pair, library_key="library")
    assert set(pair.uns[Keys.UNS]["patches"]["sections"]["section"]) == set(pair.obs["library"])
    for name in pair.obs["library"].unique():
        rows = (pair.obs["library"] == name).to_numpy()
        alone = pair[rows].copy()
        alone.uns[Keys.UNS_SPATIAL] = {name: pair.uns[Keys.UNS_SPATIAL][name]}
        del alone.obsp[Keys.NICHE_GRAPH], alone.uns[Keys.UNS_NICHES]
        stalign.pp.patches(alone)
        for together, apart in zip(windows_of(pair), windows_of(alone), strict=True):
            np.testing.assert_array_equal(together[rows], apart)


def test_order_of_sections_does_not_matter(pair):
    names = list(pair.obs["library"].unique())
    parts = {name: pair[(pair.obs["library"] == name).to_numpy()].copy() for name in names}
    results = []
    for order in (names, names[::-1]):
        joined = concat([parts[name] for name in order], uns_merge="unique")
        joined.uns[Keys.UNS_SPATIAL] = pair.uns[Keys.UNS_SPATIAL]
        stalign.pp.patches(joined, library_key="library")
        results.append(joined[pair.obs_names])
    for first, second in zip(windows_of(results[0]), windows_of(results[1]), strict=True):
        np.testing.assert_array_equal(first, second)


def test_niches_never_cross_sections_whatever_graph_is_there(pair):
    fresh = stalign.pp.patches(pair, library_key="library", copy=True)
    pair.obs["one"] = "x"
    pair.obsm[Keys.SPATIAL] = pair.obsm[Keys.SPATIAL] * [1, 0]  # one line, on which both sections lie
    stalign.pp.niches(pair, library_key="one")
    pair.obsm[Keys.SPATIAL] = stalign.datasets.toy(n_rows=10, n_sections=2).obsm[Keys.SPATIAL]
    stalign.pp.patches(pair, library_key="library")
    assert abs(pair.obsp[Keys.NICHE_GRAPH] - fresh.obsp[Keys.NICHE_GRAPH]).nnz == 0
    np.testing.assert_array_equal(pair.obsm[Keys.NICHE_WINDOW], fresh.obsm[Keys.NICHE_WINDOW])


def test_a_section_without_image_gets_nan(pair):
    name = pair.obs["library"].unique()[1]
    pair.uns[Keys.UNS_SPATIAL][name]["images"] = {}
    rows = (pair.obs["library"] == name).to_numpy()
    with pytest.warns(UserWarning, match=f"{rows.sum()} of {pair.n_obs} spots have no window") as caught:
        stalign.pp.patches(pair, library_key="library")
    assert len(caught) == 1
    for windows in windows_of(pair):
        np.testing.assert_array_equal(np.isnan(windows).any(axis=1), rows)
    np.testing.assert_array_equal(pair.obs[Keys.VALID], ~rows)
    assert name not in set(pair.uns[Keys.UNS]["patches"]["sections"]["section"])
    graph = pair.obsp[Keys.NICHE_GRAPH]
    np.testing.assert_allclose(graph.sum(axis=1), 1, rtol=1e-6)  # genes have niches all the same


def test_no_image_at_all_is_an_error():
    adata = stalign.datasets.toy(n_rows=8, image=False)
    with pytest.raises(ValueError, match="Expected an image"):
        stalign.pp.patches(adata)
    assert not set(adata.obsm) & {Keys.SPOT_WINDOW, Keys.NICHE_WINDOW}
    assert Keys.NICHE_GRAPH not in adata.obsp


def test_spots_without_coordinates_get_nan_rows(toy):
    whole = toy.copy()
    stalign.pp.patches(whole)
    toy.obsm[Keys.SPATIAL] = toy.obsm[Keys.SPATIAL].astype(float)
    toy.obsm[Keys.SPATIAL][[3, 10], [0, 1]] = np.nan
    with pytest.warns(UserWarning, match=f"2 of {toy.n_obs} spots have no window") as caught:
        stalign.pp.patches(toy)
    assert len(caught) == 1
    gone = np.zeros(toy.n_obs, dtype=bool)
    gone[[3, 10]] = True
    for windows in windows_of(toy):
        np.testing.assert_array_equal(np.isnan(windows).all(axis=1), gone)
        np.testing.assert_array_equal(np.isnan(windows).any(axis=1), gone)
    np.testing.assert_array_equal(toy.obs[Keys.VALID], ~gone)
    np.testing.assert_allclose(toy.obsm[Keys.SPOT_WINDOW][~gone], whole.obsm[Keys.SPOT_WINDOW][~gone], atol=0.05)


def test_a_spot_outside_the_image_is_invalid(toy):
    toy.obsm[Keys.SPATIAL] = toy.obsm[Keys.SPATIAL].astype(float)
    toy.obsm[Keys.SPATIAL][7] = -500
    stalign.pp.niches(toy)
    with pytest.warns(UserWarning, match="outside"), pytest.warns(UserWarning, match="1 of .* no window"):
        stalign.pp.patches(toy)
    assert np.flatnonzero(~toy.obs[Keys.VALID]).tolist() == [7]
    assert np.isfinite(np.delete(toy.obsm[Keys.NICHE_WINDOW], 7, axis=0)).all()


@pytest.mark.filterwarnings("ignore:Expected the coordinates of section")
def test_wrong_scale_is_an_error_and_changes_nothing(toy):
    toy.obsm[Keys.SPATIAL] = toy.obsm[Keys.SPATIAL] * 40
    before = toy.copy()
    with pytest.raises(ValueError, match="inside its image"):
        stalign.pp.patches(toy)
    assert set(toy.obsm) == set(before.obsm)
    assert set(toy.obsp) == set(before.obsp)
    assert set(toy.uns) == set(before.uns)


def test_unknown_spot_diameter_is_an_error(toy):
    few = toy[:2].copy()
    del few.obs["array_row"], few.uns[Keys.UNS_SPATIAL]["toy"]["scalefactors"]["spot_diameter_fullres"]
    with pytest.raises(ValueError, match="spot diameter"):
        stalign.pp.patches(few, mpp=0.5)
    stalign.pp.patches(few, mpp=0.5, spot_diameter=55)
    assert np.isfinite(few.obsm[Keys.NICHE_WINDOW]).all()


def test_one_spot(toy):
    one = toy[:1].copy()
    stalign.pp.patches(one, mpp=0.5, spot_diameter=55)
    np.testing.assert_array_equal(*windows_of(one))
    assert one.obsp[Keys.NICHE_GRAPH].toarray() == [[1]]


def test_copy_leaves_the_original_alone(toy):
    changed = stalign.pp.patches(toy, copy=True)
    assert Keys.SPOT_WINDOW not in toy.obsm
    assert Keys.VALID not in toy.obs
    assert Keys.UNS not in toy.uns
    assert Keys.NICHE_GRAPH not in toy.obsp
    stalign.pp.patches(toy)
    for first, second in zip(windows_of(changed), windows_of(toy), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_is_written_to(toy):
    stalign.pp.niches(toy)
    half = toy.obs["array_row"] < 16
    view = toy[half]
    stalign.pp.patches(view)
    assert not view.is_view
    assert np.isfinite(view.obsm[Keys.NICHE_WINDOW]).all()
    assert Keys.NICHE_WINDOW not in toy.obsm


@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_results_survive_files(toy, tmp_path):
    stalign.pp.patches(toy)
    toy.write_h5ad(tmp_path / "a.h5ad")
    toy.write_zarr(tmp_path / "a.zarr")
    for back in (read_h5ad(tmp_path / "a.h5ad"), read_zarr(tmp_path / "a.zarr")):
        for first, second in zip(windows_of(back), windows_of(toy), strict=True):
            np.testing.assert_array_equal(first, second)
        assert back.obs[Keys.VALID].dtype == bool
        record, expected = (section_row(a, "patches", "toy") for a in (back, toy))
        assert dict(record) == expected


def test_spatialdata_gives_the_same_windows(toy):
    pytest.importorskip("spatialdata")
    sdata = stalign.datasets.toy(spatialdata=True)
    stalign.pp.patches(sdata)
    stalign.pp.patches(toy)
    for first, second in zip(windows_of(next(iter(sdata.tables.values()))), windows_of(toy), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"n_neighbors": 0}, ValueError, "at least 1"),
        ({"n_neighbors": "3"}, TypeError, "whole number"),
        ({"spot_diameter": -1}, ValueError, "spot_diameter"),
        ({"mpp": 0}, ValueError, "mpp"),
        ({"image_key": "nope"}, KeyError, "nope"),
        ({"library_key": "nope"}, KeyError, "nope"),
        ({"data": 3}, TypeError, "AnnData or a SpatialData"),
    ],
)
def test_bad_arguments(toy, change, error, match):
    with pytest.raises(error, match=match):
        stalign.pp.patches(**{"data": toy, **change})
    assert Keys.SPOT_WINDOW not in toy.obsm


@pytest.mark.real
def test_on_a_real_section(shared_data, monkeypatch):
    monkeypatch.chdir(shared_data / "mob")
    adata = read_h5ad("rep1.h5ad")
    stalign.pp.patches(adata)
    record = section_row(adata, "patches", "rep1")
    assert record["mpp"] == pytest.approx(2.76, rel=0.02)
    assert record["spot_diameter_um"] == 100
    side = adata.obsm[Keys.SPOT_WINDOW][:, 2] - adata.obsm[Keys.SPOT_WINDOW][:, 0]
    np.testing.assert_allclose(side, 36, rtol=0.03)  # px, by the description of the data
    patches = sections(adata)[0].image.patches(adata.obsm[Keys.NICHE_WINDOW], 28)
    assert patches.shape == (adata.n_obs, 28, 28, 3)


@pytest.fixture(scope="module")
def _squares():
    return stalign.datasets.toy_hd(16, side_um=480)


def edges_um(adata):
    mpp = sections(adata)[0].image.mpp
    return [(windows[:, 2:] - windows[:, :2]) * mpp for windows in windows_of(adata)]


def test_bins_and_cells_see_as_much_as_a_visium_spot(_squares):
    cells = stalign.datasets.toy_hd(cells=True, side_um=480)
    for adata, diameter, spot_um in ((_squares.copy(), None, 16), (cells, 10, 10)):
        stalign.pp.patches(adata, spot_diameter=diameter)
        spot, niche = edges_um(adata)
        np.testing.assert_allclose(spot, 55, atol=0.01)
        np.testing.assert_allclose(niche, 200, atol=0.01)
        view = sections(adata)[0]
        centre = view.image.to_pixels(view.coords)
        for windows in windows_of(adata):
            np.testing.assert_allclose((windows[:, :2] + windows[:, 2:]) / 2, centre, atol=0.01)
        noted = section_row(adata, "patches", view.name)
        assert (noted["spot_diameter_um"], noted["spot_window_um"], noted["niche_window_um"]) == (spot_um, 55, 200)
        assert not noted["spot_window_given"] and not noted["niche_window_given"]


def test_bins_larger_than_a_visium_spot_see_themselves(_squares):
    large = stalign.pp.rebin(_squares, um=80)
    stalign.pp.patches(large)
    spot, niche = edges_um(large)
    np.testing.assert_allclose(spot, 80, atol=0.1)
    assert np.median(niche) > 155


def test_windows_given_in_um_hold(_squares, toy):
    for adata in (_squares.copy(), toy):
        stalign.pp.patches(adata, spot_window=30, niche_window=120)
        spot, niche = edges_um(adata)
        np.testing.assert_allclose(spot, 30, atol=0.01)
        np.testing.assert_allclose(niche, 120, atol=0.01)
        (later,) = sections(adata)
        assert (later.window_um("spot"), later.window_um("niche")) == (30, 120)
        (other,) = sections(adata, niche_window=90)
        assert (other.window_um("spot"), other.window_um("niche")) == (30, 90)
        (fresh,) = sections(adata, as_noted=False)
        assert fresh.window_um("niche") == (200 if adata is not toy else None)


@pytest.mark.parametrize("name", ["spot_window", "niche_window"])
@pytest.mark.parametrize("value", [0, -5.0, np.nan, "55"])
def test_windows_are_positive(toy, name, value):
    with pytest.raises(ValueError, match=f"Expected `{name}` to be a positive number of µm"):
        stalign.pp.patches(toy, **{name: value})
    assert Keys.SPOT_WINDOW not in toy.obsm


@pytest.mark.parametrize("kind", ["visium", "st"])
def test_windows_of_spots_do_not_hang_on_the_trained_sizes(toy, kind):
    """Bit for bit the box of the spot's diameter, and of the niche's spots."""
    if kind == "st":
        square = np.arange(toy.n_obs)
        toy = toy[square < 900].copy()
        toy.obsm[Keys.SPATIAL] = np.column_stack([square[:900] % 30, square[:900] // 30]) * 70.0 + 100
        toy.obs = toy.obs.drop(columns=["array_row", "array_col"])
        del toy.uns[Keys.UNS_SPATIAL]["toy"]["scalefactors"]["spot_diameter_fullres"]
    stalign.pp.patches(toy)
    (view,) = sections(toy)
    assert view.technology == kind
    assert view.window_um("spot", spot_um=500, niche_um=900) is view.window_um("niche", spot_um=500) is None
    niche = Niche()
    spots = spot_windows_um(view.coords_um, {"visium": 55, "st": 100}[kind])
    for found, boxes in zip(
        windows_of(toy), (spots, niche_windows_um(spots, members(view.niches(niche)))), strict=True
    ):
        corners = view.image.to_pixels(boxes.reshape(-1, 2) / view.coord_mpp).reshape(-1, 4)
        np.testing.assert_array_equal(found, corners.astype(np.float32))
