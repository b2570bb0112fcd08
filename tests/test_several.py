"""Calls that take lists of tables."""

from __future__ import annotations

import numpy as np
import pytest

import stalign
from stalign import pp, tl


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda data, **more: pp.niches(data, **more), ("obsp", "niche_connectivities")),
        (lambda data, **more: pp.patches(data, **more), ("obsm", "niche_window")),
        (lambda data, **more: tl.embed(data, **more), ("obsm", "X_stalign")),
        (lambda data, **more: tl.encode(data, "colour", **more), ("obsm", "X_colour_spot")),
    ],
    ids=["niches", "patches", "embed", "encode"],
)
def test_a_list_is_what_its_tables_are_one_by_one(call, key):
    parts = [stalign.datasets.toy(8, seed=seed) for seed in (0, 1)]
    slot, name = key
    copies = call(parts, copy=True)
    assert not any(name in getattr(part, slot) for part in parts)
    assert call(tuple(parts)) is None
    for part, changed in zip(parts, copies, strict=True):
        alone = call(part, copy=True)
        for found in (part, changed):
            np.testing.assert_array_equal(_dense(getattr(found, slot)[name]), _dense(getattr(alone, slot)[name]))


def test_an_empty_list_is_an_error():
    with pytest.raises(ValueError, match="at least one section. Found: an empty list"):
        tl.embed([])


def _dense(values):
    return values.toarray() if hasattr(values, "toarray") else np.asarray(values)
