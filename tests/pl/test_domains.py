"""Domains over the tissue: colours, order, size, scale bar and return values."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.colors import to_hex

import stalign
from stalign.core.palette import palette
from stalign.datasets import toy as make_toy
from stalign.pl import domains, embedding, patches


def spot_colors(ax):
    circles = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    return [to_hex(color).upper() for color in circles.get_facecolors()]


def legend_of(ax):
    legend = ax.get_legend()
    return {
        text.get_text(): to_hex(handle.get_color()).upper()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


@pytest.fixture
def predicted(toy):
    """Domains that are the truth under other names in another order."""
    names = {"L1": "3", "L2/3": "10", "L4": "1", "L5/6": "2", "WM": "4"}
    toy.obs["stalign_domain"] = pd.Categorical(toy.obs["domain"].map(names).astype(str))
    return toy


def test_one_circle_per_spot_in_the_colour_of_its_label(toy):
    ax = domains(toy, "domain", show=False)
    assert legend_of(ax) == dict(zip(["L1", "L2/3", "L4", "L5/6", "WM"], palette(5), strict=True))
    expected = np.array(palette(5))[toy.obs["domain"].cat.codes]
    assert spot_colors(ax) == expected.tolist()


def test_spots_have_their_true_size_and_place(toy):
    ax = domains(toy, "domain", show=False)
    circles = next(c for c in ax.collections if isinstance(c, EllipseCollection))
    np.testing.assert_allclose(np.unique(circles.get_widths()), 55.0)
    np.testing.assert_allclose(circles.get_offsets(), toy.obsm["spatial"] * 0.5, rtol=2e-3)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # y downwards


def test_image_lies_under_the_spots_it_belongs_to(toy):
    """The picture drawn at a spot's position is the picture at the spot's position in the image."""
    image = toy.uns["spatial"]["toy"]["images"]["hires"]
    marked = np.full_like(image, 255)
    x, y = (toy.obsm["spatial"][100] * 0.25).astype(int)
    marked[y - 20 : y + 20, x - 20 : x + 20] = (255, 0, 0)
    toy.uns["spatial"]["toy"]["images"]["hires"] = marked
    ax = domains(toy, "domain", alpha=0.0, scale_bar=False, show=False)
    drawn = ax.images[0]
    left, right, bottom, top = drawn.get_extent()
    pixels = drawn.get_array()
    red = np.argwhere((pixels[..., 0] > 250) & (pixels[..., 1] < 60))
    px, py = (red[:, ::-1].mean(axis=0) + 0.5) / pixels.shape[1::-1]
    centre = left + px * (right - left), top + py * (bottom - top)
    np.testing.assert_allclose(centre, toy.obsm["spatial"][100] * 0.5, atol=6)


def test_scale_bar_is_as_long_as_it_says(toy):
    ax = domains(toy, "domain", show=False)
    (line,) = ax.lines
    assert np.ptp(line.get_xdata()) == 500
    assert "500 µm" in [text.get_text() for text in ax.texts]
    assert not domains(toy, "domain", scale_bar=False, show=False).lines


def test_truth_and_prediction_side_by_side_with_matched_colours(predicted):
    truth, found = domains(predicted, truth="domain", show=False)
    assert list(legend_of(truth)) == ["L1", "L2/3", "L4", "L5/6", "WM"]
    assert list(legend_of(found)) == ["1", "2", "3", "4", "10"]  # in the order of their numbers
    assert spot_colors(truth) == spot_colors(found)


def test_a_domain_has_one_colour_in_every_figure(predicted):
    predicted.uns["stalign_domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    predicted.obsm["X_map"] = np.asarray(predicted.obsm["spatial"], float)
    alone = legend_of(domains(predicted, show=False))
    assert alone == dict(zip(["1", "10", "2", "3", "4"], predicted.uns["stalign_domain_colors"], strict=True))
    assert list(alone) == ["1", "2", "3", "4", "10"]
    predicted.obs["other"] = predicted.obs["array_row"] // 8
    for truth in ("domain", "other"):
        for axes in (
            domains(predicted, truth=truth, show=False),
            domains(predicted, [truth, "stalign_domain"], show=False),
            embedding(predicted, truth=truth, basis="X_map", show=False),
        ):
            assert legend_of(axes[1]) == alone and list(legend_of(axes[1])) == list(alone)
    stalign.pp.patches(predicted)
    drawn = patches(predicted, by="stalign_domain", show=False)[:5]
    assert {ax.get_title(): ax.title.get_color() for ax in drawn} == alone


def test_labels_with_colours_of_their_own_keep_them(predicted):
    predicted.uns["domain_colors"] = ["red", "green", "blue", "black", "white"]
    truth, found = domains(predicted, truth="domain", show=False)
    assert list(legend_of(truth).values()) == ["#FF0000", "#008000", "#0000FF", "#000000", "#FFFFFF"]
    assert list(legend_of(found).values()) == palette(5)
    truth, found = domains(predicted, truth="domain", palette=palette(9)[4:], show=False)  # a palette is the domains'
    assert list(legend_of(found).values()) == palette(9)[4:] and spot_colors(truth) == spot_colors(found)
    mine = dict(zip(["L1", "L2/3", "L4", "L5/6", "WM"], palette(9)[4:], strict=True))
    truth, found = domains(predicted, truth="domain", palette=mine, show=False)
    assert legend_of(truth) == mine and set(legend_of(found).values()) == set(palette(5))


def test_labels_without_a_partner_have_colours_that_nobody_else_has(predicted):
    predicted.obs["stalign_domain"] = pd.Categorical(np.where(predicted.obs["domain"] == "WM", "2", "1"))
    truth, found = domains(predicted, truth="domain", show=False)
    colors = list(legend_of(truth).values())
    assert len(set(colors)) == 5 and set(legend_of(found).values()) < set(colors)
    assert legend_of(truth)["WM"] == legend_of(found)["2"]
    predicted.obs["domain"] = predicted.obs["domain"].astype(object).where(predicted.obs["stalign_domain"] == "3")
    predicted.obs["domain"] = "L1"
    predicted.obs["stalign_domain"] = predicted.obs["stalign_domain"].astype(object).where(predicted.obs_names == "")
    truth, found = domains(predicted, truth="domain", show=False)  # no spot has both
    assert list(legend_of(truth)) == ["L1"] and len(legend_of(found)) == 1


def test_unmatched_domains_get_colours_of_their_own(predicted):
    codes = predicted.obs["stalign_domain"].astype(str).to_numpy()
    codes[::7] = "extra"
    predicted.obs["stalign_domain"] = pd.Categorical(codes)
    truth, found = domains(predicted, truth="domain", show=False)
    assert legend_of(found)["extra"] not in legend_of(truth).values()
    assert list(legend_of(found))[-1] == "extra"


def test_reference_gives_colours_without_being_drawn(predicted):
    predicted.uns["stalign_domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    ax = domains(predicted, reference="domain", show=False)
    layers = legend_of(domains(predicted, "domain", show=False))
    names = {"L1": "3", "L2/3": "10", "L4": "1", "L5/6": "2", "WM": "4"}
    assert legend_of(ax) == {names[layer]: color for layer, color in layers.items()}
    assert list(legend_of(ax)) == ["1", "2", "3", "4", "10"]
    truth, found = domains(predicted, truth="domain", reference="domain", show=False)
    assert legend_of(truth) == layers and legend_of(found) == legend_of(ax)
    axes = domains(predicted, ["domain", "stalign_domain"], reference="domain", palette="viridis", show=False)
    assert spot_colors(axes[0]) == spot_colors(axes[1]) and legend_of(axes[0]) != layers


def test_stored_colours_are_used_and_a_palette_wins(toy):
    toy.uns["domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    assert list(legend_of(domains(toy, "domain", show=False)).values()) == toy.uns["domain_colors"]
    mapping = dict(zip(toy.obs["domain"].cat.categories, palette(5)[::-1], strict=True))
    assert legend_of(domains(toy, "domain", palette=mapping, show=False)) == mapping
    viridis = legend_of(domains(toy, "domain", palette="viridis", show=False))
    assert len(set(viridis.values())) == 5 and viridis["L1"] == to_hex(plt.get_cmap("viridis")(0.0)).upper()


def test_stored_colours_follow_their_category_when_one_is_absent(toy):
    toy.uns["domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    toy.obs["some"] = toy.obs["domain"].where(toy.obs["domain"] != "L2/3")
    toy.uns["some_colors"] = toy.uns["domain_colors"]
    found = legend_of(domains(toy, "some", show=False))
    assert found["L4"] == "#333333" and "L2/3" not in found


def test_spots_without_a_label_are_grey_and_counted(toy):
    labels = toy.obs["domain"].astype(object)
    labels.iloc[:30], labels.iloc[30:40] = np.nan, ""
    toy.obs["layer"] = pd.Categorical(labels)
    assert "no label (40)" in legend_of(domains(toy, "layer", show=False))


def test_natural_order_of_numbers_in_text(toy):
    toy.obs["k"] = [str(i % 11) for i in range(toy.n_obs)]
    assert list(legend_of(domains(toy, "k", show=False))) == [str(i) for i in range(11)]


def test_one_panel_per_section_and_truth():
    adata = make_toy(n_rows=10, n_sections=2)
    axes = domains(adata, "domain", library_key="library", show=False)
    assert [ax.get_title() for ax in axes] == ["toy_1", "toy_2"]
    for ax, name in zip(axes, ["toy_1", "toy_2"], strict=True):
        assert len(spot_colors(ax)) == (adata.obs["library"] == name).sum()
    adata.obs["stalign_domain"] = adata.obs["domain"]
    assert len(domains(adata, truth="domain", library_key="library", show=False)) == 4


def test_spatialdata_draws_the_same():
    adata, sdata = make_toy(n_rows=10), make_toy(n_rows=10, spatialdata=True)
    first, second = domains(adata, "domain", show=False), domains(sdata, "domain", show=False)
    assert spot_colors(first) == spot_colors(second)
    np.testing.assert_allclose(first.get_xlim(), second.get_xlim())
    np.testing.assert_array_equal(first.images[0].get_array(), second.images[0].get_array())


def test_without_image_and_without_scale():
    rng = np.random.default_rng(0)
    adata = AnnData(obs=pd.DataFrame({"k": ["a", "b"] * 50}), obsm={"spatial": rng.uniform(0, 100, (100, 2))})
    ax = domains(adata, "k", show=False)
    assert not ax.images and not ax.lines and len(spot_colors(ax)) == 100


def test_spots_without_coordinates_are_left_out(toy):
    toy.obsm["spatial"][:5] = np.nan
    assert len(spot_colors(domains(toy, "domain", show=False))) == toy.n_obs - 5


def test_coloured_area_is_that_of_the_spots(toy, pixels, share):
    """Counted on the drawn figure: circles of 55 µm at a pitch of 100 µm cover a bit over a quarter of the tissue."""
    toy.obs["one"] = "a"
    figure, ax = plt.subplots(figsize=(6, 6), dpi=150)
    domains(toy, "one", ax=ax, image=False, palette=["#0072B2"], scale_bar=False, show=False)
    ax.get_legend().remove()
    image = pixels(figure)
    box = ax.get_window_extent()
    inside = image[-int(box.y1) : -int(box.y0), int(box.x0) : int(box.x1)]
    span_x, span_y = (abs(np.diff(limits)[0]) for limits in (ax.get_xlim(), ax.get_ylim()))
    expected = toy.n_obs * np.pi * 27.5**2 / (span_x * span_y)
    assert share(inside, "#0072B2", 60) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_text_can_be_read_on_any_ground(toy, style, pixels, share):
    with plt.style.context(style):
        figure = domains(toy, "domain", image=False, return_fig=True)
        ink, ground = plt.rcParams["text.color"], plt.rcParams["figure.facecolor"]
        image = pixels(figure)
    assert share(image, ground) > 0.5 and share(image, ink, 40) > 0.002


def test_many_spots_become_one_image(pixels, share):
    side = 230
    y, x = np.mgrid[0:side, 0:side]
    obs = pd.DataFrame({"k": np.where(x.ravel() < side // 2, "left", "right")})
    adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x.ravel(), y.ravel()]) * 8.0})
    start = time.perf_counter()
    ax = domains(adata, "k", palette=["#0072B2", "#E69F00"], mpp=1.0, show=False)
    assert time.perf_counter() - start < 10
    assert not ax.collections and len(ax.images) == 1
    ax.get_legend().remove()
    image = pixels(ax.figure)
    blue, orange = share(image, "#0072B2"), share(image, "#E69F00")
    assert blue == pytest.approx(orange, rel=0.1) and blue > 0.2
    columns = np.argwhere((np.abs(image.astype(int) - (0, 114, 178)).max(axis=-1) < 12).any(axis=0))
    others = np.argwhere((np.abs(image.astype(int) - (230, 159, 0)).max(axis=-1) < 12).any(axis=0))
    assert columns.max() <= others.min() + 1


def test_bins_are_squares():
    y, x = np.mgrid[0:20, 0:20]
    obs = pd.DataFrame({"k": ["a"] * 400}, index=[f"s_008um_{i:05d}_{j:05d}-1" for i in range(20) for j in range(20)])
    adata = AnnData(obs=obs, obsm={"spatial": np.column_stack([x.ravel(), y.ravel()]) * 16.0})
    ax = domains(adata, "k", show=False)
    (squares,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert len(squares.get_paths()) == 400
    assert np.ptp(squares.get_paths()[0].vertices, axis=0) == pytest.approx([8.0, 8.0])


def test_own_axes_and_return_values(toy, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: shown.append(True))
    figure, ax = plt.subplots()
    assert domains(toy, "domain", ax=ax, show=False) is ax
    assert domains(toy, "domain", ax=ax, return_fig=True) is figure
    assert domains(toy, "domain", ax=ax) is ax  # nothing can show it here
    assert domains(toy, "domain", ax=ax, show=True) is None and not shown
    _, axes = plt.subplots(2, 1)
    with pytest.raises(ValueError, match="1 Axes"):
        domains(toy, "domain", ax=axes, show=False)


def test_shows_where_the_backend_can(toy, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda *args, **kwargs: shown.append(True))
    monkeypatch.setattr(stalign.pl._canvas, "can_show", lambda: True)
    assert domains(toy, "domain") is None and shown == [True]


def test_titles(toy):
    assert domains(toy, "domain", title="mine", show=False).get_title() == "mine"
    with pytest.raises(ValueError, match="1 titles"):
        domains(toy, "domain", title=["a", "b"], show=False)


def test_missing_domains_say_what_to_call(toy):
    with pytest.raises(KeyError, match=r"stalign\.tl\.domains"):
        domains(toy)
    with pytest.raises(KeyError, match="array_row"):
        domains(toy, "nothing")


def odd_columns(n):
    """Labels as other tools leave them."""
    number = np.arange(n) % 7
    return {
        "unused categories": (pd.Categorical(number.astype(str), categories=[str(i) for i in range(20)]), 7),
        "ordered": (pd.Categorical(np.array(list("cab"))[number % 3], categories=list("cab"), ordered=True), 3),
        "categories that are numbers": (pd.Categorical(number.astype(float)), 7),
        "categories of two types": (pd.Categorical([1 if i % 2 else "1" for i in range(n)], categories=[1, "1"]), 1),
        "bool": (number > 3, 2),
        "int": (number, 7),
        "float with NaN": (np.where(number == 2, np.nan, number), 6),
        "nullable": (pd.array(np.where(number == 2, None, number), dtype="Int64"), 6),
        "string": (pd.array(np.where(number == 2, None, number.astype(str)), dtype="string"), 6),
        "text with NaN and empty": (np.array(["a", "", np.nan, None, "NA", "b", "<NA>"], dtype=object)[number], 2),
        "bytes": (np.array([b"x", b"y"], dtype=object)[number % 2], 2),
        "one": (["a"] * n, 1),
        "none": ([np.nan] * n, 0),
        "sixty": ([f"label {i % 60}" for i in range(n)], 60),
        "superscripts": (np.array(["x²", "x³", "²"])[number % 3], 3),
        "unicode": (np.array(["Schädel", "µ-opioid", "_hidden", "$x$"])[number % 4], 4),
        "very long": (np.array(["a" * 300, "many words " * 40])[number % 2], 2),
    }


@pytest.mark.parametrize("kind", odd_columns(1))
def test_labels_as_other_tools_leave_them(toy, kind, pixels):
    column, count = odd_columns(toy.n_obs)[kind]
    toy.obs["odd"], toy.obs["stalign_domain"] = column, toy.obs["domain"]
    toy.obsm["X_map"] = np.asarray(toy.obsm["spatial"], float)
    truth, found = domains(toy, truth="odd", show=False)
    listed = legend_of(truth)
    assert sum(not name.startswith("no label") for name in listed) == count
    assert len({color for name, color in listed.items() if not name.startswith("no label")}) == count
    assert list(legend_of(found)) == ["L1", "L2/3", "L4", "L5/6", "WM"]
    pixels(truth.figure)
    embedding(toy, "odd", basis="X_map", show=False)
    domains(toy, ["odd", "stalign_domain"], reference="odd", show=False)


def test_long_lists_of_labels_end(toy):
    toy.obs["each"] = [f"spot {i}" for i in range(toy.n_obs)]
    listed = list(legend_of(domains(toy, "each", show=False)))
    assert len(listed) == 96 and listed[-1] == f"… and {toy.n_obs - 95:,} more"


def test_very_long_names_of_columns_and_sections_are_cut_in_titles(toy):
    toy.obs["k" * 200] = "a"
    assert domains(toy, "k" * 200, show=False).get_title() == "k" * 19 + "…" + "k" * 19


def test_measurements_are_refused(toy):
    toy.obs["umi"] = np.linspace(0, 1, toy.n_obs)
    with pytest.raises(ValueError, match="different numbers"):
        domains(toy, "umi")


@pytest.mark.parametrize(
    ("colors", "word"), [(["red"], "5 colours"), ({"L1": "red"}, "L2/3"), ("no map", "colour map")]
)
def test_bad_palettes(toy, colors, word):
    with pytest.raises(ValueError, match=word):
        domains(toy, "domain", palette=colors)


def test_data_are_not_changed(predicted):
    before = predicted.copy()
    domains(predicted, truth="domain", show=False)
    assert set(predicted.uns) == set(before.uns) and list(predicted.obs) == list(before.obs)
    pd.testing.assert_frame_equal(predicted.obs, before.obs)


@pytest.mark.parametrize("close", [False, True])
@pytest.mark.parametrize("turn", [((0, -1), (1, 0)), ((-1, 0), (0, -1)), ((1, 0), (0, -1)), ((0, 1), (1, 0))])
def test_a_turned_image_is_drawn_as_the_upright_one(pixels, turn, close):
    from dataclasses import replace

    from matplotlib import pyplot as plt

    from stalign.data.images import SectionImage
    from stalign.pl._tissue import Tissue, frame

    side = 120
    upright = np.zeros((side, side, 3), np.uint8)
    upright[: side // 2, : side // 2] = [250, 0, 0]
    upright[: side // 2, side // 2 :] = [0, 250, 0]
    upright[side // 2 :, : side // 2] = [0, 0, 250]
    linear = np.array(turn)
    turned = upright if turn[0][0] else upright.swapaxes(0, 1)
    turned = np.ascontiguousarray(turned[:: linear[1].sum(), :: linear[0].sum()])
    offset = tuple(np.where(linear.sum(axis=1) < 0, side, 0).astype(float))

    class Section:
        coord_mpp = 2.0
        image = SectionImage("a", upright, 1.0, (0.0, 0.0), 2.0, (side, side))

    figures = []
    for image in (Section.image, replace(Section.image, source=turned, offset=offset, turn=turn)):
        section = Section()
        section.image = image
        figure, ax = plt.subplots()
        view = (100.0, 90.0, 150.0, 130.0) if close else (-10.0, 20.0, 200.0, 240.0)
        frame(ax, Tissue(section, 2.0, np.zeros((1, 2)), 5.0), image=True, view=view, bar=False)
        figures.append(pixels(figure).astype(int))
    assert (figures[0].max(axis=-1) > 200).mean() > 0.2
    assert np.abs(figures[0] - figures[1]).max() <= 12
    assert np.abs(figures[0] - figures[1]).mean() < 0.5


def turned_bins(side, degrees):
    """Bins of 8 µm in two halves, px of 1 µm, on a turned array; and the half of each."""
    row, column = (index.ravel() for index in np.mgrid[0:side, 0:side])
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    names = [f"s_008um_{i:05d}_{j:05d}-1" for i, j in zip(row, column, strict=True)]
    obs = pd.DataFrame({"k": np.where(column < side // 2, "left", "right")}, index=names)
    return AnnData(obs=obs, obsm={"spatial": 8.0 * np.column_stack([column, row]) @ turn.T})


def test_squares_of_a_turned_array_are_turned():
    ax = domains(turned_bins(20, 30), "k", show=False)
    (squares,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    corners = squares.get_paths()[0].vertices[:4]
    side = corners[1] - corners[0]
    assert np.linalg.norm(side) == pytest.approx(8.0)
    assert np.degrees(np.arctan2(side[1], side[0])) == pytest.approx(30)
    plt.close(ax.figure)


@pytest.mark.parametrize("degrees", [0, 20, -40])
def test_many_bins_of_a_turned_array_are_painted_where_they_lie(pixels, degrees):
    adata = turned_bins(230, degrees)
    ax = domains(adata, "k", palette=["#0072B2", "#E69F00"], scale_bar=False, show=False)
    assert len(ax.images) == 1
    image = pixels(ax.figure)
    row, column = np.divmod(np.arange(adata.n_obs), 230)
    inner = (row % 16 == 8) & (column % 16 == 8) & (np.abs(column - 115) > 4)
    at = np.rint(ax.transData.transform(adata.obsm["spatial"][inner])).astype(int)
    found = image[image.shape[0] - 1 - at[:, 1], at[:, 0]].astype(int)
    wanted = np.where((column[inner] < 115)[:, None], [0, 114, 178], [230, 159, 0])
    assert (np.abs(found - wanted).max(axis=1) < 12).mean() > 0.99
    plt.close(ax.figure)
