from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from stalign.core.patches import cut, niche_windows_um, spot_windows_um

_RNG = np.random.default_rng(0)
_HEIGHT, _WIDTH = 300, 420
_NOISE = _RNG.integers(0, 256, (_HEIGHT, _WIDTH, 3), dtype=np.uint8)


def inside(count, low, high, *, height=_HEIGHT, width=_WIDTH, seed=1):
    """Windows of random sides from `low` to `high` px that lie in the image."""
    rng = np.random.default_rng(seed)
    side = rng.uniform(low, high, (count, 2))
    corner = rng.random((count, 2)) * (np.array([width, height]) - side)
    return np.concatenate([corner, corner + side], axis=1)


def pil(image, windows, size):
    picture = Image.fromarray(image)
    return np.stack(
        [
            np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=tuple(window), reducing_gap=None))
            for window in windows
        ]
    )


def literal(image, window, size):
    """One patch, pixel by pixel, in double precision; the border is repeated if the window reaches outside."""
    height, width, channels = image.shape
    x0, y0, x1, y1 = window
    if min(x0, y0) < 0 or x1 > width or y1 > height:
        image = np.pad(image, ((128, 128), (128, 128), (0, 0)), mode="edge")
        return literal(image, np.add(window, 128), size)

    def taps(low, high, length):
        step = (high - low) / size
        for out in range(size):
            centre = low + (out + 0.5) * step
            weights = np.maximum(0, 1 - np.abs(np.arange(length) + 0.5 - centre) / max(step, 1))
            yield weights / weights.sum()

    rows, columns = np.array(list(taps(y0, y1, height))), np.array(list(taps(x0, x1, width)))
    return np.stack([rows @ image[:, :, c].astype(float) @ columns.T for c in range(channels)], axis=-1)


@pytest.mark.parametrize(
    ("low", "high", "size"),
    [(40, 40, 28), (39, 41, 28), (28, 28, 28), (5, 280, 28), (1, 3, 28), (3, 5, 1), (30, 60, 112), (100, 300, 7)],
)
def test_cut_resamples_as_pil(low, high, size):
    windows = inside(60, low, high)
    found, expected = cut(_NOISE, windows, size), pil(_NOISE, windows, size)
    assert found.dtype == np.uint8
    assert found.shape == (60, size, size, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1  # PIL rounds between its two passes
    assert abs(found.astype(float).mean() - expected.mean()) < 0.1


def test_cut_touching_the_border_resamples_as_pil():
    windows = np.array([[0, 0, 40, 40], [_WIDTH - 40, _HEIGHT - 40, _WIDTH, _HEIGHT], [0, 0, _WIDTH, _HEIGHT]])
    assert np.abs(cut(_NOISE, windows, 28).astype(int) - pil(_NOISE, windows, 28)).max() <= 1


def test_cut_at_native_size_copies_pixels():
    windows = np.array([[10.0, 20.0, 38.0, 48.0], [0.0, 0.0, 28.0, 28.0]])
    np.testing.assert_array_equal(cut(_NOISE, windows, 28), [_NOISE[20:48, 10:38], _NOISE[:28, :28]])


def test_cut_is_antialiased():
    stripes = np.zeros((64, 64, 1), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert set(np.unique(cut(stripes, np.array([[8.0, 8.0, 56.0, 56.0]]), 8))) <= {127, 128}


@pytest.mark.parametrize("channels", [1, 3])
def test_cut_beyond_the_border_is_literal(channels):
    image = _RNG.integers(0, 256, (30, 40, channels), dtype=np.uint8)
    windows = np.array(
        [
            [-10, -8, 14, 16],
            [30, 20, 54, 44],
            [-30, 5, -6, 29],
            [100, 100, 110, 110],
            [-50, -50, 90, 80],
            [38, -1, 41, 2],
        ]
    ).astype(float)
    for window, found in zip(windows, cut(image, windows, 12), strict=True):
        assert np.abs(found - literal(image, window, 12)).max() <= 1.01


def test_cut_outside_the_image_repeats_its_border():
    image = np.full((20, 20, 3), 7, dtype=np.uint8)
    image[:, -1] = 99
    found = cut(image, np.array([[30.0, 0.0, 40.0, 10.0], [-40.0, -40.0, -20.0, -20.0]]), 5)
    assert (found[0] == 99).all()
    assert (found[1] == 7).all()


@pytest.mark.parametrize("side", [0.0, 1e-9, 0.3, 1.0])
def test_cut_of_a_vanishing_window_is_one_pixel(side):
    window = np.array([[10.5 - side / 2, 20.5 - side / 2, 10.5 + side / 2, 20.5 + side / 2]])
    found = cut(_NOISE, window, 4)
    np.testing.assert_array_equal(found, cut(_NOISE, np.array([[10.0, 20.0, 11.0, 21.0]]), 4))
    assert np.abs(found[0] - literal(_NOISE, (10, 20, 11, 21), 4)).max() <= 1.01


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 50, 3), (50, 1, 3), (3, 3, 3)])
def test_cut_from_a_tiny_image(shape):
    image = _RNG.integers(0, 256, shape, dtype=np.uint8)
    window = (-4.0, -3.0, 9.0, 11.0)
    assert np.abs(cut(image, np.array([window]), 6)[0] - literal(image, window, 6)).max() <= 1.01


def test_a_patch_does_not_depend_on_the_others():
    windows = np.concatenate([inside(40, 30, 120), inside(40, 40, 40), [[0, 0, _WIDTH, _HEIGHT]]])
    together = cut(_NOISE, windows, 28)
    np.testing.assert_array_equal(together, np.concatenate([cut(_NOISE, windows[[i]], 28) for i in range(81)]))
    order = np.random.default_rng(0).permutation(81)
    np.testing.assert_array_equal(cut(_NOISE, windows[order], 28), together[order])


class Lazy:
    """An array that counts what is read from it, and refuses to be read as a whole."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, []

    def __getitem__(self, key):
        part = self.array[key]
        self.read.append(part.shape[0] * part.shape[1])
        return part


def test_cut_from_a_lazy_image_is_the_same_and_reads_regions():
    image = _RNG.integers(0, 256, (1500, 2000, 3), dtype=np.uint8)
    windows = inside(300, 20, 90, height=1500, width=2000)
    lazy = Lazy(image)
    found = cut(lazy, windows, 28)
    np.testing.assert_array_equal(found, cut(image, windows, 28))
    assert max(lazy.read) <= (90 + 2 * 6) ** 2


def test_cut_from_dask_zarr_and_h5py(tmp_path):
    dask_array, zarr, h5py = (pytest.importorskip(name) for name in ("dask.array", "zarr", "h5py"))
    windows = np.concatenate([inside(20, 20, 90), [[-20.0, -20.0, 30.0, 30.0]]])
    expected = cut(_NOISE, windows, 16)
    np.testing.assert_array_equal(cut(dask_array.from_array(_NOISE, chunks=(64, 64, 3)), windows, 16), expected)
    np.testing.assert_array_equal(cut(zarr.array(_NOISE, chunks=(64, 64, 3)), windows, 16), expected)
    with h5py.File(tmp_path / "image.h5", "w") as file:
        np.testing.assert_array_equal(cut(file.create_dataset("image", data=_NOISE), windows, 16), expected)
    read_only = np.memmap(tmp_path / "image.raw", dtype=np.uint8, mode="w+", shape=_NOISE.shape)
    read_only[:] = _NOISE
    np.testing.assert_array_equal(cut(read_only, windows, 16), expected)


def test_cut_of_no_window():
    assert cut(_NOISE, np.zeros((0, 4)), 28).shape == (0, 28, 28, 3)


@pytest.mark.parametrize(
    ("image", "windows", "size", "match"),
    [
        (_NOISE, [[0, 0, np.nan, 5]], 28, "Expected finite windows. Found: 1"),
        (_NOISE, [[0, 0, np.inf, 5]], 28, "finite"),
        (_NOISE, [[5, 0, 0, 5]], 28, "x0 > x1"),
        (_NOISE, [[0, 0, 5]], 28, r"shape \(b, 4\)"),
        (_NOISE, [[0, 0, 5, 5]], 0, "at least 1 px"),
        (_NOISE[:, :, 0], [[0, 0, 5, 5]], 28, "height, width, channels"),
        (_NOISE.astype(float), [[0, 0, 5, 5]], 28, "uint8"),
        (_NOISE[:0], [[0, 0, 5, 5]], 28, "height, width, channels"),
        (np.dstack([_NOISE, _NOISE[..., 0]]), [[0, 0, 5, 5]], 28, "height, width, channels"),
    ],
)
def test_cut_rejects_what_it_cannot_use(image, windows, size, match):
    with pytest.raises(ValueError, match=match):
        cut(image, np.array(windows, dtype=float), size)


def test_cut_memory_is_bounded():
    image = np.zeros((3000, 3000, 3), dtype=np.uint8)
    windows = np.tile([[0.0, 0.0, 3000.0, 3000.0]], (8, 1))
    tracemalloc.start()
    cut(image, windows, 28)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6  # one window as uint8 is 27 MB; all eight as float32 would be 860 MB


def test_cut_is_fast():
    windows = inside(5000, 40, 40)
    cut(_NOISE, windows[:10], 28)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        cut(_NOISE, windows, 28)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 2  # about 0.2 s on one free core


def test_spot_windows():
    found = spot_windows_um(np.array([[100, 50], [np.nan, 3], [0, 0]]), 55)
    np.testing.assert_array_equal(found, [[72.5, 22.5, 127.5, 77.5], [np.nan] * 4, [-27.5, -27.5, 27.5, 27.5]])
    for diameter in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="diameter above 0"):
            spot_windows_um(np.zeros((1, 2)), diameter)
    with pytest.raises(ValueError, match=r"shape \(n, 2\)"):
        spot_windows_um(np.zeros((1, 3)), 55)


def test_niche_windows_bound_the_niche():
    coords = np.array([[0, 0], [100, 0], [50, 87], [500, 500], [np.nan, np.nan]])
    spots = spot_windows_um(coords, 55)
    neighbours = np.array([[1, 2], [0, -1], [4, 0], [-1, -1], [0, 1]])
    expected = [
        [-27.5, -27.5, 127.5, 114.5],
        [-27.5, -27.5, 127.5, 27.5],
        [-27.5, -27.5, 77.5, 114.5],  # the neighbour without coordinates is passed over
        [472.5, 472.5, 527.5, 527.5],
        [np.nan] * 4,
    ]
    np.testing.assert_array_equal(niche_windows_um(spots, neighbours), expected)
    np.testing.assert_array_equal(niche_windows_um(spots[:1], np.zeros((1, 0), dtype=int)), spots[:1])
    with pytest.raises(ValueError, match=r"shape \(5, k\)"):
        niche_windows_um(spots, neighbours[:3])
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        niche_windows_um(coords, neighbours)
