from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest

import stalign
from stalign.core.patches import cut
from stalign.data import open_sections
from stalign.data.image_levels import open_level
from stalign.datasets._toy_spatialdata import to_spatialdata

spatialdata = pytest.importorskip("spatialdata")

from anndata import AnnData  # noqa: E402
from scipy.sparse import csc_matrix  # noqa: E402
from spatialdata import SpatialData  # noqa: E402
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel  # noqa: E402
from spatialdata.transformations import (  # noqa: E402
    Affine,
    Identity,
    Scale,
    Sequence,
    Translation,
    get_transformation,
    set_transformation,
)


def sections(data, **given):
    """Open sections, and read of them what an embedding reads."""
    found = open_sections(data, **given)
    for section in found:
        assert len(section.coords) == len(section.rows)
        assert section.scale.technology
    return found


@cache
def made():
    return stalign.datasets.toy(n_rows=10)


@pytest.fixture
def both():
    return made().copy(), to_spatialdata([made().copy()], ["toy"])


def windows(view, half=17.3):
    centre = view.image.to_pixels(view.coords)
    return np.hstack([centre - half, centre + half])


def add_image(sdata, name, pixels, transformations, **options):
    sdata.images[name] = Image2DModel.parse(
        np.moveaxis(np.asarray(pixels), -1, 0), dims="cyx", transformations=transformations, **options
    )


def link(table, region):
    table.obs["region"] = pd.Categorical([region] * table.n_obs)
    table.obs["spot_id"] = np.arange(table.n_obs)
    return TableModel.parse(table, region=region, region_key="region", instance_key="spot_id")


def test_the_same_slide_in_either_container(both):
    (first,), (second,) = (sections(data) for data in both)
    assert first.name == second.name
    for name in ("rows", "coords", "coords_um"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name in ("coord_mpp", "mpp_origin", "pitch_um", "spot_diameter_um", "technology"):
        assert getattr(first, name) == getattr(second, name)
    assert (first.image.scale, first.image.offset, first.image.shape) == (
        second.image.scale,
        second.image.offset,
        second.image.shape,
    )
    np.testing.assert_array_equal(windows(first), windows(second))
    np.testing.assert_array_equal(first.image.patches(windows(first), 16), second.image.patches(windows(second), 16))


def test_inverse_scales_stored_with_rounding_still_give_the_same_windows(both):
    adata, sdata = both
    factor = 0.15001502
    for entry in (adata.uns["spatial"]["toy"], sdata.tables["table"].uns["spatial"]["toy"]):
        entry["scalefactors"]["tissue_hires_scalef"] = factor
    scale = Scale([factor, factor], axes=("x", "y")).inverse()
    set_transformation(sdata.images["toy_hires_image"], scale, "toy")
    (first,), (second,) = (sections(data) for data in both)
    assert first.image.scale == second.image.scale
    np.testing.assert_array_equal(windows(first), windows(second))


def test_two_regions_are_two_libraries_with_their_own_images():
    adata = stalign.datasets.toy(n_rows=8, n_sections=2)
    sdata = stalign.datasets.toy(n_rows=8, n_sections=2, spatialdata=True)
    pairs = list(zip(sections(adata, library_key="library"), sections(sdata), strict=True))
    assert len(pairs) == 2
    for first, second in pairs:
        np.testing.assert_array_equal(first.rows, second.rows)
        np.testing.assert_array_equal(first.coords, second.coords)
        np.testing.assert_array_equal(first.image.pixels(), second.image.pixels())
    named = sections(sdata, library_key="library")
    assert [view.image.key for view in named] == ["toy_1_hires_image", "toy_2_hires_image"]
    sdata.tables["table"].obs["all"] = "one"
    with pytest.raises(ValueError, match="'one' in one element.*'toy_1', 'toy_2'"):
        sections(sdata, library_key="all")


def test_instances_are_matched_by_name_not_by_order(both):
    adata, sdata = both
    order = np.random.default_rng(0).permutation(adata.n_obs)
    sdata.shapes["toy"] = sdata.shapes["toy"].iloc[order]
    np.testing.assert_array_equal(sections(sdata)[0].coords, adata.obsm["spatial"])
    sdata.shapes["toy"] = sdata.shapes["toy"].drop(index=4)
    view = sections(sdata)[0]
    assert np.flatnonzero(~view.valid).tolist() == [4]
    assert len(view.rows) == adata.n_obs


def test_translation_becomes_an_offset(both):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    corner = sections(adata)[0].image.to_pixels(adata.obsm["spatial"]).min(axis=0).astype(int) - 4
    cropped = pixels[corner[1] :, corner[0] :]
    place = Sequence([Scale([4.0, 4.0], axes=("x", "y")), Translation(4.0 * corner, axes=("x", "y"))])
    del sdata.images["toy_hires_image"]
    add_image(sdata, "cropped", cropped, {"toy": place})
    image = sections(sdata)[0].image
    np.testing.assert_allclose(image.offset, -corner)
    whole = sections(adata)[0]
    inner = windows(whole)[(windows(whole)[:, :2] > corner + 20).all(axis=1)]
    np.testing.assert_array_equal(
        image.patches(inner - np.tile(corner, 2), 16), cut(np.ascontiguousarray(pixels), inner, 16)
    )


@pytest.mark.parametrize(
    ("want", "shrink"), [(None, 1), (1.9, 1), (2.0, 1), (3.9, 1), (4.0, 2), (7.0, 2), (8.0, 4), (99, 4)]
)
def test_the_coarsest_level_that_is_fine_enough(both, want, shrink):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    height, width = (side // 4 * 4 for side in pixels.shape[:2])  # spatialdata trims uneven edges on the left
    pixels = pixels[:height, :width]
    del sdata.images["toy_hires_image"]
    add_image(sdata, "many", pixels, {"toy": Scale([4.0, 4.0], axes=("x", "y"))}, scale_factors=[2, 2])
    view = sections(sdata, want_mpp=want)[0]
    assert view.image.shape == (height // shrink, width // shrink)
    assert view.image.scale == 0.25 / shrink
    assert view.image.mpp == pytest.approx(2.0 * shrink, rel=1e-3)
    blocks = pixels.reshape(height // shrink, shrink, width // shrink, shrink, 3).mean(axis=(1, 3))
    assert np.abs(view.image.pixels() - blocks).max() < 2  # each level is rounded down


def test_uneven_levels_keep_their_whole_factor(both):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"][:501, :401]
    del sdata.images["toy_hires_image"]
    add_image(sdata, "many", pixels, {"toy": Scale([4.0, 4.0], axes=("x", "y"))}, scale_factors=[2, 2])
    image = open_level(sdata.images["many"], "many", 0.25, np.eye(2), np.zeros(2), mpp=0.5, want_mpp=99)
    assert image.shape == (125, 100)
    assert image.scale == 0.25 / 4


def test_an_image_named_after_the_spots_is_theirs_at_its_highest_resolution(both):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    add_image(sdata, "toy_lowres_image", pixels[::4, ::4], {"toy": Scale([16.0, 16.0], axes=("x", "y"))})
    add_image(sdata, "finer", np.repeat(np.repeat(pixels, 2, 0), 2, 1), {"toy": Scale([2.0, 2.0], axes=("x", "y"))})
    assert sections(sdata)[0].image.key == "toy_hires_image"
    assert sections(sdata, image_key="toy_lowres_image")[0].image.key == "toy_lowres_image"
    assert sections(sdata, image_key={"toy": "finer"})[0].image.key == "finer"
    with pytest.raises(KeyError, match="'nope'.*'toy_hires_image'"):
        sections(sdata, image_key="nope")
    with pytest.raises(KeyError, match="`image_key` to name sections.*'other'.*'toy'"):
        sections(sdata, image_key={"other": "finer"})
    add_image(sdata, "toy_full_image", np.repeat(np.repeat(pixels, 4, 0), 4, 1), {"toy": Identity()})
    assert sections(sdata)[0].image.key == "toy_full_image"  # of one picture the finest, by its name


def test_full_image_and_hires_of_one_resolution_are_told_apart(both):
    _, sdata = both
    sdata.images["toy_full_image"] = sdata.images["toy_hires_image"].copy()
    assert sections(sdata)[0].image.key == "toy_full_image"


def test_between_two_pictures_of_other_names_nothing_is_guessed(both):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    sdata.images["a"] = sdata.images.pop("toy_hires_image")
    add_image(sdata, "elsewhere", pixels, {"toy": Sequence([Identity(), Translation([1e6, 0], axes=("x", "y"))])})
    assert sections(sdata)[0].image.key == "a"
    add_image(sdata, "b", np.repeat(np.repeat(pixels, 2, 0), 2, 1), {"toy": Scale([2.0, 2.0], axes=("x", "y"))})
    with pytest.raises(ValueError, match="one image of section 'toy'.*2 that can be it.*'a', 'b'.*image_key"):
        sections(sdata)
    del sdata.images["b"]
    add_image(sdata, "b_lowres_image", pixels[::4, ::4], {"toy": Scale([16.0, 16.0], axes=("x", "y"))})
    with pytest.raises(ValueError, match="'a', 'b_lowres_image'"):
        sections(sdata)
    sdata.images["b_hires_image"] = sdata.images.pop("a")
    assert sections(sdata)[0].image.key == "b_hires_image"  # resolutions of one picture
    assert sections(sdata, image=False)[0].image is None


@pytest.mark.parametrize(
    ("regions", "images", "chosen"),
    [
        (("S1", "S10"), ("S1_hires_image", "S10_hires_image"), ("S1_hires_image", "S10_hires_image")),
        (("S10", "S1"), ("S10_hires_image", "S1_hires_image"), ("S10_hires_image", "S1_hires_image")),
        (("S1", "S2"), ("S1_hires_image", "he"), ("S1_hires_image", "he")),
        (("S1", "S2"), ("he", "S2_full_image"), ("he", "S2_full_image")),
        (
            ("S1_square_008um", "S10_square_008um"),
            ("S1_full_image", "S10_hires_image"),
            ("S1_full_image", "S10_hires_image"),
        ),
        (("a", "b"), ("he_a", "he_b"), None),
    ],
)
def test_sections_that_share_a_coordinate_system_keep_to_their_own_image(regions, images, chosen):
    parts = []
    for region, image, shrink in zip(regions, images, (1, 2), strict=True):
        one = to_spatialdata([made().copy()], ["toy"])
        pixels = np.moveaxis(one.images["toy_hires_image"].values, 0, -1)[::shrink, ::shrink]
        table = made().copy()
        table.uns, table.obs_names = {}, [f"{region}-{name}" for name in table.obs_names]
        parts.append(
            SpatialData(
                images={
                    image: Image2DModel.parse(
                        np.moveaxis(pixels, -1, 0),
                        dims="cyx",
                        transformations={"global": Scale([4.0 * shrink] * 2, axes=("x", "y"))},
                    )
                },
                shapes={
                    region: ShapesModel.parse(
                        made().obsm["spatial"],
                        geometry=0,
                        radius=65.0,
                        index=np.arange(len(made())),
                        transformations={"global": Identity()},
                    )
                },
                tables={"table": link(table, region)},
            )
        )
    joined = spatialdata.concatenate(parts, concatenate_tables=True)
    if chosen is None:
        with pytest.raises(ValueError, match="one image of section 'a'.*'he_a', 'he_b'"):
            sections(joined)
        found = sections(joined, image_key={"a": "he_a", "b": "he_b"})
        assert [section.image.key for section in found] == ["he_a", "he_b"]
        return
    assert {section.name: section.image.key for section in sections(joined)} == dict(zip(regions, chosen, strict=True))


@pytest.mark.parametrize("kind", ["seven channels", "mask", "fluorescence", "one channel", "stains"])
def test_what_is_no_he_image_is_passed_over_or_warned_of(both, log, kind):
    _, sdata = both
    he = np.moveaxis(sdata.images["toy_hires_image"].values, 0, -1)
    options = (
        {"c_coords": list("abcdefg")}
        if kind == "seven channels"
        else {"c_coords": ["dapi", "cd3", "cd20"]}
        if kind == "stains"
        else {}
    )
    pixels = {
        "seven channels": np.zeros((*he.shape[:2], 7), np.uint8),
        "mask": np.repeat((he.mean(axis=-1, keepdims=True) < 200).astype(np.uint8) * 255, 3, axis=-1),
        "fluorescence": np.where(he < 200, (255 - he) // 2, 0).astype(np.uint8),
        "one channel": he[..., :1],
        "stains": he,
    }[kind]
    sdata.images["he"] = sdata.images.pop("toy_hires_image")
    add_image(sdata, "other", pixels, {"toy": Scale([4.0, 4.0], axes=("x", "y"))}, **options)
    if kind in ("mask", "fluorescence"):  # told by the pixels, once images are compared
        sdata.images["toy_hires_image"], sdata.images["toy_full_image"] = (
            sdata.images.pop("he"),
            sdata.images.pop("other"),
        )
    wanted = "toy_hires_image" if kind in ("mask", "fluorescence") else "he"
    name = "toy_full_image" if kind in ("mask", "fluorescence") else "other"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sections(sdata)[0].image.key == wanted
    assert f"Image {name!r} of section 'toy' is passed over" in log.text
    if kind != "seven channels":
        with pytest.warns(UserWarning, match=f"Expected image {name!r} of section 'toy' to be an H&E image"):
            sections(sdata, image_key=name)
        del sdata.images[wanted]
        with pytest.warns(UserWarning, match="to be an H&E image"):
            assert sections(sdata)[0].image.key == name


def test_names_of_channels_decide_their_order(both):
    _, sdata = both
    expected = sections(sdata)[0].image.pixels()
    for order, names in ((slice(None, None, -1), ["Blue", "green", "R"]), ([1, 2, 0], ["g", "b", "r"])):
        pixels = expected[..., order]
        add_image(sdata, "toy_hires_image", pixels, {"toy": Scale([4.0, 4.0], axes=("x", "y"))}, c_coords=names)
        np.testing.assert_array_equal(sections(sdata)[0].image.pixels(), expected)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0, -1, 3000], [1, 0, 10]],
        [[1, 0, 0], [0, -1, 3000]],
        [[0.8, -0.6, 5], [0.6, 0.8, 7]],
        [[2, 0, 0], [0, 0.5, 0]],
        [[1, 0.2, 3], [0, 1.1, 4]],
    ],
    ids=["quarter turn", "flip", "turn", "stretch", "shear"],
)
def test_the_same_transformation_of_spots_and_image_changes_nothing(both, matrix):
    adata, sdata = both
    for element in (sdata.shapes["toy"], sdata.images["toy_hires_image"]):
        own = get_transformation(element, "toy")
        set_transformation(element, Sequence([own, Affine([*matrix, [0, 0, 1]], ("x", "y"), ("x", "y"))]), "toy")
    (first,), (second,) = (sections(data) for data in (adata, sdata))
    np.testing.assert_allclose(second.coords, first.coords, atol=1e-9)
    np.testing.assert_allclose(windows(second), windows(first), atol=1e-6)
    assert second.scale == first.scale


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_windows_lie_along_the_axes_of_an_image_that_is_turned(both, turns, flip):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    height, width = pixels.shape[:2]
    turned = np.rot90(pixels[:, ::-1] if flip else pixels, turns)
    y, x = np.mgrid[:height, :width]
    where = np.dstack([x, y])
    where = np.rot90(where[:, ::-1] if flip else where, turns)  # of each px of the turned image, its place before
    (a, b), (c, d) = where[0, 1] - where[0, 0], where[1, 0] - where[0, 0]
    back = np.array([[a, c], [b, d]]).astype(float)
    corner = where[0, 0] + 0.5 - back @ [0.5, 0.5]
    matrix = [[*(4 * back[0]), 4 * corner[0]], [*(4 * back[1]), 4 * corner[1]], [0, 0, 1]]
    add_image(sdata, "toy_hires_image", turned, {"toy": Affine(matrix, ("x", "y"), ("x", "y"))})
    (plain,), (found,) = (sections(data) for data in (adata, sdata))
    row = len(found) // 2
    patch = found.image.patches(found.windows("spot")[[row]], 16)[0]
    expected = plain.image.patches(plain.windows("spot")[[row]], 16)[0]
    expected = np.rot90(expected[:, ::-1] if flip else expected, turns).astype(int)
    assert np.abs(patch - expected).max() <= 1  # rounding in single precision


def test_a_turn_that_is_left_is_named(both):
    _, sdata = both
    angle = np.radians(10)
    matrix = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    image = sdata.images["toy_hires_image"]
    set_transformation(
        image, Sequence([get_transformation(image, "toy"), Affine(matrix, ("x", "y"), ("x", "y"))]), "toy"
    )
    with pytest.raises(ValueError, match="along the axes of the spots of section 'toy'.*a turn of -10°.*spatialdata"):
        sections(sdata)
    assert len(sections(sdata, image=False)[0].coords)


def test_positions_are_those_of_the_element_in_whatever_systems_it_is(both):
    _, sdata = both
    shapes, image = sdata.shapes["toy"], sdata.images["toy_hires_image"]
    default = sections(sdata)[0]
    half = Scale([0.5, 0.5], axes=("x", "y"))
    set_transformation(shapes, {"small": half, "shapes only": half}, set_all=True)
    set_transformation(
        image, {"small": Sequence([get_transformation(image, "toy"), half]), "image only": Identity()}, set_all=True
    )
    small = sections(sdata)[0]
    np.testing.assert_array_equal(small.coords, default.coords)
    assert small.coord_mpp == default.coord_mpp
    np.testing.assert_allclose(windows(small), windows(default))


def test_array_steps_that_a_transformation_places(both):
    adata, sdata = both
    steps = adata.obs[["array_col", "array_row"]].to_numpy(dtype=float)
    sdata.shapes["toy"] = ShapesModel.parse(
        steps, geometry=0, radius=0.3, index=np.arange(len(adata)),
        transformations={"toy": Scale([50.0, 50 * np.sqrt(3)], axes=("x", "y"))},
    )  # fmt: skip
    del sdata.images["toy_hires_image"]
    del sdata.tables["table"].uns["spatial"]
    found = sections(sdata)[0]
    assert found.technology == "visium"
    np.testing.assert_allclose(found.coords, steps * [50, 50 * np.sqrt(3)])


def test_instance_ids_of_another_type(both):
    adata, sdata = both
    table = sdata.tables["table"]
    table.obs["spot_id"] = table.obs["spot_id"].astype(str)
    np.testing.assert_array_equal(sections(sdata)[0].coords, adata.obsm["spatial"])
    table.obs["spot_id"] = [f"spot-{i}" for i in range(table.n_obs)]
    with pytest.raises(ValueError, match=r"ids such as 'spot-0' \((object|str)\), and an index such as '0' \(int64\)"):
        sections(sdata)


def test_no_shared_coordinate_system(both):
    _, sdata = both
    set_transformation(sdata.images["toy_hires_image"], {"other": Identity()}, set_all=True)
    assert sections(sdata)[0].image is None
    with pytest.raises(KeyError, match="shared by section 'toy' and image"):
        sections(sdata, image_key="toy_hires_image")


def test_a_stated_scale_holds_in_the_elements_own_frame(both):
    _, sdata = both
    sdata.tables["table"].uns["spatial"]["toy"]["metadata"]["um_per_px"] = 0.505
    assert sections(sdata)[0].coord_mpp == 0.505
    for element in (sdata.shapes["toy"], sdata.images["toy_hires_image"]):
        own = get_transformation(element, "toy")
        set_transformation(element, Sequence([own, Scale([0.5, 0.5], axes=("x", "y"))]), "toy")
    assert sections(sdata)[0].coord_mpp == 0.505


def test_squares_and_labels_can_carry_the_spots():
    import geopandas
    import shapely

    edge, n = 10, 12
    column, row = (index.ravel() for index in np.meshgrid(np.arange(n), np.arange(n)))
    centre = np.column_stack([column, row]) * float(edge) + edge / 2
    boxes = shapely.box(*(centre - edge / 2).T, *(centre + edge / 2).T)
    image = np.random.default_rng(0).integers(0, 255, (3, n * edge, n * edge), dtype=np.uint8)
    labels = np.zeros((n * edge, n * edge), np.int64)
    for index, (x, y) in enumerate(centre.astype(int) - edge // 2):
        labels[y : y + edge, x : x + edge] = index + 1
    squares = link(AnnData(np.zeros((n * n, 1), np.float32)), "x_square_008um")
    pixels = AnnData(np.zeros((n * n, 1), np.float32))
    pixels.obs["region"] = pd.Categorical(["labels"] * n**2)
    pixels.obs["spot_id"] = np.arange(n**2) + 1
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims="cyx")},
        labels={"labels": Labels2DModel.parse(labels, dims="yx")},
        shapes={"x_square_008um": ShapesModel.parse(geopandas.GeoDataFrame(geometry=boxes))},
        tables={
            "squares": squares,
            "pixels": TableModel.parse(pixels, region="labels", region_key="region", instance_key="spot_id"),
        },
    )
    view = sections(sdata, table_key="squares")[0]
    np.testing.assert_allclose(view.coords, centre)
    assert (view.technology, view.spot_diameter_um) == ("hd", 8.0)
    assert view.coord_mpp == pytest.approx(0.8)
    np.testing.assert_allclose(sections(sdata, table_key="pixels")[0].coords, centre)


@pytest.mark.parametrize("known", ["the table", "the shapes"])
def test_labels_of_rasterized_bins_lie_where_the_bins_are(known):
    """Their matrix takes the index of a px for its centre, half a px off."""
    import geopandas
    import shapely
    from spatialdata import rasterize_bins, rasterize_bins_link_table_to_labels

    n, edge = 12, 32
    row, column = (index.ravel() for index in np.mgrid[:n, :n])
    centre = np.column_stack([column, row]) * float(edge) + 76
    boxes = shapely.box(*(centre - edge / 2).T, *(centre + edge / 2).T)
    table = AnnData(csc_matrix(np.ones((n * n, 1), np.float32)))
    table.obs["array_row"], table.obs["array_col"] = row, column
    table = link(table, "x_square_016um")
    table.obsm["spatial"] = centre
    image = np.random.default_rng(0).integers(0, 255, (3, 480, 480), dtype=np.uint8)
    sdata = SpatialData(
        images={"image": Image2DModel.parse(image, dims="cyx")},
        shapes={"x_square_016um": ShapesModel.parse(geopandas.GeoDataFrame(geometry=boxes))},
        tables={"table": table},
    )
    options = {"row_key": "array_row", "col_key": "array_col", "value_key": None, "return_region_as_labels": True}
    sdata["x_labels"] = rasterize_bins(sdata, bins="x_square_016um", table_name="table", **options)
    rasterize_bins_link_table_to_labels(sdata=sdata, table_name="table", rasterized_labels_name="x_labels")
    if known == "the shapes":
        del sdata.tables["table"].obsm["spatial"]
    (view,) = sections(sdata)
    np.testing.assert_allclose(view.image.to_pixels(view.coords), centre, atol=1e-3)
    del sdata.shapes["x_square_016um"]
    if known == "the table":
        (view,) = sections(sdata)
        np.testing.assert_allclose(view.image.to_pixels(view.coords), centre, atol=1e-3)


@pytest.mark.parametrize("known", ["the table", "the shapes"])
def test_labels_of_a_turned_array_have_the_scale_of_its_image(known):
    """As of every real array: the labels lie along its rows, and the image does not."""
    from spatialdata import rasterize_bins, rasterize_bins_link_table_to_labels

    name = "toy_hd_square_016um_labels"  # as spatialdata-io names them
    sdata = stalign.datasets.toy_hd(16, side_um=320, spatialdata=True)
    table, expected = sdata.tables["square_016um"], sections(sdata)[0]
    positions = expected.coords
    table.X = csc_matrix(table.X)
    options = {"row_key": "array_row", "col_key": "array_col", "value_key": None, "return_region_as_labels": True}
    sdata[name] = rasterize_bins(sdata, bins="toy_hd_square_016um", table_name="square_016um", **options)
    rasterize_bins_link_table_to_labels(sdata=sdata, table_name="square_016um", rasterized_labels_name=name)
    if known == "the table":
        del sdata.shapes["toy_hd_square_016um"]
    else:
        del table.obsm["spatial"]
    (view,) = sections(sdata)
    np.testing.assert_allclose(view.coords, positions, atol=0.5)
    assert (view.technology, view.pitch_um, view.coord_mpp) == ("hd", 16, 0.5)
    assert view.image.key == "toy_hd_hires_image"
    assert view.image.scale == 0.5
    with pytest.raises(ValueError, match=r"annotates squares.*'toy_hd_square_016um_labels'"):
        stalign.pp.rebin(sdata, 32)


def test_cells_have_the_size_of_their_outlines():
    from spatialdata import bounding_box_query

    sdata = stalign.datasets.toy_hd(cells=True, side_um=320, spatialdata=True)
    (view,) = sections(sdata)
    area = sdata["toy_hd_cell_segmentations"].geometry.area
    assert view.spot_diameter_um == pytest.approx(np.median(2 * np.sqrt(area / np.pi)) * 0.5)
    low, high = [200, 200], [500, 500]
    query = {"min_coordinate": low, "max_coordinate": high, "target_coordinate_system": sdata.coordinate_systems[0]}
    with pytest.warns(UserWarning, match="outside its image"):  # the centres of some cells on the border
        (part,) = sections(bounding_box_query(sdata, axes=("x", "y"), **query))
        assert 0 < (~part.valid).sum() < part.valid.sum()


def test_a_table_that_annotates_nothing(both):
    _, sdata = both
    del sdata.tables["table"]
    sdata.tables["table"] = AnnData(np.zeros((3, 1), np.float32))
    with pytest.raises(ValueError, match=r"TableModel\.parse"):
        sections(sdata)


def test_a_missing_element_is_named(both):
    _, sdata = both
    del sdata.shapes["toy"]
    with pytest.raises(KeyError, match="annotates.*'toy'"):
        sections(sdata)


def test_after_a_round_trip_through_zarr(both, tmp_path):
    adata, sdata = both
    sdata.write(tmp_path / "toy.zarr")
    view = sections(spatialdata.read_zarr(tmp_path / "toy.zarr"))[0]
    np.testing.assert_array_equal(view.coords, adata.obsm["spatial"])
    assert not isinstance(view.image.source, np.ndarray)
    np.testing.assert_array_equal(view.image.pixels(), adata.uns["spatial"]["toy"]["images"]["hires"])


def test_spots_outside_the_image_raise_as_for_anndata(both):
    _, sdata = both
    set_transformation(sdata.images["toy_hires_image"], Identity(), "toy")
    with pytest.raises(ValueError, match="inside its image 'toy_hires_image'"):
        sections(sdata)
