"""Names of sections through every reader, h5ad and zarr."""

from __future__ import annotations

import anndata
import folders
import numpy as np
import pytest

import stalign
from stalign.data.files import allowed
from stalign.data.names import safe_key

NAMES = ["P1/A", "..", "1.a", "007 b", "Ä ß 日本", "x" * 200, "日" * 80, "a.b.c"]


def visium(root, name):
    made = folders.write_visium(root)
    folders.full_image(made).save(root / "full.tif")
    return stalign.io.read_visium(root, library_id=name, image=root / "full.tif"), root / "full.tif"


def hest(root, name):
    folders.write_hest(root, sample="A")
    if "/" in name or name == ".." or len(name.encode()) > 240:  # no file can have it
        pytest.skip("samples are named after files")
    for file in list(root.glob("*/A.*")):
        file.rename(file.with_name(name + file.suffix))
    return stalign.io.read_hest(root, name), root / "wsis" / f"{name}.tif"


def stimage(root, name):
    if "/" in name or name == ".." or len(name.encode()) > 240:
        pytest.skip("slides are named after files")
    folders.write_stimage(root, slide=name)
    return stalign.io.read_stimage(root, name), root / "Visium" / "image" / f"{name}.png"


@pytest.mark.filterwarnings("ignore:Writing zarr v2", "ignore:Variable names are not unique")
@pytest.mark.parametrize("reader", [visium, hest, stimage])
@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:6])
def test_names_survive_files_with_their_images(tmp_path, reader, name):
    (tmp_path / "in").mkdir()
    adata, file = reader(tmp_path / "in", name)
    key = safe_key(name)
    pixels = adata.uns["spatial"][key]["images"]["fullres"]
    assert allowed(file)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")
    for back in (anndata.read_h5ad(tmp_path / "a.h5ad"), anndata.read_zarr(tmp_path / "a.zarr")):
        assert list(back.uns["spatial"]) == [key]
        metadata = back.uns["spatial"][key]["metadata"]
        assert metadata.get("name", key) == name
        assert ("name" in metadata) == (key != name)
        np.testing.assert_array_equal(back.uns["spatial"][key]["images"]["fullres"], pixels)
