from __future__ import annotations

import numpy as np
import pytest

from stalign._settings import seed_of, settings
from stalign._validate import opacity, positive, whole


def test_whole_numbers():
    assert whole(np.int64(3), name="n") == 3
    for value in (2.5, "three", True, None):
        with pytest.raises(TypeError, match=r"^Expected `n` to be a whole number\. Found: "):
            whole(value, name="n")
    with pytest.raises(ValueError, match=r"^Expected `n` to be at least 2\. Found: 1"):
        whole(1, name="n", least=2)


def test_positive_numbers():
    assert positive(np.float32(0.5), name="mpp") == 0.5
    for value in (0, -1.0, np.nan, np.inf, "one", [1.0], True, None):
        with pytest.raises(ValueError, match=r"^Expected `mpp` to be a positive number of µm\. Found: "):
            positive(value, name="mpp", unit="µm")


def test_opacities():
    assert (opacity(True, name="image"), opacity(0.5, name="image")) == (1.0, 0.5)
    for value in ("no", -0.1, 1.5, np.nan, None):
        with pytest.raises(ValueError, match="`image` to be True, False or an opacity from 0 to 1"):
            opacity(value, name="image")


def test_seeds():
    assert (seed_of(7), seed_of(None)) == (7, settings.seed)
    with pytest.raises(ValueError, match="`random_state` to be at least 0"):
        seed_of(-1)
