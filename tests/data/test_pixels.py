from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stalign.data.pixels import file_levels, full_scale, read_file, to_rgb

PIXELS = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


def stored(path, pixels=PIXELS, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


def test_suffixes_may_lie(tmp_path):
    path = stored(tmp_path / "a.png", format="TIFF")
    np.testing.assert_array_equal(read_file(path), PIXELS)
    with pytest.raises(ValueError, match="image file"):
        text = tmp_path / "b.png"
        text.write_text("no image")
        read_file(text)


def test_the_guard_against_huge_images_is_put_back(tmp_path, monkeypatch):
    path = stored(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_file(path).shape == PIXELS.shape
    assert file_levels(path) == [(90, 120)]
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


def test_modes_of_files(tmp_path):
    alpha = np.dstack([PIXELS, np.full((90, 120), 0, np.uint8)])
    assert (read_file(stored(tmp_path / "a.png", alpha)) == 255).all()
    grey = PIXELS[..., 0]
    np.testing.assert_array_equal(read_file(stored(tmp_path / "g.png", grey)), np.repeat(grey[..., None], 3, -1))
    deep = grey.astype(np.uint16) * 257
    np.testing.assert_array_equal(read_file(stored(tmp_path / "d.png", deep)), np.repeat(grey[..., None], 3, -1))
    Image.fromarray(PIXELS).quantize(8).save(tmp_path / "p.png")
    assert read_file(tmp_path / "p.png").shape == PIXELS.shape


def test_pages_of_a_pyramid(tmp_path):
    pages = [Image.fromarray(PIXELS).resize(size) for size in [(120, 90), (60, 45), (30, 22), (50, 90)]]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert file_levels(tmp_path / "a.tif") == [(90, 120), (45, 60), (22, 30)]
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif", 1), np.asarray(pages[1]))


def test_alpha_is_laid_over_white():
    half = np.full((1, 1, 4), [100, 0, 200, 51], np.uint8)  # 20 % opaque
    np.testing.assert_array_equal(to_rgb(half, 255.0)[0, 0], [224, 204, 244])
    np.testing.assert_array_equal(to_rgb(half / np.float32(255), 1.0)[0, 0], [224, 204, 244])


def test_full_scale_by_type_and_range():
    assert full_scale(np.array([0, 255], np.uint8)) == 255
    assert full_scale(np.array([0, 200], np.uint16)) == 255
    assert full_scale(np.array([0, 4000], np.uint16)) == 4095
    assert full_scale(np.array([0, 5000], np.uint16)) == 65535
    assert full_scale(np.array([0, 1.0])) == 1
    assert full_scale(np.array([0, 254.0])) == 255
    for bad in ([-0.1, 1.0], [0.0, 300.0], [0.0, np.nan]):
        with pytest.raises(ValueError, match="8 or 16 bits"):
            full_scale(np.array(bad))
    with pytest.raises(ValueError, match="1 to 4 channels"):
        to_rgb(np.zeros((2, 2, 5), np.uint8), 255.0)
