from __future__ import annotations

import folders
import numpy as np
import pytest

import stalign
from stalign.data import open_sections as sections

pytest.importorskip("spatialdata_io")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bin_size", [8, 16])
def test_bins_and_image(tmp_path, bin_size):
    pixels = folders.write_visium_hd(tmp_path)
    sdata = stalign.io.read_visium_hd(tmp_path, bin_size=bin_size)
    assert list(sdata.tables) == [f"square_{bin_size:03d}um"]
    view = sections(sdata)[0]
    assert view.technology == "hd"
    assert view.spot_diameter_um == bin_size
    assert view.coord_mpp == pytest.approx(8 / 30)
    assert "microns_per_pixel" in view.mpp_origin
    table = sdata.tables[f"square_{bin_size:03d}um"]
    step = 30 * bin_size / 8
    np.testing.assert_allclose(view.coords[:, 0], (table.obs["array_col"] + 0.5) * step)
    np.testing.assert_allclose(view.coords[:, 1], (table.obs["array_row"] + 0.5) * step)
    assert view.image.key == "toy_full_image"
    np.testing.assert_array_equal(view.image.pixels(), pixels)
    assert sections(sdata, want_mpp=0.6)[0].image.shape == (210, 210)
    assert sections(sdata, image_key="toy_hires_image")[0].image.scale == 0.5


def test_missing_bins(tmp_path):
    folders.write_visium_hd(tmp_path / "a", bins=(8,))
    with pytest.raises(ValueError, match="bins of 2 µm.*'square_002um'.*'square_008um'"):
        stalign.io.read_visium_hd(tmp_path / "a", bin_size=2)
    (tmp_path / "b").mkdir()
    with pytest.raises(FileNotFoundError, match="binned outputs"):
        stalign.io.read_visium_hd(tmp_path / "b")
