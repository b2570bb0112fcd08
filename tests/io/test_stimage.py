from __future__ import annotations

import folders
import numpy as np
import pandas as pd
import pytest

import stalign
from stalign.data import open_sections as sections


@pytest.mark.parametrize(("tab", "bom"), [(False, True), (True, True), (False, False)])
def test_a_slide_with_all_its_quirks(tmp_path, tab, bom):
    made, slide = folders.write_stimage(tmp_path, tab=tab, bom=bom)
    adata = stalign.io.read_stimage(tmp_path, slide)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"] / 4)
    assert adata.obsm["spatial"].flags.writeable
    assert list(adata.obs["barcode"]) == list(made.obs_names)
    assert list(adata.var["gene_name"]) == list(made.var_names)
    assert adata.var_names.is_unique
    view = sections(adata)[0]
    assert view.name == slide
    assert (view.image.key, view.image.scale) == ("fullres", 1.0)
    assert view.image.mpp == pytest.approx(2.0, rel=1e-3)
    np.testing.assert_array_equal(view.image.pixels(), made.uns["spatial"]["toy"]["images"]["hires"])
    metadata = adata.uns["spatial"][slide]["metadata"]
    assert (metadata["species"], metadata["tissue"]) == ("human", "brain")
    assert "pmid" not in metadata
    assert adata.uns["spatial"][slide]["scalefactors"]["spot_diameter_fullres"] == 32.5


def test_the_folder_of_one_technology_and_no_image(tmp_path):
    _, slide = folders.write_stimage(tmp_path)
    adata = stalign.io.read_stimage(tmp_path / "Visium", slide, image=False)
    assert sections(adata)[0].image is None
    assert adata.uns["spatial"][slide]["metadata"]["species"] == "human"


def test_spots_without_a_position_stay(tmp_path):
    made, slide = folders.write_stimage(tmp_path)
    file = tmp_path / "Visium" / "coord" / f"{slide}_coord.csv"
    table = pd.read_csv(file, index_col=0)
    table[table.index != f"{slide}_{made.obs_names[5]}"].to_csv(file)
    adata = stalign.io.read_stimage(tmp_path, slide)
    assert adata.n_obs == made.n_obs
    assert np.flatnonzero(np.isnan(adata.obsm["spatial"][:, 0])).tolist() == [5]
    file = tmp_path / "Visium" / "gene_exp" / f"{slide}_count.csv"
    file.write_text(file.read_text("utf-8-sig").replace(f"{slide}_{made.obs_names[5]},", ","))
    assert stalign.io.read_stimage(tmp_path, slide).obs["barcode"].iloc[5] == "nan"


def test_visium_hd_needs_mpp(tmp_path):
    _, slide = folders.write_stimage(tmp_path, technology="VisiumHD")
    with pytest.raises(ValueError, match="`mpp` for the Visium HD slide"):
        stalign.io.read_stimage(tmp_path, slide)


def test_what_is_missing_is_named(tmp_path):
    made, slide = folders.write_stimage(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"nope_count.csv.*{slide}"):
        stalign.io.read_stimage(tmp_path, "nope")
    base = tmp_path / "Visium"
    (base / "image" / f"{slide}.png").unlink()
    with pytest.raises(FileNotFoundError, match="the image.*image=False"):
        stalign.io.read_stimage(tmp_path, slide)
    file = base / "coord" / f"{slide}_coord.csv"
    table = pd.read_csv(file, index_col=0)
    table.rename(columns={"r": "radius"}).to_csv(file)
    with pytest.raises(ValueError, match="yaxis, xaxis and r.*radius"):
        stalign.io.read_stimage(tmp_path, slide)
    table.rename(index=lambda name: "x" + name).to_csv(file)
    with pytest.raises(ValueError, match="none of them"):
        stalign.io.read_stimage(tmp_path, slide)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="the coordinates"):
        stalign.io.read_stimage(tmp_path, slide)
    assert made.n_obs == 99


def test_a_name_with_brackets_is_no_pattern(tmp_path):
    made, slide = folders.write_stimage(tmp_path, slide="A[1]")
    adata = stalign.io.read_stimage(tmp_path, slide)
    assert adata.n_obs == made.n_obs and sections(adata)[0].image is not None


@pytest.mark.parametrize("content", [b"", b"a,b\n\xff\xfe,1\n"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, content):
    _, slide = folders.write_stimage(tmp_path)
    (tmp_path / "Visium" / "coord" / f"{slide}_coord.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"Expected a table in .*{slide}_coord\.csv"):
        stalign.io.read_stimage(tmp_path, slide)


def test_labels_of_the_slide_or_its_data_set(tmp_path, log):
    made, slide = folders.write_stimage(tmp_path)
    assert "annotation" not in stalign.io.read_stimage(tmp_path, slide, image=False).obs
    names = [f"{slide}_{name}" for name in made.obs_names]
    (tmp_path / "annotation").mkdir()
    file = tmp_path / "annotation" / f"{slide.rpartition('_')[0]}_anno.csv"
    pd.DataFrame({"V2": "L1"}, index=[*names[1:], f"{slide}1_x"]).to_csv(file, sep="\t")
    found = stalign.io.read_stimage(tmp_path, slide, image=False).obs["annotation"]
    assert found.isna().tolist() == [True] + [False] * (made.n_obs - 1) and set(found.dropna()) == {"L1"}
    pd.DataFrame({"V2": "own"}, index=names).to_csv(tmp_path / "annotation" / f"{slide}_anno.csv")
    assert set(stalign.io.read_stimage(tmp_path, slide, image=False).obs["annotation"]) == {"own"}
    pd.DataFrame({"other": "x"}, index=names).to_csv(tmp_path / "annotation" / f"{slide}_anno.csv")
    assert "annotation" not in stalign.io.read_stimage(tmp_path, slide, image=False).obs
    assert "Expected a column V2 or label or annotation" in log.text
