"""What hypothesis draws: sections, names and rows."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from tests.properties.plain import Plain, make

EXAMPLES = int(os.environ.get("STALIGN_EXAMPLES", 320))


def examples(share: float) -> settings:
    """Take a share of the suite's examples."""
    return settings(max_examples=max(1, round(share * EXAMPLES)))


@st.composite
def plains(draw: st.DrawFn, *, ideal: bool | None = None, name: str = "s") -> Plain:
    """Draw a section of 20 to 42 spots; one that is ideal has many neighbours that are equally far."""
    lattice = draw(st.sampled_from(["hex", "square", "irregular"]))
    level = draw(st.booleans()) if ideal is None else ideal
    return make(
        draw(st.integers(0, 999)),
        lattice=lattice,
        n_rows=draw(st.integers(5, 6)),
        n_columns=draw(st.integers(4, 7)),
        ideal=level and lattice != "irregular",
        scale=draw(st.sampled_from([0.25, 0.5, 0.17])),
        name=name,
    )


def orders(n: int) -> st.SearchStrategy[np.ndarray]:
    """Draw an order of rows."""
    return st.integers(0, 999).map(lambda seed: np.random.default_rng(seed).permutation(n))


def subsets(n: int) -> st.SearchStrategy[np.ndarray]:
    """Draw rows that are kept: at least two thirds, as a lattice is not seen in few scattered spots, and not all."""
    return st.tuples(st.integers(2 * n // 3, n - 1), st.integers(0, 999)).map(
        lambda drawn: np.sort(np.random.default_rng(drawn[1]).permutation(n)[: drawn[0]])
    )


ODD_NAMES = [
    "P1/A", "P1", "P1/2", "S1", "S10", "a.b", "1st", "10", "two words", " edge ", "ünïcode 切片", "x" * 200, "/", "//",
    "a//b", "/lead", "trail/", ".", "..", "../up", ".hidden", "a\\b", "100%", "q'uote", 'q"uote', "None", "nan",
    "True", "spatial", "images", "stalign", "🧠",
]  # fmt: skip
_LETTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn", "Co"))


def names() -> st.SearchStrategy[str]:
    """Draw a name that a user may give to a section or a column."""
    return st.one_of(st.sampled_from(ODD_NAMES), st.text(_LETTERS, min_size=1, max_size=12))
