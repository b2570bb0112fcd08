from __future__ import annotations

import numpy as np
import pytest

import stalign as st
from stalign.models.config import MINI
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.slides import Slide
from stalign.train.store import open_store
from stalign.train.validation import split


@pytest.fixture
def one(toy2):
    """Open one section of the toy under a name, with its donor and study."""

    def make(path, *, library="toy_1", data=None, **spec):
        table = toy2[toy2.obs["library"] == library].copy() if data is None else data
        return Slide(SectionSpec(path, library_key="library", **spec), table)

    return make


def sides(slides, *patterns, **config):
    train, validation = split(open_store(slides, DataConfig(**config), MINI.input), patterns)
    return [s.name for s in train[0]], [s.name for s in validation[0]] if validation else []


@pytest.mark.parametrize("pattern", ["toy_2", "second", "P2", "other*", "SECOND.h5ad"])
def test_section_slide_donor_or_study(one, pattern):
    slides = [
        one("first.h5ad", donor="P1", study="a study"),
        one("second.h5ad", library="toy_2", donor="P2", study="other study"),
    ]
    assert sides(slides, pattern) == (["toy_1"], ["toy_2"])
    assert sides(slides) == (["toy_1", "toy_2"], [])


def test_a_donor_of_a_column(toy2, one):
    table = toy2.copy()
    table.obs["patient"] = np.where(table.obs["library"] == "toy_1", "P1", "P2")
    assert sides([one("m", data=table, donor_key="patient")], "P2") == (["toy_1"], ["toy_2"])


def test_a_donor_on_both_sides_stops(one):
    slides = [one("a", donor="P1"), one("b", library="toy_2", donor="p1")]
    with pytest.raises(ValueError, match=r"no donor in both.*'p1' of toy_2 \(validation\) and toy_1 \(training\)"):
        sides(slides, "toy_2")
    apart = [one("a", donor="1", study="x"), one("b", library="toy_2", donor="1", study="y")]
    assert sides(apart, "toy_2") == (["toy_1"], ["toy_2"])  # numbered anew in each study
    unsure = [one("a", donor="1", study="x"), one("b", library="toy_2", donor="1")]
    with pytest.raises(ValueError, match="no donor in both"):
        sides(unsure, "toy_2")


def test_a_pattern_that_fits_nothing_stops(one):
    slides = [one("a"), one("b", library="toy_2")]
    with pytest.raises(ValueError, match=r"each pattern of `data.validation` to fit .*'toy_3'. Available: .*'toy_1'"):
        sides(slides, "toy_2", "toy_3")
    with pytest.raises(ValueError, match=r"Found: 'toy_2'; toy_2 is left out: excluded by its section 'toy_2'"):
        sides(slides, "toy_2", exclude=("toy_2",))
    with pytest.raises(ValueError, match="all of them held out"):
        sides(slides, "toy*")


def test_one_tissue_under_two_names(one, log, toy2):
    table = toy2[toy2.obs["library"] == "toy_1"]
    other = table[np.random.default_rng(0).permutation(table.n_obs)].copy()  # in another order and another frame
    other.obsm["spatial"] = other.obsm["spatial"] * 1.0 + 3.0
    slides = [one("TENX155"), one("TENX128", data=other)]
    with pytest.raises(ValueError, match=r"both.*toy_1 of TENX155 \(training\) and toy_1 \(2\) of TENX128 \(val"):
        sides(slides, "TENX128")
    with st.settings.override(verbosity="info"):
        sides(slides)
    assert (
        "Sections toy_1 of TENX155 and toy_1 (2) of TENX128 hold the same counts and are both trained on." in log.text
    )
    images = [one("a", genes=False), one("b", genes=False), one("c", library="toy_2")]
    with pytest.raises(ValueError, match=r"no section in both.* hold the same image\."):
        sides(images, "b")


def test_one_tissue_with_other_spots_or_without_its_counts(one, toy2):
    table = toy2[toy2.obs["library"] == "toy_1"].copy()
    filtered = table[::2].copy()  # by another copy of the collection
    with pytest.raises(ValueError, match=r"no section in both.* hold the same counts\."):
        sides([one("a"), one("b", data=filtered)], "b")
    with pytest.raises(ValueError, match=r"no section in both.* hold the same image\."):
        sides([one("a"), one("b", data=filtered, genes=False)], "b")
    other = table.copy()
    other.X = other.X.copy()
    other.X.data = np.random.default_rng(0).permutation(other.X.data)
    with pytest.raises(ValueError, match=r"no section in both.* hold the same image\."):
        sides([one("a"), one("b", data=other)], "b")
    left = np.argsort(table.obsm["spatial"][:, 0])
    halves = [table[np.sort(part)].copy() for part in np.array_split(left, 2)]  # two pieces in one image
    assert sides([one("a", data=halves[0]), one("b", data=halves[1])], "b") == (["toy_1"], ["toy_1 (2)"])
