"""The palette can be told apart by readers with any colour vision, on light and dark ground."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from stalign.core.palette import palette

# Full deuteranopia and protanopia on linear RGB (Machado, Oliveira and Fernandes 2009, table 1)
VISION = {
    "normal": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


def lab(rgb, matrix):
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ matrix.T, 0, 1)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = seen @ to_xyz.T / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize(("n", "least"), [(12, 16), (24, 13)])
def test_colours_stay_apart(vision, n, least):
    colors = lab(np.array([to_rgb(color) for color in palette(n)]), VISION[vision])
    distance = np.linalg.norm(colors[:, None] - colors[None], axis=-1)
    assert distance[~np.eye(n, dtype=bool)].min() > least


def test_colours_can_be_seen_on_black_on_white_and_on_eosin():
    colors = lab(np.array([to_rgb(color) for color in palette(24)]), VISION["normal"])
    assert (colors[:, 0] > 25).all() and (colors[:, 0] < 92).all()
    eosin = lab(np.array([[230, 169, 201]]) / 255, VISION["normal"])
    assert np.linalg.norm(colors[:12] - eosin, axis=1).min() > 30


def test_longer_palettes_begin_with_shorter_ones_and_never_repeat():
    assert palette(40)[:7] == palette(7) and len(set(palette(60))) == 60
