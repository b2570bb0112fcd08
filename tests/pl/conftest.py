"""Figures are drawn without a screen and closed after each test."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    from matplotlib import pyplot as plt

    yield
    plt.close("all")


@pytest.fixture
def pixels():
    """Draw a figure and give its pixels, (height, width, 3) uint8."""

    def draw(figure):
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()

    return draw


@pytest.fixture
def share():
    """Share of pixels within a tolerance of a colour."""
    from matplotlib.colors import to_rgb

    def count(image, color, tolerance=12):
        wanted = np.array(to_rgb(color)) * 255
        return float((np.abs(image.astype(float) - wanted).max(axis=-1) <= tolerance).mean())

    return count
