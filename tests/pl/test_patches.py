"""Patches are those that the windows cut, with a true scale bar."""

from __future__ import annotations

import numpy as np
import pytest

import stalign
from stalign.data import open_sections as sections
from stalign.datasets import toy as make_toy
from stalign.pl import patches


@pytest.fixture
def prepared():
    adata = make_toy(n_rows=12)
    stalign.pp.patches(adata)
    return adata


def test_pixels_are_those_of_the_windows(prepared):
    names = list(prepared.obs_names[[10, 40]])
    axes = patches(prepared, names, size=16, show=False)
    assert len(axes) == 4
    (view,) = sections(prepared)
    for ax, row, slot in zip(axes, (10, 40, 10, 40), ["spot_window"] * 2 + ["niche_window"] * 2, strict=True):
        expected = view.image.patches(prepared.obsm[slot][[row]], 16)[0]
        np.testing.assert_array_equal(ax.images[0].get_array(), expected)
    assert [ax.get_title() for ax in axes[:2]] == names


def test_scale_bar_is_true(prepared):
    axes = patches(prepared, n=1, show=False)
    for ax, slot in zip(axes, ("spot_window", "niche_window"), strict=True):
        (line,) = ax.lines
        um = float(ax.texts[0].get_text().removesuffix(" µm"))
        share = np.ptp(line.get_xdata()) / abs(np.diff(ax.get_xlim())[0])
        window = prepared.obsm[slot]
        widths_um = (window[:, 2] - window[:, 0]) * 2.0
        assert any(um / width == pytest.approx(share, rel=0.01) for width in widths_um)
    assert not patches(prepared, n=1, scale_bar=False, show=False)[0].lines


def test_one_spot_of_each_label_in_its_colour(prepared):
    axes = patches(prepared, by="domain", show=False)
    assert len(axes) == 10
    assert [ax.get_title() for ax in axes[:5]] == ["L1", "L2/3", "L4", "L5/6", "WM"]
    assert len({str(ax.title.get_color()) for ax in axes[:5]}) == 5


def test_sections_get_rows_of_their_own():
    adata = make_toy(n_rows=8, n_sections=2)
    stalign.pp.patches(adata, library_key="library")
    axes = patches(adata, n=2, library_key="library", show=False)
    assert [axes[i].get_ylabel() for i in (0, 2, 4, 6)] == [
        "toy_1\nspot",
        "toy_1\nniche",
        "toy_2\nspot",
        "toy_2\nniche",
    ]
    means = [axes[i].images[0].get_array().mean() for i in (2, 6)]
    assert means[0] != means[1]


def test_the_image_that_the_windows_were_made_for_is_used(prepared):
    """A second image must not be cut with windows that belong to the first."""
    slide = prepared.uns["spatial"]["toy"]
    slide["images"]["lowres"] = slide["images"]["hires"][::4, ::4]
    slide["scalefactors"]["tissue_lowres_scalef"] = slide["scalefactors"]["tissue_hires_scalef"] / 4
    stalign.pp.patches(prepared, image_key="lowres")
    name = prepared.obs_names[30]
    low = patches(prepared, [name], size=7, show=False)[0].images[0].get_array()
    x0, y0, x1, y1 = prepared.obsm["spot_window"][30]
    assert x1 - x0 == pytest.approx(55 / 8, rel=0.01)
    expected = slide["images"]["lowres"][int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].mean()
    assert low.mean() == pytest.approx(expected, abs=8)


def test_errors_say_what_to_do(prepared):
    with pytest.raises(KeyError, match=r"stalign\.pp\.patches"):
        patches(make_toy(n_rows=8))
    with pytest.raises(KeyError, match="nobody"):
        patches(prepared, ["nobody"])
    with pytest.raises(ValueError, match="size"):
        patches(prepared, size=0)
    prepared.uns["spatial"]["toy"]["images"] = {}
    with pytest.raises((ValueError, KeyError), match="image"):
        patches(prepared)


def test_no_label_at_all(prepared):
    prepared.obs["empty"] = np.nan
    with pytest.raises(ValueError, match="labels in obs\\['empty'\\]"):
        patches(prepared, by="empty", show=False)
