"""The niche graph and its close-up."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle, Rectangle

import stalign
from stalign.datasets import toy as make_toy
from stalign.pl import niches


@pytest.fixture
def prepared():
    adata = make_toy(n_rows=12)
    stalign.pp.niches(adata)
    return adata


def test_every_edge_is_drawn_once_between_its_spots(prepared):
    overview, _ = niches(prepared, show=False)
    (lines,) = [c for c in overview.collections if isinstance(c, LineCollection)]
    rows, columns = prepared.obsp["niche_connectivities"].nonzero()
    expected = {frozenset(pair) for pair in zip(rows.tolist(), columns.tolist(), strict=True) if pair[0] != pair[1]}
    ends = np.array(lines.get_segments())
    assert len(ends) == len(expected)
    positions = prepared.obsm["spatial"] * 0.5
    found = {frozenset(int(np.linalg.norm(positions - end, axis=1).argmin()) for end in segment) for segment in ends}
    assert found == expected


def test_closeup_shows_the_asked_spot_its_neighbours_and_both_windows(prepared):
    name = prepared.obs_names[60]
    overview, closeup = niches(prepared, name, palette=("#FF0000", "#00FF00"), show=False)
    assert name in closeup.get_title()
    members = prepared.obsp["niche_connectivities"][60].indices
    thick = [p for p in closeup.patches if isinstance(p, Circle) and p.get_linewidth() > 2]
    positions = prepared.obsm["spatial"] * 0.5
    found = {int(np.linalg.norm(positions - circle.center, axis=1).argmin()) for circle in thick}
    assert found == set(members.tolist())
    assert all(circle.radius == pytest.approx(27.5) for circle in thick)
    spot, niche = (p for p in closeup.patches if isinstance(p, Rectangle))
    assert (spot.get_width(), spot.get_height()) == pytest.approx((55, 55))
    extent = np.ptp(positions[members], axis=0) + 55
    assert (niche.get_width(), niche.get_height()) == pytest.approx(tuple(extent), rel=2e-3)
    assert (spot.get_linestyle(), niche.get_linestyle()) == ("-", "--")


def test_one_panel_per_section_without_zoom():
    adata = make_toy(n_rows=8, n_sections=2)
    stalign.pp.niches(adata, library_key="library")
    axes = niches(adata, zoom=False, library_key="library", show=False)
    assert [ax.get_title() for ax in axes] == ["toy_1", "toy_2"]


def test_errors_say_what_to_do(prepared):
    with pytest.raises(KeyError, match=r"stalign\.pp\.niches"):
        niches(make_toy(n_rows=8))
    with pytest.raises(KeyError, match="nobody"):
        niches(prepared, "nobody")
