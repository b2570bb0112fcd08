"""What a page asks of a figure: panels that fit, names that fit, bars that can be seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

import stalign
from stalign.pl import domains, patches, scores


def wasted(figure, axes):
    """Share of the figure's width that neither panels nor legends use."""
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in axes]
    return 1 - sum(box.width for box in boxes) / figure.bbox.width


def cropped(adata, width, height):
    """A corner of a section, in px of the full-resolution image."""
    xy = adata.obsm["spatial"] - adata.obsm["spatial"].min(axis=0)
    return adata[(xy < [width, height]).all(axis=1)].copy()


@pytest.mark.parametrize("shape", [(6000, 2500), (2500, 6000)])
def test_panels_have_the_shape_of_their_section(toy, shape):
    adata = cropped(toy, *shape)
    adata.obs["other"] = "x"
    figure = domains(adata, ["domain", "other"], return_fig=True)
    assert wasted(figure, figure.axes) < 0.12
    for ax in figure.axes:
        box, data = ax.get_position().transformed(figure.transFigure), np.ptp(ax.get_xlim()) / np.ptp(ax.get_ylim())
        assert box.width / box.height == pytest.approx(data, rel=0.02)


def test_long_names_are_broken_and_very_long_ones_cut(toy):
    long = "a name of some thirty letters, which goes on"
    toy.obs["long"] = toy.obs["domain"].cat.rename_categories({"L1": long, "WM": "letters " * 40})
    ax = domains(toy, "long", show=False)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[0].split() == long.split() and texts[0].count("\n") == 1
    assert max(len(line) for text in texts for line in text.split("\n")) <= 28
    assert texts[-1].endswith("…") and texts[-1].count("\n") == 2


def test_the_image_is_faded_so_that_colours_stand_out(toy):
    assert domains(toy, "domain", show=False).images[0].get_alpha() == 0.6
    assert domains(toy, "domain", image=True, show=False).images[0].get_alpha() == 1
    assert not domains(toy, "domain", image=0.0, show=False).images
    with pytest.raises(ValueError, match="opacity from 0 to 1"):
        domains(toy, "domain", image=60, show=False)


@pytest.mark.parametrize(("grey", "ink"), [(250, "#000000"), (5, "#ffffff")])
def test_scale_bars_are_seen_on_any_ground(toy, grey, ink):
    toy.uns["spatial"]["toy"]["images"]["hires"][:] = grey
    ax = domains(toy, "domain", image=True, show=False)
    assert to_hex(ax.lines[0].get_color()) == ink
    stalign.pp.patches(toy)
    assert to_hex(patches(toy, n=1, show=False)[0].lines[0].get_color()) == ink


def test_names_of_scale_bars_stay_inside_narrow_patches(toy):
    stalign.pp.patches(toy)
    axes = patches(toy, n=4, show=False)
    axes[0].figure.canvas.draw()
    for ax in axes:
        assert ax.texts[0].get_window_extent().x0 >= ax.images[0].get_window_extent().x0


def test_one_legend_per_full_row_of_sections():
    adata = stalign.datasets.toy(8, n_sections=5)
    axes = domains(adata, "domain", library_key="library", ncols=3, show=False)
    assert [ax.get_legend() is not None for ax in axes] == [False, False, True, False, False]
    axes = domains(adata, "domain", library_key="library", ncols=8, show=False)
    assert [ax.get_legend() is not None for ax in axes] == [False] * 4 + [True]


def test_many_bars_get_a_row_each():
    rows = [{"method": f"method {i}", "section": f"s{j}", "ARI": 0.5, "NMI": 0.5} for i in range(5) for j in range(5)]
    first, second = scores(pd.DataFrame(rows), show=False)
    assert first.get_position().x0 == pytest.approx(second.get_position().x0)
    assert first.get_position().y0 > second.get_position().y1
    plt.close("all")
    first, second = scores(pd.DataFrame(rows[:1]), show=False)
    assert first.get_position().y0 == pytest.approx(second.get_position().y0)


def test_names_from_the_data_are_no_mathematics(toy):
    odd = dict(zip(toy.obs["domain"].cat.categories, ["$bad{$", "_first", "$x_1$", "a^{b", "c\\frac"], strict=True))
    toy.obs["$odd{$"] = toy.obs["domain"].cat.rename_categories(odd)
    toy.uns["spatial"] = {"$s{$": toy.uns["spatial"]["toy"]}
    stalign.pp.patches(toy)
    for figure in (
        domains(toy, "$odd{$", return_fig=True),
        patches(toy, by="$odd{$", return_fig=True),
        stalign.pl.niches(toy, return_fig=True),
        scores(pd.DataFrame({"method": ["$m{$", "n"], "section": "$s{$", "ARI": 0.5}), return_fig=True),
    ):
        figure.canvas.draw()
    ax = domains(toy, "$odd{$", show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == list(odd.values())
    assert domains(toy, "domain", title="$R^2$", show=False).title.get_parse_math()  # what the user writes may be


def test_long_labels_of_patches_do_not_touch(toy):
    toy.obs["long"] = toy.obs["domain"].cat.rename_categories({"L1": "a long name of a layer", "L4": "one more " * 9})
    stalign.pp.patches(toy)
    axes = patches(toy, by="long", show=False)[:5]
    axes[0].figure.canvas.draw()
    boxes = [ax.title.get_window_extent() for ax in axes]
    assert all(left.x1 <= right.x0 for left, right in zip(boxes[:-1], boxes[1:], strict=True))


def test_labels_with_spaces_around_them_keep_their_colours(toy):
    spaced = toy.obs["domain"].cat.rename_categories(lambda name: f" {name} ")
    toy.obs["spaced"] = spaced
    toy.uns["spaced_colors"] = ["#102030", "#405060", "#708090", "#a0b0c0", "#d0e0f0"][: len(spaced.cat.categories)]
    legend = domains(toy, "spaced", show=False).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == list(toy.obs["domain"].cat.categories)
    by_name = dict.fromkeys(spaced.cat.categories, "#ff0000")
    assert domains(toy, "spaced", palette=by_name, show=False).get_legend() is not None
