from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from stalign.models.config import MINI
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.held_out import hold_out
from stalign.train.slides import Slide
from stalign.train.store import open_store


@pytest.fixture(scope="module")
def stored(toy2):
    slide = Slide(SectionSpec("a", library_key="library", include=("toy_1",)), toy2)
    return open_store([slide], DataConfig(), MINI.input).sections[0]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.4])
def test_niches_of_both_sides_share_no_spot(stored, share):
    part = hold_out(stored, share, np.random.default_rng(1))
    assert len(part.held) == round(share * len(stored.rows))
    together = np.concatenate([part.train, part.held, part.rim])
    np.testing.assert_array_equal(np.sort(together), stored.rows)
    niches = stored.reader.graph.toarray() > 0
    np.fill_diagonal(niches, val=True)
    assert not (niches[part.train].astype(int) @ niches[part.held].T).any()
    wide = stored.reader.expression.graph.toarray() > 0
    assert wide.sum() > niches.sum()  # the Gaussian reaches further
    assert not wide[np.ix_(part.train, part.held)].any() and not wide[np.ix_(part.held, part.train)].any()
    for spot in part.rim:  # none is left out without a reason
        near = (niches[spot] & niches[part.held]).any() or wide[spot, part.held].any() or wide[part.held, spot].any()
        assert near


def test_a_neighbourhood_is_a_spot_and_those_nearest(stored):
    part = hold_out(stored, 0.1, np.random.default_rng(0))
    coords = stored.reader.coords[stored.rows]
    distance = ((coords - part.centres[0]) ** 2).sum(axis=1)
    inside = np.isin(stored.rows, part.held)
    assert distance[inside].max() <= distance[~inside].min()


def test_large_sections_have_several_and_the_seed_says_which():
    side = 60
    y, x = np.divmod(np.arange(side * side), side)
    coords = np.column_stack([x, y]).astype(float)
    reader = _Reader(coords, sp.identity(side * side, format="csr"))
    stored = _Stored(reader, np.arange(side * side))
    a, b, c = (hold_out(stored, 0.1, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert len(a.centres) == 4 and len(a.held) == 360 and not len(a.rim)
    np.testing.assert_array_equal(a.held, b.held)
    assert not np.array_equal(a.held, c.held)
    assert hold_out(_Stored(reader, np.arange(200)), 0.1, np.random.default_rng(0)).held.max() < 200


class _Reader:
    """What `hold_out` asks of a section."""

    def __init__(self, coords, graph):
        self.section, self.graph, self.expression = self, graph, None
        self.coords = coords

    def __len__(self):
        return len(self.coords)


class _Stored:
    def __init__(self, reader, rows):
        self.reader, self.rows = reader, rows
