from __future__ import annotations

import stalign as st
from stalign.train.patterns import as_patterns, matches, warn_unfit


def test_a_text_is_one_pattern_and_a_number_is_read_as_it_is_written():
    assert as_patterns("1516*") == ("1516*",) and as_patterns([151673]) == ("151673",)
    assert matches("151673", "1516*") and matches("151673", [151673])
    assert not matches("s", "slide") and not matches("anything", "a*z")  # no pattern `*` among its letters


def test_a_name_with_brackets_fits_itself():
    assert matches("A[1]", ["a[1]"]) and matches("A1", ["A[1]"]) and not matches("A[1]", ["A[2]"])


def test_patterns_that_fit_nothing_are_told(caplog):
    with st.settings.override(verbosity="warning"):
        warn_unfit(["A*", "Br81OO"], ["a1"], kind="exclude", of="slide")
    assert [r.getMessage() for r in caplog.records] == ["The exclude pattern 'Br81OO' fits no slide."]
