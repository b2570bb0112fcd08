from __future__ import annotations

import numpy as np
import pytest

from stalign.core.tissue import covered, find_tissue, make_grid

PINK, GLASS = (200, 120, 170), (244, 243, 245)


@pytest.fixture
def scene():
    """A slide of 300 x 400 px at 8 µm: tissue with a small and a large hole, crumbs, and glass."""
    rng = np.random.default_rng(0)
    image = np.full((300, 400, 3), GLASS, dtype=np.float64)
    image[60:240, 80:280] = PINK
    image[100:110, 100:110] = GLASS  # 80 µm: filled
    image[150:210, 180:250] = GLASS  # 480 x 560 µm: stays
    image[20:24, 350:354] = PINK  # a crumb
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def truth():
    mask = np.zeros((300, 400), dtype=bool)
    mask[60:240, 80:280] = True
    mask[150:210, 180:250] = False
    return mask


def test_tissue_with_its_holes(scene):
    found = find_tissue(scene, 8.0)
    assert (found.mask != truth()).mean() < 0.02
    assert found.mask[105, 105] and not found.mask[180, 215] and not found.mask[22, 352]
    assert not found.ink.any() and 0.05 <= found.threshold <= 0.2


@pytest.mark.parametrize("color", [(20, 150, 60), (30, 60, 200), (215, 25, 30), (15, 15, 18)])
def test_pens_are_no_tissue(scene, color):
    scene[250:290, 20:380] = color  # beside the tissue
    scene[60:240, 270:290] = color  # and over its edge
    found = find_tissue(scene, 8.0)
    assert not found.mask[270, 200] and not found.mask[150, 280]
    assert found.mask[150, 100]
    assert found.ink.any() == (max(color) > 20)  # black is dark, which is no ink


def test_tinted_glass(scene):
    tinted = (scene * np.array([179, 187, 149]) / 245).astype(np.uint8)
    assert (find_tissue(tinted, 8.0).mask != truth()).mean() < 0.02


def test_glass_alone_and_tissue_alone():
    rng = np.random.default_rng(0)
    glass = np.clip(np.array(GLASS) + rng.normal(0, 2, (100, 100, 3)), 0, 255).astype(np.uint8)
    assert not find_tissue(glass, 8.0).mask.any()
    assert not find_tissue(np.zeros((100, 100, 3), np.uint8), 8.0).mask.any()
    rough = np.clip(np.array(PINK) + rng.normal(0, 30, (100, 100, 3)), 0, 255).astype(np.uint8)
    assert find_tissue(rough, 8.0).mask.mean() > 0.95


def test_grids_have_their_pitch_and_stay_inside():
    from scipy.spatial import cKDTree

    for kind, pitch in (("visium", 100.0), (25, 25.0), (30.5, 30.5)):
        found = make_grid(kind, 1000.0, 700.0, origin=(10.0, 20.0))
        nearest = cKDTree(found.coords).query(found.coords, k=2)[0][:, 1]
        np.testing.assert_allclose(nearest, pitch, rtol=1e-6)
        assert (found.coords >= np.array([10, 20]) + pitch / 2 - 1e-6).all()
        assert (found.coords <= np.array([1010, 720]) - pitch / 2 + 1e-6).all()
        assert len(np.unique(found.array, axis=0)) == len(found.array)
    hexagonal = make_grid("visium", 1000.0, 700.0)
    assert not (hexagonal.array.sum(axis=1) % 2).any() and hexagonal.spot_um == 55
    assert len(make_grid(2000, 1000.0, 700.0).coords) == 0
    for wrong in ("hex", 0, -5, np.nan, np.inf, True, None):
        with pytest.raises(ValueError, match="visium"):
            make_grid(wrong, 10.0, 10.0)


def test_share_of_a_spot_on_tissue():
    mask = np.zeros((40, 40), dtype=bool)
    mask[:, 20:] = True
    share = covered(mask, np.array([[5.5, 20.5], [20.5, 20.5], [35.5, 20.5]]), 9.0)
    np.testing.assert_allclose(share, [0.0, 5 / 9, 1.0], atol=1e-6)
