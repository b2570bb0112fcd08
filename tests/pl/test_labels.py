"""Colours: the palette can be told apart, and stored colours are used where they can be understood."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_rgb

from stalign.core.palette import palette
from stalign.pl._labels import read_labels

# Full deuteranopia and protanopia on linear RGB (Machado, Oliveira and Fernandes 2009, table 1)
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def lab(rgb, matrix):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ matrix.T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = seen @ to_xyz.T / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("n", "least"), [(12, 16), (24, 13)])
def test_colours_stay_apart(vision, n, least):
    colors = lab(np.array([to_rgb(color) for color in palette(n)]), VISION[vision])
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distance[~np.eye(n, dtype=bool)].min() > least


def test_colours_can_be_seen_on_black_on_white_and_on_eosin():
    colors = lab(np.array([to_rgb(color) for color in palette(24)]), VISION["normal"])
    assert (colors[:, 0] > 25).all() and (colors[:, 0] < 92).all()
    eosin = lab(np.array([[230, 169, 201]]) / 255, VISION["normal"])
    assert np.linalg.norm(colors[:12] - eosin, axis=1).min() > 30


def test_longer_palettes_begin_with_shorter_ones_and_never_repeat():
    assert palette(40)[:7] == palette(7) and len(set(palette(60))) == 60


RGB = ["#FF0000", "#00FF00", "#0000FF"]
UNIT = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])


def labelled(categories=("a", "b", "c")):
    column = pd.Categorical(["a", "c", "b", "c"], categories=list(categories))
    return AnnData(obs=pd.DataFrame({"k": column}, index=[f"s{i}" for i in range(4)]))


@pytest.mark.parametrize(
    "stored",
    [
        RGB,
        tuple(RGB),
        np.array(RGB),
        np.array(RGB, dtype=object),
        np.array(RGB, dtype="S"),
        [color.encode() for color in RGB],
        pd.Series(RGB),
        ["#ff0000ff", "#00ff0080", " #00F "],
        ["red", "lime", "blue"],
        [(1, 0, 0), "lime", np.array([0, 0, 1.0])],
        UNIT,
        UNIT.astype(float),
        np.c_[UNIT, [1, 1, 1]].astype(np.float32),
        UNIT.tolist(),
        UNIT * 255,
        (np.c_[UNIT, [1, 1, 1]] * 255).astype(np.uint8),
        UNIT * 255.0,
        {"c": "blue", "a": "red", "b": "lime"},
    ],
    ids=lambda stored: type(stored).__name__,
)
def test_stored_colours_of_any_form(stored, log):
    adata = labelled()
    adata.uns["k_colors"] = stored
    found = read_labels(adata, "k")
    assert found.names == ["a", "b", "c"] and found.colors == RGB and found.own
    assert not log.records


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (RGB[:2], "2 colours for 3 categories"),
        ([*RGB, "black"], "4 colours for 3 categories"),
        (UNIT[:2], "2 colours for 3 categories"),
        ({"a": "red"}, "1 colours for 3 categories"),
        ("viridis", "viridis"),
        ("red", "1 colours for 3 categories"),
        (["red", "lime", "no colour"], "'no colour', which is no colour"),
        ([1, 2, 3], "no colour"),
        (UNIT * 300, "no colour"),
        (UNIT * np.nan, "no colour"),
        (-UNIT, "no colour"),
        (np.zeros((3, 7)), "no list of colours"),
        (np.zeros((3, 4, 2)), "no list of colours"),
        ([None, None, None], "'None', which is no colour"),
        ([object()] * 3, "no colour"),
        (7, "int, which is no list of colours"),
        (pd.DataFrame({"x": [1]}), "no list of colours"),
        ([], "no list of colours"),
    ],
)
def test_other_stored_values_give_the_default_and_a_line_in_the_log(stored, said, log):
    adata = labelled()
    adata.uns["k_colors"] = stored
    found = read_labels(adata, "k")
    assert found.colors == palette(3) and not found.own
    assert said in log.text and "k_colors" in log.text and "default" in log.text


def test_a_category_that_was_removed_gives_no_other_its_colour(log):
    adata = labelled(("a", "x", "b", "c"))
    adata.uns["k_colors"] = ["red", "black", "lime", "blue"]
    assert read_labels(adata, "k").colors == RGB  # a category that is not in use keeps its place
    adata.obs["k"] = adata.obs["k"].cat.remove_unused_categories()
    assert read_labels(adata, "k").colors == palette(3) and "4 colours for 3" in log.text


def test_colours_of_text_are_in_natural_order():
    adata = AnnData(obs=pd.DataFrame({"k": ["r10", "r9", "", None]}, index=list("abcd")))
    adata.uns["k_colors"] = ["black", "red", "lime"]  # of "", "r9" and "r10"
    found = read_labels(adata, "k")
    assert found.names == ["r9", "r10"] and found.colors == RGB[:2] and found.codes.tolist() == [1, 0, -1, -1]


def test_numbers_have_their_order_and_keep_the_colours_of_their_categories():
    column = pd.Categorical(["10", "2", "1"], categories=["1", "10", "2"])
    adata = AnnData(obs=pd.DataFrame({"k": column}, index=list("abc")), uns={"k_colors": RGB})
    found = read_labels(adata, "k")
    assert found.names == ["1", "2", "10"] and found.colors == [RGB[0], RGB[2], RGB[1]]
    adata.obs["k"] = adata.obs["k"].cat.as_ordered()
    assert read_labels(adata, "k").names == ["1", "10", "2"]


def test_keys_of_a_palette_may_be_numbers():
    adata = AnnData(obs=pd.DataFrame({"k": [2.0, 1.0, np.nan]}, index=list("abc")))
    assert read_labels(adata, "k", palette={1: "red", 2: "lime"}).colors == RGB[:2]
    with pytest.raises(ValueError, match="no such colour"):
        read_labels(adata, "k", palette={1: "red", 2: "no such colour"})
