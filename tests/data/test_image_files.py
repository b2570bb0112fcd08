from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import tifffile
from PIL import Image

from stalign.data import image_files, images
from stalign.data.image_files import ImageFileError, level_sizes, open_level
from stalign.data.images import SectionImage
from stalign.data.pixels import read_file

_SMOOTH = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
PIXELS = np.asarray(Image.fromarray(_SMOOTH).resize((700, 500), Image.Resampling.BICUBIC))
TILES = {"tile": (128, 128), "compression": "jpeg", "compressionargs": {"level": 95}, "photometric": "rgb"}
WINDOWS = np.array([[-5.5, -7, 20, 18.5], [300.2, 240.7, 358.2, 298.7], [650, 450, 720, 520], [0, 0, 700, 500]])


def pyramid(path, kind):
    """A file of three levels, by the way in which it stores them."""
    levels = [PIXELS, PIXELS[::2, ::2], PIXELS[::4, ::4]]
    if kind == "svs":
        with tifffile.TiffWriter(path) as file:
            note = {"metadata": None, "description": "Aperio Image Library v1\n |AppMag = 20|MPP = 0.5"}
            file.write(levels[0], **TILES, **note)
            file.write(PIXELS[::10, ::10], photometric="rgb", metadata=None, description="Aperio thumbnail")
            for level in levels[1:]:
                file.write(level, **TILES, **note)
            file.write(PIXELS[:50, :80], photometric="rgb", subfiletype=1, metadata=None, description="Aperio label")
    elif kind == "pages":
        with tifffile.TiffWriter(path) as file:
            for level in levels:
                file.write(level, **TILES, metadata=None)
    else:
        with tifffile.TiffWriter(path, bigtiff=True, ome=kind == "ome") as file:
            file.write(levels[0], subifds=2, **TILES)
            for level in levels[1:]:
                file.write(level, subfiletype=1, **TILES)
    return path


def section(path, frame=0, **options):
    return SectionImage("a", path, 1.0, (0.0, 0.0), 1.0, level_sizes(path)[frame], frame=frame, **options)


@pytest.mark.parametrize("kind", ["ome", "btf", "svs", "pages"])
def test_levels_of_a_pyramid_however_it_is_stored(tmp_path, kind):
    path = pyramid(tmp_path / f"a.{kind}.tif", kind)
    assert level_sizes(path) == [(500, 700), (250, 350), (125, 175)]
    for frame, shrink in enumerate((1, 2, 4)):
        level = open_level(path, frame)
        assert level.shape == PIXELS[::shrink, ::shrink].shape
        assert np.abs(read_file(path, frame).astype(int) - PIXELS[::shrink, ::shrink]).mean() < 3
        np.testing.assert_array_equal(level[20:90, 30:100], read_file(path, frame)[20:90, 30:100])
    with pytest.raises(ValueError, match="can be read"):
        open_level(path, 3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib", "rowsperstrip": 16},
        {"compression": "lzw", "tile": (64, 64)},
        {"compression": "zlib", "tile": (64, 64), "planarconfig": "separate", "planes": True},
        {"tile": (64, 64), "ome": True, "planes": True, "photometric": "minisblack", "metadata": {"axes": "CYX"}},
        {"byteorder": ">", "factor": 257},
        {"compression": "zlib", "factor": 257, "tile": (64, 64)},
        {"bigtiff": True},
    ],
)
def test_every_kind_of_tiff_gives_the_same_patches(tmp_path, monkeypatch, options):
    options = {"photometric": "rgb"} | options
    pixels = np.moveaxis(PIXELS, -1, 0) if options.pop("planes", False) else PIXELS
    factor = options.pop("factor", 1)
    pixels = pixels if factor == 1 else pixels.astype(np.uint16) * factor
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, **options)
    expected = SectionImage("a", PIXELS, 1.0, (0.0, 0.0), 1.0, (500, 700)).patches(WINDOWS, 14)
    np.testing.assert_array_equal(section(path).patches(WINDOWS, 14), expected)
    np.testing.assert_array_equal(read_file(path), PIXELS)
    monkeypatch.setattr(images, "EDGE", 256)
    lazy = section(path, keep=1000)
    np.testing.assert_array_equal(lazy.patches(WINDOWS, 14), expected)
    assert lazy._rgb is None
    monkeypatch.setattr(image_files, "_WHOLE", 1000)  # in strips: by way of a temporary file
    np.testing.assert_array_equal(section(path, keep=1000).patches(WINDOWS, 14), expected)


@pytest.mark.parametrize("mode", ["P", "1", "CMYK", "L", "RGBA", "LA"])
def test_tiff_of_other_colours_is_read_as_pillow_reads_it(tmp_path, mode):
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "a.tif")
    plain = np.asarray(image.convert("L" if mode in {"1", "L", "LA"} else "RGB").convert("RGB"))
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif"), plain)


def test_the_first_of_equal_pages_is_read(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([PIXELS, 255 - PIXELS]), photometric="rgb")
    assert level_sizes(tmp_path / "a.tif") == [(500, 700)]
    np.testing.assert_array_equal(read_file(tmp_path / "a.tif"), PIXELS)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "grey.png", "grey.jpg", "alpha.png", "deep.png"])
def test_a_large_png_or_jpeg_is_decoded_to_a_file(tmp_path, monkeypatch, name):
    kind = name.split(".")[0]
    pixels = {"a": PIXELS, "grey": PIXELS[..., 0], "deep": PIXELS[..., 0].astype(np.uint16) * 257}.get(kind)
    pixels = np.dstack([PIXELS, PIXELS[..., 0]]) if pixels is None else pixels
    Image.fromarray(pixels).save(tmp_path / name)
    expected = read_file(tmp_path / name)
    patches = section(tmp_path / name).patches(WINDOWS, 14)
    monkeypatch.setattr(image_files, "_WHOLE", 1000)
    level = open_level(tmp_path / name)
    assert not isinstance(level, np.ndarray)
    assert np.abs(read_file(tmp_path / name).astype(int) - expected).max() <= 1
    monkeypatch.setattr(images, "EDGE", 256)
    assert np.abs(section(tmp_path / name, keep=1000).patches(WINDOWS, 14).astype(int) - patches).max() <= 1


def test_a_large_jpeg_has_smaller_levels(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS[:499, :]).save(path, quality=95)
    assert level_sizes(path) == [(499, 700)]
    monkeypatch.setattr(image_files, "_WHOLE", 200 * 300)
    assert level_sizes(path) == [(499, 700), (125, 175), (63, 88)]
    for frame, shrink in ((1, 4), (2, 8)):
        level = open_level(path, frame)
        assert level.shape[:2] == level_sizes(path)[frame]
        expected = np.asarray(Image.fromarray(PIXELS[:499]).resize(level.shape[1::-1], Image.Resampling.BOX))
        assert np.abs(level.astype(int) - expected)[:-1, :-1].mean() < 4, shrink


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "tiles.tif", "strips.tif", "plain.tif", "a.svs"])
@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_file_gives_one_error_that_names_it(tmp_path, monkeypatch, name, large):
    if name.endswith(("png", "jpg")):
        Image.fromarray(PIXELS).save(tmp_path / name)
    elif name == "a.svs":
        pyramid(tmp_path / name, "svs")
    else:
        options = {"tiles.tif": TILES, "strips.tif": {"compression": "zlib", "rowsperstrip": 16}}.get(name, {})
        tifffile.imwrite(tmp_path / name, PIXELS, **{"photometric": "rgb"} | options)
    whole = (tmp_path / name).read_bytes()
    if large:
        monkeypatch.setattr(image_files, "_WHOLE", 1000)
    path = tmp_path / f"cut_{name}"
    for share in (0, 1e-5, 1e-4, 0.01, 0.3, 0.5 if name == "a.svs" else 0.9):
        path.write_bytes(whole[: int(len(whole) * share) + (share > 0)])
        with pytest.raises(ImageFileError, match=rf"can be read\. Found: .*cut_{name} \(.+\)\. It is cut short"):
            section(path, keep=1000 if large else None).patches(WINDOWS, 14)
        with pytest.raises(ImageFileError, match=f"cut_{name}"):
            read_file(path)


@pytest.mark.parametrize(
    "content", [b"no image at all", b"\x89HDF\r\n\x1a\n" + bytes(600), b"{}", b"II*\0" + bytes(99)]
)
def test_a_file_that_is_no_image_says_so(tmp_path, content):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    for function in (level_sizes, open_level, read_file):
        with pytest.raises(ImageFileError, match=r"a\.tif \(.+\)\. It is cut short, damaged or of a kind"):
            function(path)
    with pytest.raises(FileNotFoundError):
        level_sizes(tmp_path / "none.tif")


def test_only_the_tiles_of_a_region_are_decoded(tmp_path, monkeypatch):
    import imagecodecs

    decoded = []
    path = pyramid(tmp_path / "a.tif", "ome")
    level = open_level(path)
    decode = imagecodecs.jpeg_decode
    monkeypatch.setattr("imagecodecs.jpeg_decode", lambda *args, **more: decoded.append(1) or decode(*args, **more))
    level[130:250, 10:120]
    assert len(decoded) == 1


def test_a_thumbnail_of_a_large_file_is_made_of_a_coarse_level(tmp_path):
    path = pyramid(tmp_path / "a.tif", "ome")
    image = section(path, keep=1000)
    small, factor = image.thumbnail(60)
    assert small.shape == (43, 60, 3)
    assert factor == pytest.approx(60 / 700)
    assert image._opened is None
    expected = section(path).thumbnail(60)[0]
    assert np.abs(small.astype(int) - expected).mean() < 12


def test_an_open_image_can_be_sent_to_another_process_or_forked(tmp_path):
    image = section(pyramid(tmp_path / "a.tif", "ome"), keep=1000)
    expected = image.patches(WINDOWS, 14)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).patches(WINDOWS, 14), expected)
    level = image._array()
    opened = level._opened
    level._opened = (os.getpid() + 1, None)  # as in a child: it opens the file for itself
    np.testing.assert_array_equal(level[0:50, 0:50], read_file(image.source)[:50, :50])
    assert level._opened[1] is not opened[1]


def test_the_pixels_of_a_large_file_go_to_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "EDGE", 128)
    path = pyramid(tmp_path / "a.tif", "ome")
    image = section(path, keep=1000)
    assert image.lazy
    held = image.in_memory()
    assert isinstance(held.source, np.memmap)
    assert not held.lazy
    np.testing.assert_array_equal(held.pixels(), read_file(path))
