from __future__ import annotations

import json
import shutil

import folders
import numpy as np
import pytest

import stalign
from stalign.data import open_sections as sections


@pytest.mark.parametrize("version", ["1", "2", "txt", "parquet"])
def test_every_version_gives_the_same_section(tmp_path, version):
    made = folders.write_visium(tmp_path / "outs", version=version)
    adata = stalign.io.read_visium(tmp_path / "outs")
    assert list(adata.obs_names) == list(made.obs_names)
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"])
    assert adata.obsm["spatial"].dtype == np.float64 and adata.obsm["spatial"].flags.writeable
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    assert (adata.obs["in_tissue"] == 1).all()
    np.testing.assert_array_equal(adata.obs["array_row"], made.obs["array_row"])
    assert list(adata.uns["spatial"]) == ["V1_Toy"]
    assert set(adata.uns["spatial"]["V1_Toy"]["images"]) == {"hires", "lowres"}
    view = sections(adata)[0]
    assert view.technology == "visium"
    assert view.coord_mpp == pytest.approx(0.5, rel=1e-3)
    assert view.image.key == "hires"
    assert view.image.mpp == pytest.approx(2.0, rel=1e-3)


def test_no_gene_is_lost_to_a_repeated_name(tmp_path):
    made = folders.write_visium(tmp_path)
    adata = stalign.io.read_visium(tmp_path)
    assert adata.n_vars == made.n_vars
    assert adata.var_names.is_unique
    assert list(adata.var["gene_name"]) == list(made.var_names)
    assert adata.var["gene_ids"].is_unique


def test_the_scale_is_recorded_with_its_origin(tmp_path):
    folders.write_visium(tmp_path)
    metadata = stalign.io.read_visium(tmp_path).uns["spatial"]["V1_Toy"]["metadata"]
    assert metadata["um_per_px"] == pytest.approx(0.5, rel=1e-3)
    assert metadata["mpp_origin"].startswith("Visium pitch of 100 µm over 200")
    assert metadata["software_version"] == "spaceranger-2.1.0"
    adata = stalign.io.read_visium(tmp_path, mpp=0.49)
    assert adata.uns["spatial"]["V1_Toy"]["metadata"]["mpp_origin"] == "mpp= given"
    assert sections(adata)[0].coord_mpp == 0.49
    assert sections(adata)[0].mpp_origin == "mpp= given"


def test_the_folder_above_and_names(tmp_path):
    folders.write_visium(tmp_path / "patient_1" / "outs", library=None)
    assert list(stalign.io.read_visium(tmp_path / "patient_1").uns["spatial"]) == ["patient_1"]
    assert list(stalign.io.read_visium(tmp_path / "patient_1", library_id="x").uns["spatial"]) == ["x"]
    counts = tmp_path / "patient_1" / "outs" / "filtered_feature_bc_matrix.h5"
    counts.rename(counts.with_name("GSM1_filtered_feature_bc_matrix.h5"))
    assert stalign.io.read_visium(tmp_path / "patient_1").n_obs == 99


def test_a_folder_of_matrix_features_and_barcodes(tmp_path):
    import gzip

    from scipy.io import mmwrite

    made = folders.write_visium(tmp_path)
    (tmp_path / "filtered_feature_bc_matrix.h5").unlink()
    folder = tmp_path / "filtered_feature_bc_matrix"
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as handle:
        mmwrite(handle, made.X.T.tocoo())
    for name, lines in {
        "barcodes": made.obs_names,
        "features": [f"ENSG{i}\t{name}\tGene Expression" for i, name in enumerate(made.var_names)],
    }.items():
        (folder / f"{name}.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    adata = stalign.io.read_visium(tmp_path, counts_file="filtered_feature_bc_matrix")
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())


def test_lowres_serves_where_hires_is_absent_and_it_is_said(tmp_path, log):
    folders.write_visium(tmp_path, images=("lowres",))
    adata = stalign.io.read_visium(tmp_path)
    assert "no hires image" in log.text
    image = sections(adata)[0].image
    assert image.key == "lowres"
    assert image.mpp == pytest.approx(0.5 / 0.075, rel=1e-3)


def test_lowres_when_asked_for(tmp_path, log):
    folders.write_visium(tmp_path)
    adata = stalign.io.read_visium(tmp_path, image="lowres")
    assert sections(adata)[0].image.key == "lowres"
    assert sections(adata, image_key="hires")[0].image.key == "hires"
    assert "no hires" not in log.text


@pytest.mark.parametrize("small", [True, False])
def test_a_full_resolution_image(tmp_path, small, monkeypatch):
    made = folders.write_visium(tmp_path)
    folders.full_image(made).save(tmp_path / "full.tif")
    if not small:
        monkeypatch.setattr("stalign.io._files.SMALL_PX", 100)
    adata = stalign.io.read_visium(tmp_path, image=tmp_path / "full.tif")
    assert ("fullres" in adata.uns["spatial"]["V1_Toy"]["images"]) == small
    view = sections(adata)[0]
    assert (view.image.key, view.image.scale) == ("fullres", 1.0)
    assert view.image.shape == folders.full_image(made).size[::-1]
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = sections(stalign.io.read_h5ad(tmp_path / "a.h5ad"))[0]
    np.testing.assert_array_equal(again.image.pixels(), view.image.pixels())


def test_a_smaller_copy_of_the_full_image_is_used_at_its_scale(tmp_path, log):
    made = folders.write_visium(tmp_path)
    full = folders.full_image(made)
    full.resize((full.width // 2, full.height // 2)).save(tmp_path / "half.png")
    image = sections(stalign.io.read_visium(tmp_path, image=tmp_path / "half.png"))[0].image
    assert image.scale == pytest.approx(0.5, rel=5e-3)
    assert "0.5 times as large" in log.text


def test_the_image_of_another_slide_is_refused(tmp_path):
    made = folders.write_visium(tmp_path)
    full = folders.full_image(made)
    full.crop((0, 0, full.width // 2, full.height)).save(tmp_path / "other.png")
    with pytest.raises(ValueError, match="neither cropped nor turned"):
        stalign.io.read_visium(tmp_path, image=tmp_path / "other.png")


def test_missing_files_list_what_is_there(tmp_path):
    folders.write_visium(tmp_path / "a", images=())
    root, spatial = tmp_path / "a", tmp_path / "a" / "spatial"
    with pytest.raises(FileNotFoundError, match=r"hires image.*'scalefactors_json.json', 'tissue_positions.csv'"):
        stalign.io.read_visium(root)
    with pytest.raises(FileNotFoundError, match="nothing at .*nope.tif"):
        stalign.io.read_visium(root, image=root / "nope.tif")
    with pytest.raises(ValueError, match="'medium'.*'hires', 'lowres'"):
        stalign.io.read_visium(root, image="medium")
    (spatial / "tissue_positions.csv").rename(spatial / "where.csv")
    with pytest.raises(FileNotFoundError, match=r"spot positions.*tissue_positions_list.csv.*'where.csv'"):
        stalign.io.read_visium(root)
    (root / "filtered_feature_bc_matrix.h5").rename(root / "counts.h5")
    (spatial / "where.csv").rename(spatial / "tissue_positions.csv")
    with pytest.raises(FileNotFoundError, match="counts.*'counts.h5', 'spatial/'.*counts_file="):
        stalign.io.read_visium(root)
    shutil.rmtree(spatial)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        stalign.io.read_visium(root)
    with pytest.raises(FileNotFoundError, match="nothing at .*'a/'"):
        stalign.io.read_visium(tmp_path / "b")
    with pytest.raises(FileNotFoundError, match="Pass its folder"):
        stalign.io.read_visium(root / "counts.h5")


def test_files_of_two_sections(tmp_path):
    made = folders.write_visium(tmp_path)
    made.obs_names = [f"GGGG{i}-1" for i in range(made.n_obs)]
    folders.positions(made).to_csv(tmp_path / "spatial" / "tissue_positions.csv")
    with pytest.raises(ValueError, match="of one section"):
        stalign.io.read_visium(tmp_path)
    (tmp_path / "spatial" / "tissue_positions.csv").write_text("barcode,x,y\nA,1,2\n")
    with pytest.raises(ValueError, match="Expected columns in_tissue.*Found: x, y"):
        stalign.io.read_visium(tmp_path)


def test_scale_factors_without_the_one_needed(tmp_path):
    folders.write_visium(tmp_path, factors={"tissue_lowres_scalef": 0.1})
    with pytest.raises(KeyError, match="tissue_hires_scalef.*tissue_lowres_scalef"):
        stalign.io.read_visium(tmp_path)


def test_raw_counts_are_cut_to_the_tissue(tmp_path):
    made = folders.write_visium(tmp_path)
    folders.write_10x(tmp_path / "raw_feature_bc_matrix.h5", made, extra=["TTTTTTTTTTTT-1"])
    adata = stalign.io.read_visium(tmp_path, counts_file="raw_feature_bc_matrix.h5")
    assert list(adata.obs_names) == list(made.obs_names)


@pytest.mark.real
def test_the_embryo(shared_data, log):
    adata = stalign.io.read_visium(shared_data / "visium-mouse-embryo")
    assert adata.shape == (2898, 19465)
    assert adata.X.sum(axis=1).min() >= 0
    assert np.median(np.asarray(adata.X.sum(axis=1))) == pytest.approx(226, abs=2)
    view = sections(adata)[0]
    assert "no hires image" in log.text
    assert view.image.key == "lowres"
    assert view.image.mpp == pytest.approx(23.4, rel=0.01)
    factors = json.loads((shared_data / "visium-mouse-embryo/spatial/scalefactors_json.json").read_text())
    assert adata.uns["spatial"][view.name]["scalefactors"] == factors
