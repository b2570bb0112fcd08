"""A section in a SpatialData, in any layout, gives what it gives as an AnnData."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from spatialdata.transformations import Affine, Identity, Scale, Sequence, set_transformation
from tests.properties.calls import CALLS, assert_same, clean, for_each, run
from tests.properties.placed import PLACEMENTS, Form, image, linear, part, rotation
from tests.properties.plain import STANDARD
from tests.properties.strategies import examples, plains

COMMON = ("embed", "colour", "niches", "domains", "pca")
LAYOUTS = {
    "as spatialdata-io has it": Form(),
    "in global": Form(system="global"),
    "image of another name": Form(image_name="he"),
    "two levels": Form(levels=(2,)),
    "three levels": Form(levels=(2, 2)),
    "uint16": Form(kind="uint16"),
    "float32": Form(kind="float32"),
    "channels last": Form(dims="yxc"),
    "blue green red": Form(channels=("b", "g", "r")),
    "Red Green Blue": Form(channels=("Red", "Green", "Blue")),
    "green blue red spelled out": Form(channels=("green", "blue", "red")),
    "R G B": Form(channels=("R", "G", "B")),
    "numbered channels": Form(channels=(0, 1, 2)),
    "rgba": Form(channels=("r", "g", "b", "a")),
    "squares": Form(shapes="squares"),
    "labels": Form(shapes="labels"),
    "ids of 32 bits": Form(ids="int32"),
    "ids of 64 bits without sign": Form(ids="uint64"),
    "ids of text": Form(ids="text"),
    "another order of shapes": Form(shuffled=True),
    "shapes without a row": Form(spare=True),
    "another name of the table": Form(table_name="counts"),
    "a slash-free long name": Form(region_name="{}" + "x" * 80),
}


def found(call, section, form, weights, **options):
    return run(CALLS[call], part(section, form), weights, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_layout(weights, layout):
    form, plain = LAYOUTS[layout], STANDARD[0]  # whole coordinates, which labels need
    data = part(plain, form)
    for_each(COMMON, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


@examples(0.04)
@given(
    plain=plains(),
    form=st.builds(
        Form,
        image_name=st.sampled_from(["{}_hires_image", "image"]),
        system=st.sampled_from(["{}", "global"]),
        channels=st.sampled_from([("r", "g", "b"), ("blue", "red", "green"), ("r", "g", "b", "a"), (0, 1, 2)]),
        dims=st.sampled_from(["cyx", "yxc"]),
        levels=st.sampled_from([(), (2,)]),
        kind=st.sampled_from(["uint8", "uint16", "float32"]),
        shapes=st.sampled_from(["circles", "squares"]),
        ids=st.sampled_from(["int64", "text"]),
        shuffled=st.booleans(),
        spare=st.booleans(),
    ),
    call=st.sampled_from(COMMON),
)
def test_all_layouts_at_once(weights, plain, form, call):
    assert_same(found(call, plain, form, weights), clean(call, plain, weights), call)


@pytest.mark.parametrize("system", ["{}", "global"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_spots_and_image_placed_alike(weights, placement, system):
    plain = STANDARD[1 + (system == "global")]
    data = part(plain, Form(system=system, placement=PLACEMENTS[placement]))
    for_each(COMMON, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


@examples(0.02)
@given(
    plain=plains(ideal=False),
    turn=st.floats(-180, 180, allow_nan=False),
    size=st.floats(0.1, 8),
    mirrored=st.booleans(),
    call=st.sampled_from(COMMON),
)
def test_spots_and_image_placed_alike_by_any_similarity(weights, plain, turn, size, mirrored, call):
    matrix = rotation(turn) @ linear(-size if mirrored else size, 0, 0, size, 11.5, -3)
    form = Form(system="global", placement=matrix)
    assert_same(found(call, plain, form, weights), clean(call, plain, weights), call)


@pytest.mark.parametrize("turn", [90, 180, 270, 30])
@pytest.mark.parametrize("call", ["embed", "colour"])
def test_an_image_turned_under_its_spots(weights, turn, call):
    """By quarter turns, patches are those of the image as it is; by others, that is said or refused."""
    plain = STANDARD[1]
    data = part(plain, Form(system="global"))
    matrix = rotation(turn)
    matrix[:2, 2] = 0
    (picture,) = data.images.values()
    grow = 1 / plain.scale
    steps = [Scale([grow, grow], axes=("x", "y")), Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))]
    set_transformation(picture, Sequence(steps), "global")
    (name,) = data.shapes
    turned = replace(plain, coords=plain.coords @ matrix[:2, :2].T)
    data.shapes[name] = part(turned, Form(system="global")).shapes[name]
    set_transformation(data.shapes[name], Identity(), "global")
    try:
        values = run(CALLS[call], data, weights)
    except (TypeError, ValueError, KeyError) as error:
        assert str(error.args[0]).startswith("Expected")
        assert turn % 90, f"a turn by {turn} is refused: {error}"
        return
    if turn % 90 == 0:
        assert_same(values, clean(call, plain, weights), f"{call} {turn}")


SECOND = {  # a second image over the same spots
    "a mask": ((0,), lambda x, rng: (x[..., :1] > 200).astype(np.uint8)),
    "fluorescence of one channel": (("DAPI",), lambda x, rng: rng.poisson(9, (*x.shape[:2], 1)).astype(np.uint8)),
    "fluorescence of three": (("DAPI", "CD3", "CD8"), lambda x, rng: rng.poisson(9, x.shape).astype(np.uint8)),
    "three numbered, black ground": ((0, 1, 2), lambda x, rng: (rng.poisson(4, x.shape) * 9).astype(np.uint8)),
    "of the same size, fluorescence": (("DAPI", "a", "b"), lambda x, rng: 255 - x),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("name", ["he", "s_hires_image"])
def test_an_image_that_is_not_of_the_stain(weights, second, first, name):
    channels, change = SECOND[second]
    plain, form = STANDARD[0], Form(image_name=name, system="global")
    data = part(plain, form)
    pixels = change(plain.pixels.repeat(2, 0).repeat(2, 1), np.random.default_rng(0))
    if second.startswith("of the same"):
        pixels = change(plain.pixels, None)
    finer = replace(plain, scale=plain.scale * pixels.shape[0] / len(plain.pixels))
    data.images["a_other" if first else "z_other"] = image(finer, Form(channels=channels), "global", pixels)
    for_each(COMMON, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


def test_hires_and_lowres_as_spatialdata_io_has_them(weights):
    plain = STANDARD[0]
    data = part(plain, Form())
    data.images["s_lowres_image"] = image(plain, Form(), "s", step=3)
    for_each(COMMON, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


def test_two_images_where_none_is_needed(weights):
    plain = STANDARD[0]
    data = part(plain, Form(image_name="he", system="global"))
    data.images["other"] = data.images["he"].copy()
    calls = ("niches", "domains", "pca")
    for_each(calls, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


@pytest.mark.parametrize("call", ["embed", "patches", "colour"])
def test_two_images_of_the_stain_are_not_guessed_between(weights, call):
    plain = STANDARD[0]
    data = part(plain, Form(image_name="he", system="global"))
    data.images["other"] = data.images["he"].copy()
    with pytest.raises((ValueError, KeyError), match=r"he.*image_key=|image_key=.*he"):
        run(CALLS[call], data, weights)
    assert_same(run(CALLS[call], data, weights, image_key="he"), clean(call, plain, weights), call)


@pytest.mark.parametrize(
    ("shapes", "table"), [("int64", "text"), ("text", "int64"), ("int64", "float64"), ("int64", "category")]
)
def test_instance_ids_of_another_type(weights, shapes, table):
    """They are matched where that can be done in one way only."""
    plain = STANDARD[0]
    data = part(plain, Form(shuffled=True))
    ids = data.tables["table"].obs["instance"]
    (name,) = data.shapes
    if shapes == "text":
        data.shapes[name].index = data.shapes[name].index.astype(str)
    data.tables["table"].obs["instance"] = ids.astype(str) if table == "text" else ids.astype(table)
    for_each(COMMON, lambda call: assert_same(run(CALLS[call], data, weights), clean(call, plain, weights), call))


@examples(0.012)
@given(plain=plains(), call=st.sampled_from(["embed", "domains"]))
def test_zarr_before_and_after_a_call(weights, tmp_path_factory, plain, call):
    import spatialdata

    folder = tmp_path_factory.mktemp("files")
    expected = clean(call, plain, weights)
    data = part(plain, Form())
    for step in ("before", "after", "again"):
        data.write(folder / f"{step}.zarr")
        data = spatialdata.read_zarr(folder / f"{step}.zarr")
        assert_same(run(CALLS[call], data, weights), expected, f"{call} {step}")


def test_labels_have_the_centroids_of_their_spots():
    from spatialdata import get_centroids

    plain = STANDARD[0]
    data = part(plain, Form(shapes="labels", system="global"))
    found = get_centroids(data.labels["s"], coordinate_system="global").compute()
    np.testing.assert_allclose(found.loc[1 + 3 * np.arange(len(plain)), ["x", "y"]], plain.coords)
