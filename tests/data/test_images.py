from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from stalign.core.patches import cut
from stalign.data import images
from stalign.data.images import SectionImage
from stalign.data.tiles import Tiles, halve

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (90, 120, 3), dtype=np.uint8)
WINDOWS = np.array([[-5.5, -7.0, 20.0, 18.5], [30.2, 40.7, 58.2, 68.7], [100.0, 70.0, 130.0, 100.0], [0.0, 0, 120, 90]])


def reference(windows=WINDOWS, size=14):
    """Patches of an 8-bit image in memory."""
    return section(PIXELS).patches(windows, size)


def section(source, shape=(90, 120), **options):
    return SectionImage("hires", source, 1.0, (0.0, 0.0), 1.0, shape, **options)


def stored(path, pixels=PIXELS, **options):
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.mark.parametrize("kind", ["uint8", "float", "float255", "uint16", "channels first", "dask", "xarray", "zarr"])
def test_every_storage_gives_the_same_patches(kind):
    options = {}
    source = PIXELS
    if kind == "float":
        source = PIXELS.astype(np.float32) / 255
    elif kind == "float255":
        source = PIXELS.astype(np.float64)
    elif kind == "uint16":
        source = PIXELS.astype(np.uint16) * 257
    elif kind != "uint8":
        source, options = np.moveaxis(PIXELS, -1, 0).copy(), {"channels_first": True}
        if kind == "dask":
            import dask.array

            source = dask.array.from_array(source, chunks=(3, 32, 32))
        elif kind == "xarray":
            import xarray

            source = xarray.DataArray(source, dims=("c", "y", "x"))
        elif kind == "zarr":
            import zarr

            source = zarr.array(source, chunks=(3, 32, 32))
    np.testing.assert_array_equal(section(source, **options).patches(WINDOWS, 14), reference())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_an_image_too_large_for_memory_is_read_in_tiles_with_the_same_result(monkeypatch, dtype):
    factor = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    source = np.moveaxis((PIXELS.astype(np.float64) * factor).astype(dtype), -1, 0)
    monkeypatch.setattr(images, "_IN_MEMORY", 1000)
    image = section(source, channels_first=True)
    np.testing.assert_array_equal(image.patches(WINDOWS, 14), reference())
    assert image._rgb is None
    small, factor = image.thumbnail(30)
    assert small.shape == (22, 30, 3)
    assert factor == 0.25


def test_small_windows_are_cut_as_they_are_and_large_ones_from_halved_copies():
    np.testing.assert_array_equal(reference(WINDOWS[:3]), cut(PIXELS, WINDOWS[:3], 14))
    smooth = np.asarray(Image.fromarray(PIXELS[:12, :15]).resize((121, 91), Image.Resampling.BICUBIC))
    windows = np.array([[3.0, 2.0, 119.0, 90.0], [0.0, 0.0, 121.0, 91.0]])
    large = section(smooth, (91, 121)).patches(windows, 5)
    difference = np.abs(large.astype(int) - cut(smooth, windows, 5))
    assert difference.mean() < 2  # of a spread of 30 grey levels
    assert difference.max() <= 12  # at the border, whose odd last row counts twice
    alone = section(smooth, (91, 121)).patches(windows[1:], 5)
    np.testing.assert_array_equal(alone[0], large[1])


def test_halving_in_tiles_is_halving_of_the_whole():
    odd = PIXELS[:89, :119]
    tiles = Tiles((89, 119), lambda y0, y1, x0, x1: odd[y0:y1, x0:x1], budget=10**6, edge=16)
    once = halve(odd)
    assert once.shape == (45, 60, 3)
    np.testing.assert_array_equal(once[0, 0], np.floor(odd[:2, :2].astype(float).mean(axis=(0, 1)) + 0.5))
    np.testing.assert_array_equal(tiles.halved()[0:45, 0:60], once)
    np.testing.assert_array_equal(tiles.halved().halved()[0:23, 0:30], halve(once))


def test_windows_in_reading_order_read_each_tile_once(monkeypatch):
    reads = []

    class Slow:
        shape, dtype = (3, 5000, 7000), np.dtype(np.uint8)

        def __getitem__(self, where):
            reads.append((where[1].start, where[2].start))
            return np.zeros([3, *(part.stop - part.start for part in where[1:])], np.uint8)

    rng = np.random.default_rng(0)
    corner = rng.random((300, 2)) * [6900, 4900]
    corner = corner[((corner % 2048 > 90) & (corner % 2048 < 1900)).all(axis=1)]
    windows = np.hstack([corner, corner + 50])
    image = section(Slow(), (5000, 7000), channels_first=True)
    np.testing.assert_array_equal(image.reading_order(windows), np.arange(len(windows)))
    monkeypatch.setattr(images, "_IN_MEMORY", 3 * 2048**2)  # one tile
    order = image.reading_order(windows)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(windows)))
    for start in range(0, len(order), 16):
        image.patches(windows[order[start : start + 16]], 28)
    assert len(reads) == len(set(reads)) == 12


def test_large_windows_in_reading_order_read_each_tile_a_few_times(monkeypatch):
    pixels, reads = RNG.integers(0, 256, (1024, 1024, 3), dtype=np.uint8), []

    class Slow:
        shape, dtype = pixels.shape, pixels.dtype

        def __getitem__(self, where):
            reads.append((where[0].start, where[1].start))
            return pixels[where]

    corner = np.random.default_rng(0).random((1000, 2)) * 1000
    windows = np.hstack([corner, corner + 39])
    expected = section(pixels, (1024, 1024)).patches(windows, 4)
    monkeypatch.setattr(images, "_IN_MEMORY", 1)
    monkeypatch.setattr(images, "EDGE", 128)
    image = section(Slow(), (1024, 1024))
    patches = np.empty_like(expected)
    order = image.reading_order(windows)
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        patches[rows] = image.patches(windows[rows], 4)
    np.testing.assert_array_equal(patches, expected)
    assert len(set(reads)) == 64
    assert len(reads) <= 2 * 64


def test_tiles_read_each_tile_once_and_keep_few():
    reads = []

    def read(y0, y1, x0, x1):
        reads.append((y0, x0))
        return PIXELS[y0:y1, x0:x1]

    tiles = Tiles((90, 120), read, budget=4 * 3 * 32**2, edge=32)
    np.testing.assert_array_equal(tiles[5:60, 10:60], PIXELS[5:60, 10:60])
    assert reads == [(0, 0), (0, 32), (32, 0), (32, 32)]
    np.testing.assert_array_equal(tiles[33:60, 33:60], PIXELS[33:60, 33:60])
    assert len(reads) == 4
    np.testing.assert_array_equal(tiles[0:90, 0:120], PIXELS)
    assert len(tiles._tiles) == 4


def test_a_lazy_image_is_read_chunk_by_chunk_and_converted_in_strips(monkeypatch):
    import dask.array

    reads = []

    def read(block_info=None):
        (top, bottom), (left, right) = block_info[None]["array-location"][1:]
        reads.append((top, left))
        return np.moveaxis(PIXELS, -1, 0)[:, top:bottom, left:right]

    source = dask.array.map_blocks(read, chunks=(3, (24, 24, 24, 18), (50, 70)), dtype=np.uint8, meta=np.empty(0, "u1"))
    monkeypatch.setattr(images, "EDGE", 30)
    np.testing.assert_array_equal(section(source, channels_first=True).pixels(), PIXELS)
    assert len(reads) == len(set(reads)) == 8


def test_reading_takes_little_more_memory_than_the_pixels(monkeypatch):
    monkeypatch.setattr(images, "EDGE", 64)
    deep = np.zeros((1000, 1000, 3), np.uint16)
    image = section(deep, (1000, 1000), white=65535.0)
    tracemalloc.start()
    image.pixels()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.8 * deep.size


def test_threads_can_share_tiles():
    tiles = Tiles((90, 120), lambda y0, y1, x0, x1: PIXELS[y0:y1, x0:x1], budget=0, edge=16)

    def work(seed):
        corners = np.random.default_rng(seed).integers(0, 60, (300, 2))
        return all(np.array_equal(tiles[y : y + 20, x : x + 20], PIXELS[y : y + 20, x : x + 20]) for y, x in corners)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert len(tiles._tiles) <= 4


def test_a_file_is_read_when_first_needed_and_only_once(tmp_path, monkeypatch):
    path = stored(tmp_path / "a.png")
    image = section(path)
    assert image._rgb is None
    np.testing.assert_array_equal(image.patches(WINDOWS, 14), reference())
    path.unlink()
    np.testing.assert_array_equal(image.pixels(), PIXELS)


def test_windows_must_be_finite_and_coordinates_become_pixels():
    image = SectionImage("a", PIXELS, 0.5, (3.0, -1.0), 2.0, (90, 120))
    np.testing.assert_array_equal(image.to_pixels(np.array([[10.0, 20.0]])), [[8.0, 9.0]])
    with pytest.raises(ValueError, match="1 of 2"):
        image.patches(np.array([[0.0, 0, 1, 1], [np.nan] * 4]), 4)


TURNS = [((a, 0), (0, b)) for a in (1, -1) for b in (1, -1)] + [((0, a), (b, 0)) for a in (1, -1) for b in (1, -1)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_image_gives_the_turned_patches(turn):
    upright = section(PIXELS)
    linear = np.array(turn)
    turned = PIXELS if turn[0][0] else PIXELS.swapaxes(0, 1)
    turned = np.ascontiguousarray(turned[:: linear[1].sum(), :: linear[0].sum()])
    height, width = turned.shape[:2]
    offset = np.where(linear.sum(axis=1) < 0, [width, height], 0).astype(float)
    image = SectionImage("a", turned, 1.0, tuple(offset), 1.0, (height, width), turn=turn)
    boxes = np.array([[3.0, 5.0, 31.0, 33.0], [60.5, 40.25, 88.5, 68.25], [np.nan] * 4])
    windows = image.to_windows(boxes)
    assert np.isnan(windows[2]).all()
    assert (windows[:2, 2:] > windows[:2, :2]).all()
    patches = image.patches(windows[:2], 28)
    for found, expected in zip(patches, upright.patches(boxes[:2], 28), strict=True):
        assert np.abs(image.along_coords(found).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(image.along_coords(image.pixels()), PIXELS)
    points = np.array([[10.0, 20.0], [0.5, 0.5]])
    np.testing.assert_allclose(image.to_coords(image.to_pixels(points)), points)
    x, y = np.floor(image.to_pixels(points[1:])[0]).astype(int)
    np.testing.assert_array_equal(turned[y, x], PIXELS[0, 0])


def test_scale_and_offset_of_a_turned_image():
    image = SectionImage("a", PIXELS, 0.5, (3.0, -1.0), 2.0, (90, 120), turn=np.array([[0.0, -1.0], [1.0, 0.0]]))
    assert image.turn == ((0, -1), (1, 0))
    np.testing.assert_array_equal(image.to_pixels(np.array([[10.0, 20.0]])), [[-7.0, 4.0]])
    np.testing.assert_array_equal(image.to_windows(np.array([[10.0, 20.0, 12.0, 26.0]])), [[-10.0, 4.0, -7.0, 5.0]])
    for bad in (((1, 1), (0, 1)), ((1, 0), (1, 0)), ((0.7, -0.7), (0.7, 0.7)), (1, 0), ((2, 0), (0, 2))):
        with pytest.raises(ValueError, match="turn by a multiple of 90"):
            section(PIXELS, turn=bad)


def test_channels_are_read_in_their_order():
    image = section(np.moveaxis(PIXELS[..., ::-1], -1, 0), channels_first=True, rgb=(2, 1, 0))
    np.testing.assert_array_equal(image.patches(WINDOWS, 14), reference())
    held = image.in_memory()
    np.testing.assert_array_equal(held.patches(WINDOWS, 14), reference())
    deep = section(PIXELS.astype(np.uint16) * 257).in_memory()
    np.testing.assert_array_equal(deep.patches(WINDOWS, 14), reference())
