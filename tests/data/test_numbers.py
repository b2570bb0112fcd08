from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stalign.data.numbers import number

GOOD = [
    0.25,
    "0.25",
    " 0.25 ",
    "2.5e-1",
    b"0.25",
    [0.25],
    [[0.25]],
    ["0.25"],
    np.array([0.25]),
    np.array(0.25),
    np.array(["0.25"]),
    np.array([b"0.25"]),
    np.array([0.25], dtype=object),
    np.float32(0.25),
    np.str_("0.25"),
    pd.Series([0.25]),
    (0.25,),
]
BAD = [
    0,
    0.0,
    -1,
    np.nan,
    np.inf,
    "nan",
    "inf",
    "",
    "a",
    "0,25",
    True,
    False,
    np.True_,
    [True],
    [],
    [1, 2],
    [[1], [2, 3]],
    np.array([]),
    {"a": 1},
    {0.25},
    1 + 1j,
    pd.NA,
    b"\xff",
    Ellipsis,
    np.datetime64("2020-01-01"),
]


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_a_number_in_any_form(value):
    found = number({"scale": value}, "scale", where="a.json")
    assert type(found) is float
    assert found == 0.25


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_what_is_no_number_is_named(value):
    with pytest.raises(ValueError, match=r"Expected 'scale' of section 'A' to be a positive number. Found: .*Correct"):
        number({"scale": value}, "scale", where="section 'A'")


def test_whole_numbers_and_none():
    assert number({"n": 8}, "n", where="x") == 8.0
    assert number({"n": np.int64(8)}, "n", where="x") == 8.0
    assert number({"n": None}, "n", where="x") is None
    assert number({}, "n", where="x") is None
