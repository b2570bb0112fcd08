from __future__ import annotations

import warnings

import numpy as np
import pytest

from stalign.core.lattice import array_lattice, lattice
from stalign.data.scale import _ST_SPOTS, Stated, bin_size, resolve


def hexagons(n=12, pitch=137.0, angle=0.0):
    row, column = (index.ravel() for index in np.mgrid[0:n, 0:n])
    column = 2 * column + row % 2
    points = np.column_stack([column / 2, row * np.sqrt(3) / 2]) * pitch
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T, np.column_stack([row, column])


def squares(n=12, pitch=72.0):
    row, column = (index.ravel() for index in np.mgrid[0:n, 0:n])
    return np.column_stack([column, row]) * pitch, np.column_stack([row, column])


def settle(coords, stated=None, **options):
    options = {"library": "a", "mpp": None, "spot_diameter": None, **options}
    return resolve(coords, stated or Stated(), **options)


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2])
def test_hexagonal_lattice_at_any_angle(angle):
    kind, pitch = lattice(hexagons(angle=angle)[0])
    assert kind == "hex"
    assert pitch == pytest.approx(137.0)


def test_square_lattice():
    kind, pitch = lattice(squares()[0])
    assert kind == "square"
    assert pitch == pytest.approx(72.0)


@pytest.mark.parametrize(("grid", "kind"), [(hexagons, "hex"), (squares, "square")])
def test_jitter_holes_and_whole_pixels(grid, kind):
    rng = np.random.default_rng(0)
    coords, _ = grid(20, 100.0)
    coords = np.rint(coords + rng.normal(0, 4, coords.shape))[rng.random(len(coords)) < 0.7]
    coords[3] = np.nan
    found, pitch = lattice(coords)
    assert found == kind
    assert pitch == pytest.approx(100.0, rel=0.03)


@pytest.mark.parametrize(("grid", "kind"), [(hexagons, "hex"), (squares, "square")])
def test_seven_spots_are_enough(grid, kind):
    coords, _ = grid(3, 100.0)
    assert lattice(coords)[0] == kind


def test_no_lattice_in_random_points_lines_and_duplicates():
    rng = np.random.default_rng(0)
    assert lattice(rng.random((500, 2)))[0] == "unknown"
    assert lattice(np.column_stack([np.arange(10.0), np.zeros(10)]))[0] == "unknown"
    assert lattice(np.repeat(hexagons()[0], 2, axis=0))[0] == "unknown"
    assert lattice(np.zeros((1, 2)))[0] == "unknown"
    assert lattice(np.zeros((0, 2)))[0] == "unknown"


@pytest.mark.parametrize(("grid", "kind"), [(hexagons, "hex"), (squares, "square")])
def test_array_positions_serve_where_no_two_spots_touch(grid, kind):
    coords, array = grid(12, 100.0)
    keep = [0, 40, 77, 139] if kind == "hex" else [0, 40, 78, 139]
    assert lattice(coords[keep])[0] == "unknown"
    found, pitch = array_lattice(coords[keep], array[keep].astype(float))
    assert found == kind
    assert pitch == pytest.approx(100.0)
    assert settle(coords[keep], Stated(array=array[keep].astype(float))).pitch_um == (100.0 if kind == "hex" else 200.0)


def test_visium_and_st_scales_come_from_the_pitch():
    visium = settle(hexagons(pitch=137.0)[0])
    assert (visium.technology, visium.pitch_um, visium.spot_um) == ("visium", 100.0, 55.0)
    assert visium.mpp == pytest.approx(100 / 137)
    assert "Visium pitch" in visium.origin
    st = settle(squares(pitch=72.0)[0])
    assert (st.technology, st.pitch_um, st.spot_um) == ("st", 200.0, 100.0)
    assert st.mpp == pytest.approx(200 / 72)


def test_hd_bins_set_the_scale():
    hd = settle(squares(pitch=29.2)[0], Stated(bin_um=8.0))
    assert (hd.technology, hd.pitch_um, hd.spot_um) == ("hd", 8.0, 8.0)
    assert hd.mpp == pytest.approx(8 / 29.2)
    assert bin_size("sample_square_016um") == 16.0
    assert bin_size("cells") is None


def test_given_wins_over_stated_wins_over_pitch():
    coords = hexagons(pitch=200.0)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settle(coords, Stated(mpp=0.51, origin="file")).mpp == 0.51
        given = settle(coords, Stated(mpp=0.51, origin="file"), mpp=0.49)
    assert given.mpp == 0.49
    assert given.origin == "mpp= given"
    assert settle(coords, spot_diameter=60).spot_um == 60.0


def test_disagreement_with_the_pitch_warns_with_both_figures():
    with pytest.warns(UserWarning, match=r"1 µm per px \(file\).*gives 0\.5"):
        assert settle(hexagons(pitch=200.0)[0], Stated(mpp=1.0, origin="file")).mpp == 1.0
    with pytest.warns(UserWarning, match="mpp= given"):
        settle(hexagons(pitch=200.0)[0], mpp=0.53)


def test_unknown_scale_is_nan_and_a_single_spot_is_known_by_its_size():
    rng = np.random.default_rng(0)
    lost = settle(rng.random((50, 2)) * 1000)
    assert np.isnan(lost.mpp)
    assert lost.technology == "unknown"
    spot = settle(np.array([[10.0, 10.0]]), Stated(mpp=0.5, origin="file", spot_px=130.0))
    assert (spot.technology, spot.spot_um) == ("visium", 55.0)
    old = settle(np.array([[10.0, 10.0]]), Stated(mpp=2.0, origin="file", spot_px=50.0))
    assert (old.technology, old.pitch_um) == ("st", 200.0)
    other = settle(np.array([[10.0, 10.0]]), Stated(mpp=1.0, origin="file", spot_px=10.0))
    assert (other.technology, other.spot_um) == ("unknown", 10.0)


@pytest.mark.parametrize("options", [{"mpp": 0.0}, {"mpp": float("nan")}, {"spot_diameter": -1.0}])
def test_scales_must_be_positive(options):
    with pytest.raises(ValueError, match="positive number of µm"):
        settle(hexagons()[0], **options)


def test_a_square_lattice_larger_than_the_st_arrays_is_said_to_be_assumed():
    coords, _ = squares(60, 128.0)  # such as bins of 64 µm
    with pytest.warns(UserWarning, match=r"3600 spots and no stated scale; taken for spots 200 µm apart.*`mpp=`"):
        found = settle(coords)
    assert found.technology == "st" and found.origin == "Spatial Transcriptomics pitch of 200 µm over 128 px, assumed"
    long = np.column_stack([np.arange(160) % 80, np.arange(160) // 80]) * 128.0
    with pytest.warns(UserWarning, match="160 spots and no stated scale"):
        settle(long)


@pytest.mark.parametrize("how", ["mpp given", "mpp stated", "bin size"])
def test_a_scale_settles_that_a_large_square_lattice_is_one_of_bins(how):
    stated = {"mpp given": Stated(), "mpp stated": Stated(mpp=0.5, origin="x"), "bin size": Stated(bin_um=64)}[how]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = settle(squares(60, 128.0)[0], stated, mpp=0.5 if how == "mpp given" else None)
    assert (found.technology, found.pitch_um, found.spot_um, found.mpp) == ("hd", 64, 64, 0.5)


def test_st_arrays_are_taken_for_what_they_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settle(squares(33, 72.0)[0]).technology == "st"
        assert settle(squares(60, 72.0)[0], mpp=200 / 72).technology == "st"  # 3,600 spots 200 µm apart
        places = np.array([(x, y) for x in range(67) for y in range(64) if x % 2 == 0 or y % 5 == 0]) * 72.0
        assert settle(places[:_ST_SPOTS]).technology == "st"


def test_squares_that_touch_may_be_bins():
    coords = 128.0 * np.stack(np.mgrid[:12, :12], axis=-1).reshape(-1, 2)
    with pytest.warns(UserWarning, match="128 px apart, but 128 px wide.*bins.*bin_size_um"):
        resolve(coords, Stated(spot_px=128.0), library="a", mpp=None, spot_diameter=None)


def test_a_small_square_lattice_without_a_scale_is_said_to_be_taken_for_spots(caplog):
    coords = 128.0 * np.stack(np.mgrid[:12, :12], axis=-1).reshape(-1, 2)
    resolve(coords, Stated(), library="a", mpp=None, spot_diameter=None)
    assert "'a' has no stated scale" in caplog.text
    assert "200 µm apart" in caplog.text
    with pytest.warns(UserWarning, match="fit the pitch.*bins.*bin_size_um"):
        resolve(coords, Stated(mpp=0.5), library="a", mpp=None, spot_diameter=None)
