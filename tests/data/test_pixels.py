from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stalign.data.image_files import level_sizes
from stalign.data.pixels import full_scale, read_file, stain_doubt, to_rgb

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


def test_the_guard_against_huge_images_stays_and_does_not_stop_png_and_jpeg(tmp_path, monkeypatch):
    paths = [stored(tmp_path / name) for name in ("a.png", "a.jpg", "a.tif", "a.bmp")]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for path in paths[:3]:
        assert read_file(path).shape == PIXELS.shape
        assert level_sizes(path) == [(90, 120)]
    with pytest.raises(ValueError, match=r"a\.bmp .too large for its format"):
        read_file(paths[3])
    assert Image.MAX_IMAGE_PIXELS == 100
    with pytest.raises(Image.DecompressionBombError):
        Image.open(paths[0])


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
    assert level_sizes(tmp_path / "a.tif") == [(90, 120), (45, 60), (22, 30)]
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


def test_the_range_of_lazy_pixels_is_found_in_strips():
    import zarr

    deep = np.zeros((3000, 8, 3), np.uint16)
    deep[2999, 7, 1] = 4000
    assert full_scale(zarr.array(deep, chunks=(500, 8, 3))) == 4095
    assert full_scale(zarr.array(np.moveaxis(deep, -1, 0), chunks=(3, 500, 8))) == 4095


def test_channels_are_taken_in_the_order_that_is_given():
    np.testing.assert_array_equal(to_rgb(PIXELS, 255.0, (2, 1, 0)), PIXELS[..., ::-1])
    alpha = np.dstack([np.full((90, 120), 51, np.uint8), PIXELS])
    np.testing.assert_array_equal(to_rgb(alpha, 255.0, (1, 2, 3)), to_rgb(np.roll(alpha, -1, axis=-1), 255.0))
    many = np.dstack([PIXELS, PIXELS])
    np.testing.assert_array_equal(to_rgb(many, 255.0, (5, 0, 1)), many[..., [5, 0, 1]])
    with pytest.raises(ValueError, match="red, green and blue"):
        to_rgb(PIXELS, 255.0, (0, 1, 3))


def blobs(n=40, size=200, seed=0):
    """Soft discs of random brightness on black, (size, size), 0 to 1."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    image = np.zeros((size, size))
    for cx, cy, radius, light in zip(
        *rng.random((2, n)) * size, rng.uniform(4, 12, n), rng.uniform(0.3, 1, n), strict=True
    ):
        image += light / (1 + np.exp(np.hypot(x - cx, y - cy) - radius))
    return image.clip(0, 1)


def dyed(colours, background=0.0, n=40):
    """Fluorescence: one set of discs for each dye, with camera noise."""
    image = sum(blobs(n, seed=i)[..., None] * np.array(colour) for i, colour in enumerate(colours))
    noise = np.random.default_rng(1).normal(0, 0.01, image.shape)
    return (255 * (image + background + noise).clip(0, 1)).astype(np.uint8)


def tissue(background):
    """Pink discs of uneven texture on a background of one value."""
    shade = blobs(60)[..., None]
    colour = 255 - shade * np.array([60, 140, 80]) * np.random.default_rng(2).uniform(0.6, 1.2, (200, 200, 1))
    return np.where(shade > 0.1, colour, background).astype(np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        dyed([(0, 0, 1)]),
        dyed([(0, 1, 0)], background=0.08),
        dyed([(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
        dyed([(1, 0, 0), (0, 1, 0), (0, 0, 1)], background=0.1, n=100),
        dyed([(0, 0.6, 1), (1, 0, 0.7)]),
        dyed([(0, 0, 0.15)]),
        dyed([(0.1, 0.1, 1), (1, 1, 0)]),
        dyed([(0.8, 0.8, 0.8)]),
        dyed([(0, 0, 1)], n=400),
    ],
)
def test_fluorescence_is_in_doubt(image):
    assert stain_doubt(image)


def test_masks_and_grey_images_are_in_doubt():
    labels = (blobs() * 5).astype(np.uint8)
    grey = np.repeat(tissue(240).mean(axis=-1, keepdims=True).astype(np.uint8), 3, axis=-1)
    without = "without colour, as a mask or a single channel is"
    assert stain_doubt(grey) == without
    for mask, white in ((labels > 1, 1.0), (labels, 255.0), (labels, 5.0)):
        assert stain_doubt(to_rgb(mask, white)) == without
    palette = np.array([[255, 255, 255], [200, 30, 30], [30, 160, 60], [40, 60, 200], [240, 170, 20], [90, 30, 120]])
    painted = palette[labels].astype(np.uint8)
    smaller = np.asarray(Image.fromarray(painted).resize((150, 150), Image.Resampling.BILINEAR))
    for image in (painted, smaller):
        assert stain_doubt(image) == "painted in flat colours, as a mask is"
    for value in (0, 90, 255):
        assert stain_doubt(np.full((50, 50, 3), value, np.uint8))
    assert stain_doubt(PIXELS[:1, :1] * 0)


@pytest.mark.parametrize("background", [255, 235, 0])
def test_stained_tissue_is_in_no_doubt_whatever_its_background(background):
    image = tissue(background)
    assert stain_doubt(image) == ""
    assert stain_doubt(image[60:140, 60:140]) == ""
    brown = np.where(blobs(50, seed=5)[..., None] > 0.3, [110, 70, 45], image)  # as in immunohistochemistry
    brown = (brown * np.random.default_rng(3).uniform(0.8, 1, brown.shape[:2])[..., None]).astype(np.uint8)
    assert stain_doubt(brown) == ""
    if background:
        assert stain_doubt(255 - ((255 - image) * 0.2).astype(np.uint8)) == ""  # faded


def test_the_toy_image_is_in_no_doubt():
    import stalign

    (entry,) = stalign.datasets.toy(10).uns["spatial"].values()
    assert all(stain_doubt(image) == "" for image in entry["images"].values())


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:.*decompression bomb")
def test_images_of_real_sections_are_in_no_doubt(shared_data):
    paths = sorted([*shared_data.rglob("*.jpg"), *shared_data.rglob("*.png")])
    assert len(paths) > 10
    for path in paths:
        with Image.open(path) as image:
            image.draft("RGB", (512, 512))
            image.thumbnail((256, 256))
            assert stain_doubt(np.asarray(image.convert("RGB"))) == "", path


@pytest.mark.parametrize("kind", ["U3", "complex64", "datetime64[s]", "O"])
def test_what_holds_no_pixels_is_refused(kind):
    with pytest.raises(ValueError, match="Expected an image to hold pixels. Found: values of"):
        full_scale(np.ones((4, 4, 3), np.uint8).astype(kind))
