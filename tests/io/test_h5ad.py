from __future__ import annotations

import anndata
import folders
import numpy as np
import pytest
from PIL import Image

import stalign
from stalign.data import open_sections as sections
from stalign.data.files import allowed


def stored(path, name="images/a.png", key="hires"):
    adata = folders.toy()
    adata.var_names_make_unique()
    pixels = adata.uns["spatial"]["toy"].pop("images")["hires"]
    adata.uns["spatial"]["toy"]["metadata"] = {"image_file": name, "image_key": key}
    (path / "images").mkdir()
    Image.fromarray(pixels).save(path / "images" / "a.png")
    adata.write_h5ad(path / "a.h5ad")
    return pixels


@pytest.mark.parametrize("small", [True, False])
def test_images_beside_the_file(tmp_path, small, monkeypatch):
    if not small:
        monkeypatch.setattr("stalign.io._h5ad.SMALL_PX", 100)
    pixels = stored(tmp_path)
    adata = stalign.io.read_h5ad(tmp_path / "a.h5ad")
    entry = adata.uns["spatial"]["toy"]
    assert ("hires" in entry.get("images", {})) == small
    assert entry["metadata"]["source_image_path"] == str(tmp_path / "images" / "a.png")
    view = sections(adata)[0]
    assert (view.image.key, view.image.scale) == ("hires", 0.25)
    np.testing.assert_array_equal(view.image.pixels(), pixels)
    adata.write_h5ad(tmp_path / "images" / "b.h5ad")
    again = sections(stalign.io.read_h5ad(tmp_path / "images" / "b.h5ad"))[0]
    np.testing.assert_array_equal(again.image.pixels(), pixels)


def test_images_that_are_gone_or_not_wanted(tmp_path, log):
    stored(tmp_path, name="gone.png")
    adata = stalign.io.read_h5ad(tmp_path / "a.h5ad")
    assert "gone.png" in log.text
    assert sections(adata)[0].image is None
    log.clear()
    stalign.io.read_h5ad(tmp_path / "a.h5ad", image=False)
    assert "gone.png" not in log.text


@pytest.fixture
def stranger(tmp_path):
    """Write a file that names an image, and an image elsewhere on the machine."""
    (tmp_path / "theirs").mkdir()
    Image.new("RGB", (60, 60), "red").save(tmp_path / "secret.png")

    def write(**metadata):
        adata = folders.toy()
        adata.var_names_make_unique()
        adata.uns["spatial"]["toy"].pop("images")
        adata.uns["spatial"]["toy"]["metadata"] = {"image_key": "hires", **metadata}
        adata.write_h5ad(tmp_path / "theirs" / "a.h5ad")
        return tmp_path / "theirs" / "a.h5ad"

    return write


@pytest.mark.parametrize("name", ["../secret.png", "absolute", "source", "link.png", "folder/secret.png"])
def test_an_image_outside_the_folder_is_not_opened(tmp_path, stranger, name, monkeypatch):
    secret = tmp_path / "secret.png"
    (tmp_path / "theirs" / "link.png").symlink_to(secret)
    (tmp_path / "theirs" / "folder").symlink_to(tmp_path)
    monkeypatch.setattr("stalign.io._h5ad.read_image", lambda *_, **__: pytest.fail("opened"))
    monkeypatch.setattr("stalign.io._h5ad.image_size", lambda *_, **__: pytest.fail("opened"))
    if name in {"absolute", "source"}:
        key = "image_file" if name == "absolute" else "source_image_path"
        path = stranger(**{key: str(secret)})
    else:
        path = stranger(image_file=name)
    with pytest.warns(UserWarning, match=r"section 'toy' below .*theirs. Found: .*secret\.png, which.*`image_root=`"):
        adata = stalign.io.read_h5ad(path)
    entry = adata.uns["spatial"]["toy"]
    assert "images" not in entry
    assert entry["metadata"] == {"image_key": "hires"}
    assert not allowed(secret)
    assert sections(adata)[0].image is None


@pytest.mark.parametrize("how", ["argument", "setting"])
def test_an_image_below_the_image_root_is_opened(tmp_path, stranger, how):
    path = stranger(image_file="../secret.png")
    if how == "argument":
        adata = stalign.io.read_h5ad(path, image_root=str(tmp_path))
    else:
        with stalign.settings.override(image_root=tmp_path):
            adata = stalign.io.read_h5ad(path)
    assert adata.uns["spatial"]["toy"]["images"]["hires"].shape == (60, 60, 3)
    assert adata.uns["spatial"]["toy"]["metadata"]["source_image_path"] == str(tmp_path / "secret.png")
    assert allowed(tmp_path / "secret.png")


def test_a_path_outside_is_dropped_though_another_image_is_embedded(tmp_path, stranger, recwarn):
    path = stranger(source_image_path=str(tmp_path / "secret.png"), image_key="fullres")
    adata = anndata.read_h5ad(path)
    adata.uns["spatial"]["toy"]["images"] = {"fullres": np.zeros((9, 9, 3), np.uint8)}
    adata.write_h5ad(path)
    adata = stalign.io.read_h5ad(path)
    assert "source_image_path" not in adata.uns["spatial"]["toy"]["metadata"]
    assert not [w for w in recwarn if "image_root" in str(w.message)]


def test_a_name_beside_the_file_is_not_taken_from_the_current_folder(tmp_path, stranger, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = stranger(image_file="secret.png")
    adata = stalign.io.read_h5ad(path)
    assert adata.uns["spatial"]["toy"]["metadata"]["source_image_path"] == str(path.parent / "secret.png")
    assert sections(adata)[0].image is None


@pytest.mark.parametrize("stored", ["/gone/a.png", "C:\\data\\a.png", "/gone/A/a.png"])
def test_a_file_that_was_moved_with_its_image(tmp_path, stranger, stored):
    path = stranger(source_image_path=stored)
    Image.new("RGB", (60, 60)).save(path.parent / "a.png")
    entry = stalign.io.read_h5ad(path).uns["spatial"]["toy"]
    assert entry["metadata"]["source_image_path"] == str(path.parent / "a.png")
    assert entry["images"]["fullres"].shape == (60, 60, 3)


def test_one_file_is_not_taken_for_two_sections_whose_images_had_one_name(tmp_path, stranger):
    path = stranger()
    adata = anndata.read_h5ad(path)
    adata.uns["spatial"] = {
        name: {"metadata": {"source_image_path": f"/gone/{name}/image.png"}, "scalefactors": {}} for name in "AB"
    }
    adata.write_h5ad(path)
    Image.new("RGB", (60, 60)).save(path.parent / "image.png")
    entries = stalign.io.read_h5ad(path).uns["spatial"]
    assert not any("images" in entry for entry in entries.values())


REAL = {  # µm per px of the image, by the README of the shared data
    "colon-mouse/d0.h5ad": ("d0", 0.97, (5986, 6185), "visium"),
    "dlpfc/151673.h5ad": ("151673", 16.2, (600, 600), "visium"),
    "dlpfc/151675.h5ad": ("151675", 16.2, (600, 600), "visium"),
    "dlpfc/151510.h5ad": ("151510", 16.2, (600, 600), "visium"),
    "mob/rep1.h5ad": ("rep1", 2.76, (2483, 2318), "st"),
    "mob/rep2.h5ad": ("rep2", 2.75, (2478, 2324), "st"),
}


@pytest.mark.real
@pytest.mark.parametrize("file", list(REAL))
def test_real_sections(shared_data, file):
    library, mpp, shape, technology = REAL[file]
    adata = stalign.io.read_h5ad(shared_data / file)
    (view,) = sections(adata)
    assert (view.name, view.technology, view.image.shape) == (library, technology, shape)
    assert view.image.mpp == pytest.approx(mpp, rel=0.015)
    assert view.valid.all()
    adata.uns["spatial"][library]["metadata"].pop("um_per_px", None)
    assert sections(adata)[0].image.mpp == pytest.approx(mpp, rel=0.015)


@pytest.mark.real
def test_real_her2st(shared_data):
    adata = stalign.io.read_h5ad(shared_data / "her2st/her2st.h5ad")
    with pytest.raises(KeyError, match="library_key='section'"):
        sections(adata)
    views = {view.name: view for view in sections(adata, library_key="section")}
    assert len(views) == 30
    assert sum(len(view.rows) for view in views.values()) == adata.n_obs
    assert {name for name, view in views.items() if view.image} == {"A1", "A2", "B4", "C2", "C3", "C4", "C5", "C6"}
    assert {view.technology for view in views.values()} == {"st"}
    assert views["A1"].image.mpp == pytest.approx(3.2, rel=0.01)
    assert views["B4"].image.mpp == pytest.approx(0.69, rel=0.01)
    assert views["B4"].image.shape == (9923, 9272)
    for entry in adata.uns["spatial"].values():
        del entry["metadata"]["um_per_px"]
    for view in sections(adata, library_key="section", image=False):
        assert view.coord_mpp == pytest.approx(views[view.name].coord_mpp, rel=0.03)


def test_a_file_that_is_not_there_or_no_table(tmp_path):
    stalign.datasets.toy(6).write_h5ad(tmp_path / "there.h5ad")
    with pytest.raises(FileNotFoundError, match="nothing at .*gone.h5ad.*Available: 'there.h5ad'"):
        stalign.io.read_h5ad(tmp_path / "gone.h5ad")
    with pytest.raises(FileNotFoundError, match="the folder .*read_visium"):
        stalign.io.read_h5ad(tmp_path)
    (tmp_path / "text.h5ad").write_text("no table")
    with pytest.raises(ValueError, match="text.h5ad, which can't be read"):
        stalign.io.read_h5ad(tmp_path / "text.h5ad")
    whole = (tmp_path / "there.h5ad").read_bytes()
    (tmp_path / "half.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="half.h5ad, which can't be read"):
        stalign.io.read_h5ad(tmp_path / "half.h5ad")
