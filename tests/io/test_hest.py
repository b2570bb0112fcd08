from __future__ import annotations

import folders
import numpy as np
import pytest

import stalign
from stalign.data import open_sections as sections


@pytest.mark.parametrize("embed", [True, False])
def test_a_sample_with_its_whole_slide_image(tmp_path, embed, monkeypatch):
    if not embed:
        monkeypatch.setattr("stalign.io._files.SMALL_PX", 100)
    made, sample = folders.write_hest(tmp_path)
    adata = stalign.io.read_hest(tmp_path, sample)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"])
    assert adata.var_names.is_unique
    view = sections(adata, want_mpp=None if embed else 2.0)[0]
    assert view.name == sample
    assert view.image.key == "fullres"
    assert view.coord_mpp == 0.5
    assert view.mpp_origin == "pixel_size_um_estimated of HEST"
    assert view.image.mpp == pytest.approx(0.5 if embed else 2.0, rel=0.01)
    metadata = adata.uns["spatial"][sample]["metadata"]
    assert metadata["organ"] == "Brain"
    assert "patient" not in metadata
    assert sections(adata, image_key="downscaled_fullres")[0].image.scale == 0.0625


def test_without_the_whole_slide_image(tmp_path, log):
    _, sample = folders.write_hest(tmp_path, wsi=False)
    image = sections(stalign.io.read_hest(tmp_path, sample))[0].image
    assert (image.key, image.scale) == ("downscaled_fullres", 0.0625)
    assert "no whole-slide image" in log.text
    with pytest.raises(FileNotFoundError, match=r"MISC4\.tif"):
        stalign.io.read_hest(tmp_path, sample, image="wsi")


def test_the_downscaled_image_when_asked_for(tmp_path):
    _, sample = folders.write_hest(tmp_path)
    adata = stalign.io.read_hest(tmp_path, sample, image="downscaled")
    assert sections(adata)[0].image.key == "downscaled_fullres"
    with pytest.raises(ValueError, match="'small'.*'wsi', 'downscaled'"):
        stalign.io.read_hest(tmp_path, sample, image="small")


def test_the_scale_falls_back_to_the_scanner_and_to_the_pitch(tmp_path, log):
    _, sample = folders.write_hest(
        tmp_path / "a", facts={"pixel_size_um_estimated": None, "pixel_size_um_embedded": 0.51}
    )
    adata = stalign.io.read_hest(tmp_path / "a", sample)
    assert sections(adata)[0].mpp_origin == "pixel_size_um_embedded of HEST"
    (tmp_path / "a" / "metadata" / f"{sample}.json").unlink()
    adata = stalign.io.read_hest(tmp_path / "a", sample)
    assert sections(adata)[0].mpp_origin.startswith("Visium pitch")
    assert "derived from the pitch" in log.text


def test_a_missing_sample_lists_those_there(tmp_path):
    folders.write_hest(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nope\.h5ad.*'MISC4\.h5ad'"):
        stalign.io.read_hest(tmp_path, "nope")


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    made, sample = folders.write_hest(tmp_path, sample="A[1]")
    adata = stalign.io.read_hest(tmp_path, sample)
    assert adata.n_obs == made.n_obs and sections(adata)[0].image.key == "fullres"


@pytest.mark.parametrize(("content", "found"), [("[1]", "a list"), ("{", "Expecting property name")])
def test_metadata_that_are_no_object_are_named(tmp_path, content, found):
    _, sample = folders.write_hest(tmp_path)
    (tmp_path / "metadata" / f"{sample}.json").write_text(content)
    with pytest.raises(ValueError, match=rf"JSON object in .*MISC4\.json. Found: {found}"):
        stalign.io.read_hest(tmp_path, sample)
