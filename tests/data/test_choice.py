from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from stalign.data.choice import Candidate, choose
from stalign.datasets import toy

MASK = np.full((64, 64, 3), [200, 30, 30], np.uint8)


@dataclass
class Picture:
    pixels: np.ndarray = field(repr=False)

    def thumbnail(self, side):
        return self.pixels[:side, :side], 1.0


@pytest.fixture(scope="module")
def stained():
    return Picture(toy(n_rows=8).uns["spatial"]["toy"]["images"]["hires"])


def candidate(name, picture, kind="", base=""):
    return Candidate(name, lambda: picture, kind=kind, base=base or name)


def test_the_one_of_two_pictures_whose_pixels_can_be_stained_tissue(stained):
    he, mask = candidate("he", stained), candidate("other", Picture(MASK))
    assert choose([he, mask], "s") is stained
    assert choose([mask, he], "s") is stained


def test_two_pictures_that_can_both_be_it_are_refused_without_those_that_cannot(stained):
    three = [candidate("he", stained), candidate("mask", Picture(MASK)), candidate("again", stained)]
    with pytest.raises(ValueError, match=r"Available: 'he', 'again'\. Pass `image_key="):
        choose(three, "s")


def test_two_pictures_that_can_both_not_be_it_are_refused():
    with pytest.raises(ValueError, match=r"Available: 'a', 'b'\. Pass `image_key="):
        choose([candidate("a", Picture(MASK)), candidate("b", Picture(MASK))], "s")


def test_a_coarser_image_where_the_finest_cannot_be_it(stained):
    both = [candidate("hires", Picture(MASK), "hires", "s"), candidate("lowres", stained, "lowres", "s")]
    assert choose(both, "s") is stained
    alone = Picture(MASK)
    with pytest.warns(UserWarning, match="'hires' of section 's' to be an H&E image"):
        assert choose([candidate("hires", alone, "hires", "s")], "s") is alone
