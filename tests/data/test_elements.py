from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest

import stalign
from stalign.core.patches import cut
from stalign.data import levels, sections
from stalign.datasets._toy_spatialdata import to_spatialdata

spatialdata = pytest.importorskip("spatialdata")

from anndata import AnnData  # noqa: E402
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
    assert first.library == second.library
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
    image = levels.image(sdata, "many", "toy", mpp=0.5, want_mpp=99)
    assert image.shape == (125, 100)
    assert image.scale == 0.25 / 4


def test_the_finest_image_under_the_spots_is_used(both):
    adata, sdata = both
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    identity = {"toy": Scale([4.0, 4.0], axes=("x", "y"))}
    add_image(sdata, "lowres", pixels[::4, ::4], {"toy": Scale([16.0, 16.0], axes=("x", "y"))})
    add_image(sdata, "elsewhere", pixels, {"toy": Sequence([Identity(), Translation([1e6, 0], axes=("x", "y"))])})
    add_image(sdata, "counts", np.zeros((*pixels.shape[:2], 7), np.uint8), identity, c_coords=list("abcdefg"))
    add_image(sdata, "turned", pixels, {"toy": Affine([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], ("x", "y"), ("x", "y"))})
    assert sections(sdata)[0].image.key == "toy_hires_image"
    assert sections(sdata, image_key="lowres")[0].image.key == "lowres"
    assert sections(sdata, image_key={"toy": "lowres"})[0].image.key == "lowres"
    with pytest.raises(ValueError, match="'turned' to be placed in 'toy' by scale and translation"):
        sections(sdata, image_key="turned")
    with pytest.raises(KeyError, match="'nope'.*'toy_hires_image'"):
        sections(sdata, image_key="nope")
    sdata.images["a"] = sdata.images.pop("toy_hires_image")
    add_image(sdata, "b", pixels, identity)
    with pytest.raises(ValueError, match="2 of the same resolution.*'a', 'b'.*image_key"):
        sections(sdata)


def test_coordinate_systems(both):
    _, sdata = both
    shapes, image = sdata.shapes["toy"], sdata.images["toy_hires_image"]
    half = Scale([0.5, 0.5], axes=("x", "y"))
    set_transformation(shapes, half, "small")
    set_transformation(image, Sequence([get_transformation(image, "toy"), half]), "small")
    set_transformation(shapes, half, "shapes only")
    set_transformation(image, Identity(), "image only")
    default, small = sections(sdata)[0], sections(sdata, coordinate_system="small")[0]
    np.testing.assert_allclose(small.coords * 2, default.coords)
    assert small.coord_mpp == pytest.approx(2 * default.coord_mpp)
    assert small.image.mpp == pytest.approx(default.image.mpp)
    np.testing.assert_allclose(windows(small), windows(default))
    assert sections(sdata, coordinate_system="shapes only")[0].image is None
    with pytest.raises(KeyError, match="'nope'.*'toy', 'small'"):
        sections(sdata, coordinate_system="nope")
    with pytest.raises(KeyError, match="'shapes only'"):
        sections(sdata, coordinate_system="shapes only", image_key="toy_hires_image")


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
    set_transformation(sdata.shapes["toy"], Scale([0.5, 0.5], axes=("x", "y")), "small")
    assert sections(sdata, coordinate_system="small")[0].coord_mpp == pytest.approx(1.01)


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
