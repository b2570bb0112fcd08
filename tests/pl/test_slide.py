from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import stalign
from stalign.pl import slide


def test_outlines_tissue_and_ink(tmp_path):
    image = np.full((300, 400, 3), 244, dtype=np.uint8)
    image[60:240, 80:280] = (200, 120, 170)
    image[250:280, 20:380] = (20, 150, 60)
    Image.fromarray(image).save(tmp_path / "case.png")
    adata = stalign.io.read_slide(tmp_path / "case.png", 4.0)
    panel = slide(adata, show=False)
    assert panel.get_title().startswith(f"case: {adata.n_obs} spots, 4 µm per px")
    outlines = [artist for artist in panel.collections if type(artist).__name__ == "QuadContourSet"]
    assert len(outlines) == 2
    box = outlines[0].get_paths()[0].get_extents()
    assert box.x0 == pytest.approx(80 * 4, abs=30) and box.y1 == pytest.approx(240 * 4, abs=30)
    plt.close("all")


def test_needs_an_image():
    adata = stalign.datasets.toy(8)
    del adata.uns["spatial"]["toy"]["images"]
    with pytest.raises(ValueError, match="image"):
        slide(adata, show=False)
