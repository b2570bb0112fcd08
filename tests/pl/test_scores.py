"""Bars of means, dots of runs, whiskers of spread."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stalign.core.palette import palette
from stalign.pl import scores


@pytest.fixture
def runs():
    rng = np.random.default_rng(0)
    rows = [
        {"method": method, "section": section, "seed": seed, "ARI": level + rng.normal(0, 0.05), "NMI": level}
        for method, level in (("ours", 0.6), ("floor", 0.3))
        for section in ("151673", "151675", "151510")
        for seed in range(5)
    ]
    return pd.DataFrame(rows)


def test_bars_are_means_and_whiskers_one_standard_deviation(runs):
    ax = scores(runs, "ARI", show=False)
    groups = runs.groupby(["method", "section"], sort=False)["ARI"]
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], groups.mean())
    spans = [np.ptp(c.get_segments()[0][:, 1]) for c in ax.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(spans, 2 * groups.std())
    dots = [c for c in ax.collections if not hasattr(c, "get_segments")]
    assert sum(len(dot.get_offsets()) for dot in dots) == len(runs)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["151673", "151675", "151510"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ours", "floor"]


def test_a_panel_per_metric_with_one_legend(runs):
    first, second = scores(runs, show=False)
    assert (first.get_ylabel(), second.get_ylabel()) == ("ARI", "NMI")
    assert first.get_legend() is None and second.get_legend() is not None


def test_table_of_tl_score():
    table = pd.DataFrame({"library": ["a", "b", "all"], "n_spots": [5, 5, 10], "ARI": [0.2, 0.4, 0.3], "NMI": 0.5})
    ax = scores(table, "ARI", show=False)
    assert [bar.get_height() for bar in ax.patches] == [0.2, 0.4, 0.3]
    assert ax.get_legend() is None


def test_mapping_of_tables_and_palette():
    table = pd.DataFrame({"library": ["a"], "ARI": [0.5]})
    ax = scores({"one": table, "two": table}, "ARI", palette={"one": "#FF0000", "two": "#00FF00"}, show=False)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    assert [bar.get_facecolor()[:3] for bar in ax.patches] == [(1, 0, 0), (0, 1, 0)]
    assert palette(1)  # the default stays at hand


def test_missing_and_negative_scores(runs):
    runs.loc[(runs["method"] == "floor") & (runs["section"] == "151510"), "ARI"] = np.nan
    runs.loc[0, "ARI"] = -0.2
    ax = scores(runs, "ARI", show=False)
    assert len(ax.patches) == 5
    runs.loc[runs["method"] == "floor", "method"] = None
    names = [text.get_text() for text in scores(runs, "ARI", show=False).get_legend().get_texts()]
    assert len(names) == 2 and names[0] == "ours" and names[1] in {"nan", "None"}


def test_errors(runs):
    with pytest.raises(KeyError, match="AUC"):
        scores(runs, "AUC")
    with pytest.raises(KeyError, match="neither ARI nor NMI"):
        scores(runs.drop(columns=["ARI", "NMI"]))
    with pytest.raises(ValueError, match="no rows"):
        scores(runs.iloc[:0])
