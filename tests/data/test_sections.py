from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stalign
from stalign.data import open_sections
from stalign.data.files import allow


def sections(data, **given):
    """Open sections, and read of them what an embedding reads."""
    found = open_sections(data, **given)
    for section in found:
        assert len(section.coords) == len(section.rows)
        assert section.scale.technology
    return found


@pytest.fixture(scope="module")
def toy():
    return stalign.datasets.toy(n_rows=12)


@pytest.fixture(scope="module")
def pair():
    return stalign.datasets.toy(n_rows=10, n_sections=2)


@pytest.fixture
def log(caplog):
    stalign._settings.logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger="stalign")
    yield caplog
    stalign._settings.logger.removeHandler(caplog.handler)


def entry(adata, library="toy"):
    return adata.uns["spatial"][library]


def test_a_visium_section(toy):
    (view,) = sections(toy)
    assert view.name == "toy"
    np.testing.assert_array_equal(view.rows, np.arange(toy.n_obs))
    np.testing.assert_array_equal(view.coords, toy.obsm["spatial"])
    assert view.coord_mpp == pytest.approx(0.5, rel=1e-3)
    assert (view.technology, view.pitch_um, view.spot_diameter_um) == ("visium", 100.0, 55.0)
    np.testing.assert_allclose(view.coords_um, toy.obsm["spatial"] * view.coord_mpp)
    assert view.image.key == "hires"
    assert view.image.scale == 0.25
    assert view.image.mpp == pytest.approx(2.0, rel=1e-3)
    assert view.image.shape == entry(toy)["images"]["hires"].shape[:2]
    assert view.valid.all()
    assert sections(toy, image=False)[0].image is None


def test_reading_changes_nothing(toy):
    before = toy.copy()
    view = sections(toy)[0]
    view.coords[:] = 0
    np.testing.assert_array_equal(toy.obsm["spatial"], before.obsm["spatial"])
    pd.testing.assert_frame_equal(toy.obs, before.obs)
    assert toy.uns.keys() == before.uns.keys()


def test_two_libraries_give_what_each_gives_alone(pair):
    views = sections(pair, library_key="library")
    assert [view.name for view in views] == ["toy_1", "toy_2"]
    for view in views:
        own = pair[pair.obs["library"] == view.name].copy()
        (alone,) = sections(own, library_key="library")
        np.testing.assert_array_equal(view.coords, alone.coords)
        np.testing.assert_array_equal(pair.obs_names[view.rows], own.obs_names)
        assert view.coord_mpp == alone.coord_mpp
        np.testing.assert_array_equal(view.image.pixels(), alone.image.pixels())
    assert not np.array_equal(views[0].image.pixels(), views[1].image.pixels())


def test_shuffled_rows_are_shuffled_and_nothing_else(pair):
    order = np.random.default_rng(0).permutation(pair.n_obs)
    for view, shuffled in zip(
        sections(pair, library_key="library"), sections(pair[order], library_key="library"), strict=True
    ):
        np.testing.assert_array_equal(np.sort(order[shuffled.rows]), view.rows)
        np.testing.assert_array_equal(pair.obsm["spatial"][order[shuffled.rows]], shuffled.coords)
        assert shuffled.coord_mpp == pytest.approx(view.coord_mpp, rel=1e-9)


def test_several_libraries_without_a_key_name_the_column(pair):
    with pytest.raises(KeyError, match="2 libraries.*Pass `library_key='library'`"):
        sections(pair)
    with pytest.raises(KeyError, match="'nope'.*'library'"):
        sections(pair, library_key="nope")


def test_a_subset_of_one_library_finds_its_own_entry(pair):
    part = pair[pair.obs["library"] == "toy_2"]
    (view,) = sections(part)
    assert view.name == "toy_2"
    np.testing.assert_array_equal(view.image.pixels(), entry(pair, "toy_2")["images"]["hires"])


def test_the_only_entry_serves_the_only_library_whatever_its_name(toy):
    adata = toy.copy()
    adata.obs["sample"] = "patient 1"
    (view,) = sections(adata, library_key="sample")
    assert view.name == "patient 1"
    assert view.image is not None


def test_a_library_without_entry_is_said_once_images_are_wanted(pair, log):
    adata = pair.copy()
    del adata.uns["spatial"]["toy_1"]
    first, second = sections(adata, library_key="library")
    assert first.image is None
    assert second.image is not None
    assert "'toy_1' has no entry" in log.text
    log.clear()
    sections(adata, library_key="library", image=False)
    assert not log.text


def test_no_uns_at_all(toy):
    adata = toy.copy()
    del adata.uns["spatial"]
    (view,) = sections(adata)
    assert view.name == "section"
    assert view.image is None
    assert view.coord_mpp == pytest.approx(0.5, rel=1e-3)


def test_which_image_is_used(toy):
    adata = toy.copy()
    hires = entry(adata)["images"]["hires"]
    entry(adata)["images"] = {"lowres": hires[::2, ::2], "hires": hires}
    entry(adata)["scalefactors"]["tissue_lowres_scalef"] = 0.125
    assert sections(adata)[0].image.key == "hires"
    low = sections(adata, image_key="lowres")[0].image
    assert (low.key, low.scale, low.mpp) == ("lowres", 0.125, pytest.approx(4.0, rel=1e-3))
    assert sections(adata, image_key={"toy": "lowres"})[0].image.key == "lowres"
    entry(adata)["metadata"]["image_key"] = "lowres"
    assert sections(adata)[0].image.key == "lowres"
    with pytest.raises(KeyError, match="'nope'.*'lowres', 'hires'"):
        sections(adata, image_key="nope")
    del entry(adata)["scalefactors"]["tissue_lowres_scalef"]
    with pytest.raises(KeyError, match="tissue_lowres_scalef.*tissue_hires_scalef"):
        sections(adata)
    entry(adata)["images"] = {"lowres": hires, "fullres": np.repeat(np.repeat(hires, 4, 0), 4, 1)}
    del entry(adata)["metadata"]["image_key"]
    full = sections(adata)[0].image
    assert (full.key, full.scale) == ("fullres", 1.0)


def test_an_image_on_disk(toy, tmp_path, log):
    adata = toy.copy()
    hires = entry(adata)["images"].pop("hires")
    Image.fromarray(hires).resize((hires.shape[1] * 4, hires.shape[0] * 4)).save(tmp_path / "full.png")
    entry(adata)["metadata"]["source_image_path"] = str(tmp_path / "full.png")
    assert sections(adata)[0].image is None
    assert "full.png that section 'toy' names is not opened" in log.text
    allow(tmp_path / "full.png")  # as the readers do
    view = sections(adata)[0]
    assert (view.image.key, view.image.scale) == ("fullres", 1.0)
    assert view.image.shape == (hires.shape[0] * 4, hires.shape[1] * 4)
    entry(adata)["images"]["hires"] = hires
    assert sections(adata)[0].image.key == "hires"
    assert sections(adata, image_key="fullres")[0].image.key == "fullres"
    entry(adata)["metadata"]["source_image_path"] = str(tmp_path / "gone.png")
    assert sections(adata)[0].image.key == "hires"
    assert "gone.png" not in log.text
    del entry(adata)["images"]["hires"]
    assert sections(adata)[0].image is None
    assert "gone.png" in log.text


def test_a_pyramid_on_disk_is_read_at_the_wanted_resolution(toy, tmp_path):
    adata = toy.copy()
    hires = Image.fromarray(entry(adata)["images"].pop("hires"))
    pages = [hires.resize((hires.width * 4 // n, hires.height * 4 // n)) for n in (1, 2, 4)]
    pages[0].save(tmp_path / "full.tif", save_all=True, append_images=pages[1:])
    entry(adata)["metadata"]["source_image_path"] = str(tmp_path / "full.tif")
    allow(tmp_path / "full.tif")
    found = {want: sections(adata, want_mpp=want)[0].image for want in (None, 0.4, 1.0, 1.9, 9.0)}
    assert {want: round(image.scale, 2) for want, image in found.items()} == {
        None: 1,
        0.4: 1,
        1.0: 0.5,
        1.9: 0.5,
        9.0: 0.25,
    }
    np.testing.assert_array_equal(found[9.0].pixels(), np.asarray(pages[2]))
    assert found[9.0].mpp == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("as_float", [True, False])
def test_float_images_give_the_same_patches(toy, as_float):
    adata = toy.copy()
    if as_float:
        entry(adata)["images"]["hires"] = entry(adata)["images"]["hires"].astype(np.float32) / 255
    image = sections(adata)[0].image
    np.testing.assert_array_equal(image.pixels(), entry(toy)["images"]["hires"])


def test_missing_coordinates_list_what_is_there(toy):
    adata = toy.copy()
    adata.obsm["X_pca"] = adata.obsm.pop("spatial")
    with pytest.raises(KeyError, match=r"obsm\['spatial'\].*'X_pca'"):
        sections(adata)
    adata.obsm["spatial"] = np.full((adata.n_obs, 2), np.nan)
    with pytest.raises(ValueError, match="NaN for all"):
        sections(adata)
    adata.obsm["spatial"] = np.zeros((adata.n_obs, 1))
    with pytest.raises(ValueError, match="x and y"):
        sections(adata)


def test_nan_and_half_nan_coordinates_are_invalid_spots(toy):
    adata = toy.copy()
    adata.obsm["spatial"][3] = np.nan
    adata.obsm["spatial"][5, 0] = np.nan
    adata.obsm["spatial"][6, 1] = np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view = sections(adata)[0]
    assert np.flatnonzero(~view.valid).tolist() == [3, 5, 6]
    assert len(view.rows) == adata.n_obs
    assert np.isnan(view.coords[5]).all()


def squeezed(toy):
    """A section that is wider than high, so that swapped axes fall outside."""
    adata = toy[toy.obsm["spatial"][:, 1] < np.quantile(toy.obsm["spatial"][:, 1], 0.5)].copy()
    height = int(adata.obsm["spatial"][:, 1].max() * 0.25) + 30
    entry(adata)["images"]["hires"] = entry(adata)["images"]["hires"][:height]
    return adata


def test_swapped_axes_are_named(toy):
    adata = squeezed(toy)
    sections(adata)
    adata.obsm["spatial"] = adata.obsm["spatial"][:, ::-1].copy()
    before = adata.obsm["spatial"].copy()
    with pytest.raises(ValueError, match=r"outside, at x .* swapped: use obsm\['spatial'\]\[:, ::-1\]"):
        sections(adata)
    np.testing.assert_array_equal(adata.obsm["spatial"], before)


def test_a_wrong_scale_factor_is_named(toy):
    adata = toy.copy()
    entry(adata)["scalefactors"]["tissue_lowres_scalef"] = 0.05
    entry(adata)["images"] = {"lowres": entry(adata)["images"]["hires"][::5, ::5]}
    entry(adata)["scalefactors"]["tissue_lowres_scalef"] = 0.25
    entry(adata)["scalefactors"]["tissue_hires_scalef"] = 0.05
    with pytest.raises(ValueError, match=r"tissue_hires_scalef = 0\.05 image px per coordinate px, not 0\.25"):
        sections(adata)


def test_an_image_of_full_resolution_under_the_name_of_a_smaller_one(toy):
    adata = toy.copy()
    adata.obsm["spatial"] *= 0.25
    entry(adata)["scalefactors"]["tissue_hires_scalef"] = 4.0
    entry(adata)["scalefactors"]["spot_diameter_fullres"] *= 0.25
    with pytest.raises(ValueError, match="a factor of 1 = 1 image px"):
        sections(adata)


def test_coordinates_of_another_section(toy):
    adata = toy.copy()
    adata.obsm["spatial"] += 1e5
    with pytest.raises(ValueError, match="are of one section"):
        sections(adata)


def test_a_few_spots_outside_become_invalid(toy):
    adata = toy.copy()
    adata.obsm["spatial"][7] = [-500.0, 10.0]
    with pytest.warns(UserWarning, match=f"1 of {toy.n_obs} spots of section 'toy' lie outside"):
        view = sections(adata)[0]
    assert np.flatnonzero(~view.valid).tolist() == [7]
    adata.obsm["spatial"][8:10] = [1e6, 10.0]
    with pytest.raises(ValueError, match="3 of"):
        sections(adata)


def test_random_positions_need_mpp(toy):
    adata = toy.copy()
    adata.obsm["spatial"] = np.random.default_rng(0).random((adata.n_obs, 2)) * 1000
    adata.obs = adata.obs.drop(columns=["array_row", "array_col"])
    del entry(adata)["scalefactors"]["spot_diameter_fullres"]
    (view,) = sections(adata)
    assert np.isnan(view.coord_mpp)
    with pytest.raises(ValueError, match="Pass `mpp="):
        _ = view.coords_um
    (view,) = sections(adata, mpp=0.7)
    np.testing.assert_allclose(view.coords_um, adata.obsm["spatial"] * 0.7)
    assert view.mpp_origin == "mpp= given"
    assert view.image.mpp == pytest.approx(2.8, rel=1e-3)


def test_stated_scales(toy):
    adata = toy.copy()
    entry(adata)["metadata"]["um_per_px"] = 0.51
    assert sections(adata)[0].coord_mpp == 0.51
    assert sections(adata)[0].mpp_origin == "um_per_px of the metadata"
    assert sections(adata, mpp=0.49)[0].coord_mpp == 0.49
    assert sections(adata, mpp={"toy": 0.49})[0].coord_mpp == 0.49
    entry(adata)["metadata"]["um_per_px"] = 3.0
    with pytest.warns(UserWarning, match="3 µm per px"):
        sections(adata)
    assert sections(toy, spot_diameter=70.0)[0].spot_diameter_um == 70.0


def test_a_scale_that_is_stated_of_the_image_is_not_that_of_the_coordinates(toy):
    """By the pitch of the spots: .5 µm per px of the coordinates, 2 µm per px of the image."""
    adata = toy.copy()
    entry(adata)["metadata"]["um_per_px"] = 2.0
    entry(adata)["scalefactors"]["tissue_lowres_scalef"] = "not a number"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (section,) = sections(adata)
        assert section.coord_mpp == pytest.approx(0.5, rel=0.01)
        assert section.mpp_origin == "um_per_px of the metadata, of the image"
    assert section.image.mpp == pytest.approx(2, rel=0.01)


def test_coordinates_in_px_of_a_smaller_image_are_noticed(toy):
    adata = toy.copy()
    adata.obsm["spatial"] *= 0.25
    with pytest.warns(UserWarning, match="50 px apart, but 130 px wide"):
        sections(adata)


@pytest.mark.parametrize("where", ["scale factors", "barcodes"])
def test_hd_bins_in_an_anndata_are_not_taken_for_st(toy, where):
    adata = toy.copy()
    side = np.arange(adata.n_obs)
    adata.obsm["spatial"] = np.column_stack([side % 12, side // 12]) * 30.0 + 20
    adata.obs = adata.obs.drop(columns=["array_row", "array_col"])
    if where == "scale factors":
        entry(adata)["scalefactors"] |= {"bin_size_um": 8.0, "microns_per_pixel": 8 / 30}
    else:
        adata.obs_names = [f"s_008um_{i // 12:05d}_{i % 12:05d}-1" for i in side]
    (view,) = sections(adata)
    assert view.technology == "hd"
    assert view.coord_mpp == pytest.approx(8 / 30)
    assert view.spot_diameter_um == 8.0


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_hardly_any_spots(toy, n):
    (view,) = sections(toy[:n])
    assert len(view.rows) == n
    assert view.coords.shape == (n, 2)
    assert (n < 2) == bool(np.isnan(view.coord_mpp))


def test_sections_cover_every_row_once(pair):
    rows = np.concatenate([section.rows for section in open_sections(pair, library_key="library")])
    np.testing.assert_array_equal(np.sort(rows), np.arange(pair.n_obs))


@pytest.mark.parametrize("shift", [0.0, 37.3])  # on the pixel, and only on the array
def test_sections_on_top_of_each_other_are_suspected(toy, shift):
    other = toy.copy()
    other.obsm["spatial"] = other.obsm["spatial"] + shift
    both = ad.concat([toy, other], index_unique="-")
    with pytest.warns(UserWarning, match=f"{toy.n_obs} of {2 * toy.n_obs} spots in the place.*`library_key=`"):
        sections(both)
    both.obs["sample"] = np.repeat(["a", "b"], toy.n_obs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sections(both, library_key="sample")
        sections(toy)


def test_sections_beside_each_other_are_one_if_the_user_says_so(toy):
    other = toy.copy()
    other.obsm["spatial"] = other.obsm["spatial"] + [20_000, 0]
    both = ad.concat([toy, other], index_unique="-")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sections(both)


@pytest.mark.parametrize("entry", [None, "a path", 3])
def test_an_entry_that_holds_nothing_is_none(toy, entry):
    adata = toy.copy()
    adata.uns["spatial"] = {"toy": entry}
    assert sections(adata)[0].image is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda image: np.moveaxis(image, -1, 0), r"shape \(3, .*np.moveaxis"),
        (lambda image: image[0, 0], r"shape \(3,\)"),
        (lambda image: "tissue.png", "Found: str"),
    ],
)
def test_images_that_are_no_pictures(toy, change, says):
    adata = toy.copy()
    images = adata.uns["spatial"]["toy"]["images"]
    images["hires"] = change(images["hires"])
    with pytest.raises(ValueError, match=f"image 'hires' of section 'toy'.*{says}"):
        sections(adata)
