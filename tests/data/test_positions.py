from __future__ import annotations

import numpy as np
import pytest

from stalign.data import open_sections
from stalign.data.positions import positions
from stalign.datasets import toy


@pytest.mark.parametrize("kind", ["complex128", "datetime64[s]", "timedelta64[s]"])
def test_positions_that_are_no_real_numbers_are_refused(kind):
    adata = toy(n_rows=8)
    adata.obsm["spatial"] = adata.obsm["spatial"].astype(kind)
    with pytest.raises(ValueError, match=r"Expected numbers in obsm\['spatial'\]\. Found: values of"):
        positions(adata, np.arange(adata.n_obs), "toy")


def test_spots_that_are_all_in_one_place_are_warned_about():
    adata = toy(n_rows=8)
    adata.obsm["spatial"][:] = 5.0
    (section,) = open_sections(adata, image=False)
    with pytest.warns(UserWarning, match="spots of section 'toy' at different places. Found: all .* in one place"):
        section.positions  # noqa: B018  # read when it is first asked for
