from __future__ import annotations

import json
import shutil
from pathlib import Path

import folders
import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture(scope="module")
def outs(tmp_path_factory):
    return stalign.datasets.write_toy_hd(tmp_path_factory.mktemp("hd") / "outs", bins=(8, 16), side_um=240)


@pytest.fixture
def own(outs, tmp_path):
    return shutil.copytree(outs, tmp_path / "S 1" / "outs")


def test_bins_of_a_space_ranger_4_folder(outs):
    sdata, true = stalign.io.read_visium_hd(outs), stalign.datasets.toy_hd(8, side_um=240)
    table, library = sdata.tables["square_008um"], outs.parent.name
    assert set(sdata.images) == {f"{library}_{kind}_image" for kind in ("full", "hires", "lowres")}
    assert list(sdata.shapes) == [f"{library}_square_008um"]
    assert abs(table.X - true.X).nnz == 0
    np.testing.assert_allclose(table.obsm["spatial"], true.obsm["spatial"], atol=1e-9)
    assert table.obsm["spatial"].flags.writeable
    np.testing.assert_array_equal(table.obs["array_row"], true.obs["array_row"])
    assert table.uns["spatial"][f"{library}_square_008um"]["scalefactors"]["microns_per_pixel"] == 0.5
    squares = sdata.shapes[f"{library}_square_008um"]
    np.testing.assert_allclose(squares.area, 16.0**2, rtol=1e-6)
    np.testing.assert_allclose(np.c_[squares.centroid.x, squares.centroid.y], true.obsm["spatial"], atol=1e-6)
    assert squares.union_all().area == pytest.approx(squares.area.sum(), rel=1e-6)  # turned as the array, side by side


def test_cells_keep_their_table_outlines_and_scale(outs):
    sdata, true = stalign.io.read_visium_hd(outs, cells=True), stalign.datasets.toy_hd(cells=True, side_um=240)
    table = sdata.tables["cell_segmentations"]
    assert abs(table.X - true.X).nnz == 0
    np.testing.assert_allclose(table.obsm["spatial"], true.obsm["spatial"], atol=0.02)
    view = sections(sdata)[0]
    assert view.coord_mpp == 0.5
    assert "microns_per_pixel" in view.mpp_origin
    assert 8 < view.spot_diameter_um < 11
    np.testing.assert_allclose(view.coords, true.obsm["spatial"], atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_objects_of_spatialdata_io_give_the_same_sections(outs):
    import spatialdata_io

    theirs = spatialdata_io.visium_hd(outs, dataset_id="S", bin_size=8, load_segmentations_only=False)
    ours = stalign.io.read_visium_hd(outs, library_id="S")
    one, other = (sections(sdata, table_key="square_008um")[0] for sdata in (theirs, ours))
    np.testing.assert_allclose(one.coords, other.coords, atol=1e-6)
    assert one.technology == other.technology == "hd"
    assert set(ours.images) == set(theirs.images)
    assert set(ours.coordinate_systems) == set(theirs.coordinate_systems)
    theirs_table, table = theirs.tables["square_008um"], ours.tables["square_008um"]
    assert abs(theirs_table.X - table.X).nnz == 0
    assert set(theirs_table.obs) == set(table.obs)


@pytest.mark.parametrize("bin_size", ["8", [8], (8, 16), 8.5, True, None])
def test_a_bin_size_is_one_whole_number(outs, bin_size):
    with pytest.raises(ValueError, match="`bin_size` to be one whole number.*`bin_size=8`"):
        stalign.io.read_visium_hd(outs, bin_size=bin_size)


def test_folders_of_other_kinds_say_what_to_call(outs):
    with pytest.raises(FileNotFoundError, match=rf"Pass {outs} with `bin_size=8`; `stalign.io.read_visium` reads"):
        stalign.io.read_visium_hd(outs / "binned_outputs" / "square_008um")
    assert stalign.io.read_visium(outs / "binned_outputs" / "square_008um").n_obs > 500
    with pytest.raises(ValueError, match="bins of 2 µm.*'square_008um', 'square_016um'.*rebin"):
        stalign.io.read_visium_hd(outs, bin_size=2)
    assert stalign.io.read_visium_hd(outs.parent, bin_size=16).tables["square_016um"].n_obs > 100
    for inner in ("binned_outputs", "segmented_outputs"):
        sdata = stalign.io.read_visium_hd(outs / inner, cells=inner.startswith("seg"))
        assert f"{outs.parent.name}_full_image" in sdata.images
        with pytest.raises((ValueError, FileNotFoundError), match=r"stalign\.io\.read_visium_hd"):
            stalign.io.read_visium(outs / inner)
    with pytest.raises(FileNotFoundError, match=r"stalign\.io\.read_visium_hd"):
        stalign.io.read_visium(outs)


def test_all_missing_files_are_listed(own):
    folder = own / "binned_outputs" / "square_008um"
    (folder / "spatial" / "tissue_positions.parquet").unlink()
    (folder / "filtered_feature_bc_matrix.h5").rename(folder / "old.h5")
    with pytest.raises(
        FileNotFoundError, match="no filtered_feature_bc_matrix.h5 and no spatial/tissue_positions.parquet.*'old.h5'"
    ):
        stalign.io.read_visium_hd(own)
    shutil.rmtree(own / "segmented_outputs")
    with pytest.raises(FileNotFoundError, match="cell_segmentations.geojson.*Space Ranger 4"):
        stalign.io.read_visium_hd(own, cells=True)


@pytest.mark.parametrize(
    ("file", "what", "cells"),
    [
        ("binned_outputs/square_008um/filtered_feature_bc_matrix.h5", "counts", False),
        ("binned_outputs/square_008um/spatial/tissue_positions.parquet", "parquet", False),
        ("binned_outputs/square_008um/spatial/scalefactors_json.json", "JSON", False),
        ("segmented_outputs/cell_segmentations.geojson", "outlines", True),
        ("microscope_image/toy_hd.tif", "TIFF", False),
    ],
)
def test_a_damaged_file_is_named(own, file, what, cells):
    whole = (own / file).read_bytes()
    (own / file).write_bytes(whole[: len(whole) // 2] if file.endswith(("json", "h5")) else b"no such thing")
    with pytest.raises(ValueError, match=rf"Expected.*{what}.*{Path(file).name}"):
        stalign.io.read_visium_hd(own, cells=cells)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda _: [], "JSON object.*a list"),
        (lambda factors: {**factors, "bin_size_um": "eight"}, "'bin_size_um' of .*json.*'eight'"),
        (lambda factors: {**factors, "tissue_hires_scalef": 0}, "'tissue_hires_scalef' of .*json.*positive.*0"),
        (lambda factors: dict.fromkeys(factors), ""),
        (lambda factors: {key: str(value) for key, value in factors.items()}, ""),
    ],
)
def test_scale_factors_are_numbers_or_named(own, change, found):
    file = own / "binned_outputs" / "square_008um" / "spatial" / "scalefactors_json.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    if found:
        with pytest.raises(ValueError, match=f"Expected.*{found}"):
            stalign.io.read_visium_hd(own)
    else:
        assert sections(stalign.io.read_visium_hd(own))[0].coord_mpp == pytest.approx(0.5)


def _rewrite(file, change):
    """Change every cell of a file of outlines, or leave some out."""
    content = json.loads(file.read_text())
    content["features"] = [change(number, cell) for number, cell in enumerate(content["features"])]
    file.write_text(json.dumps(content))


def test_cells_are_found_by_number_or_name(own):
    def renamed(number, cell):
        cell_id = cell["properties"]["cell_id"]
        cell["properties"]["cell_id"] = [cell_id, str(cell_id), f"{cell_id}.0", f"cellid_{cell_id:09d}-1"][number % 4]
        return cell

    whole = stalign.io.read_visium_hd(own, cells=True).tables["cell_segmentations"]
    _rewrite(own / "segmented_outputs" / "cell_segmentations.geojson", renamed)
    table = stalign.io.read_visium_hd(own, cells=True).tables["cell_segmentations"]
    np.testing.assert_array_equal(table.obsm["spatial"], whole.obsm["spatial"])


def test_cells_without_a_polygon_are_left_out(own, caplog):
    others = [None, {"type": "Polygon", "coordinates": []}, {"type": "Point", "coordinates": [100.0, 100.0]}]

    def emptied(number, cell):
        cell["geometry"] = others[number] if number < 3 else cell["geometry"]
        if number == 3:
            outline = cell["geometry"]["coordinates"]
            beside = [[[x + 4, y] for x, y in outline[0]]]
            cell["geometry"] = {"type": "MultiPolygon", "coordinates": [outline, beside]}
        return cell

    names = stalign.io.read_visium_hd(own, cells=True).tables["cell_segmentations"].obs_names
    for kind in ("cell", "nucleus"):
        _rewrite(own / "segmented_outputs" / f"{kind}_segmentations.geojson", emptied)
    sdata = stalign.io.read_visium_hd(own, cells=True, library_id="S")
    assert list(sdata.tables["cell_segmentations"].obs_names) == list(names[3:])
    assert "3 of" in caplog.text
    assert "no outlines" in caplog.text
    assert sdata["S_cell_segmentations"].geometry.iloc[0].geom_type == "MultiPolygon"
    assert len(sdata["S_nucleus_segmentations"]) == len(names) - 3


def test_cells_are_no_bins_whatever_their_scale_factors_say(own):
    file = own / "segmented_outputs" / "spatial" / "scalefactors_json.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "bin_size_um": 2.0}))
    view = sections(stalign.io.read_visium_hd(own, cells=True))[0]
    assert view.technology == "unknown"
    assert 8 < view.spot_diameter_um < 11


def test_counts_of_another_bin_size_are_refused(own):
    folder = own / "binned_outputs"
    shutil.copy(folder / "square_016um/filtered_feature_bc_matrix.h5", folder / "square_008um")
    with pytest.raises(ValueError, match="counts with 's_016um.*positions with 's_008um.*one size of bins"):
        stalign.io.read_visium_hd(own)
    shutil.copytree(folder / "square_016um", folder / "square_008um", dirs_exist_ok=True)
    with pytest.raises(ValueError, match="bins of 8 µm by the scale factors.*16"):
        stalign.io.read_visium_hd(own)


def test_flat_bins_beside_their_archive_and_what_macos_leaves(own):
    for folder in (own / "binned_outputs").iterdir():
        folder.rename(own / folder.name)
    (own / "binned_outputs.tar.gz").write_bytes(b"archive")  # what is left of `binned_outputs` is an empty folder
    assert stalign.io.read_visium_hd(own).tables["square_008um"].n_obs > 500
    (own / "binned_outputs").rmdir()
    with pytest.raises(FileNotFoundError, match=r"stalign\.io\.read_visium_hd"):
        stalign.io.read_visium(own)
    (own / "microscope_image" / "._toy_hd.tif").write_bytes(b"")
    (own / "._x_feature_slice.h5").write_bytes(b"")
    sdata = stalign.io.read_visium_hd(own)
    assert sdata.tables["square_008um"].n_obs > 500
    names = [*sdata.images, *sdata.shapes]
    assert all(name.startswith("S_1_") for name in names)  # the folder's name, as SpatialData takes it
    sdata.write(own / "written.zarr")
    assert list(stalign.io.read_visium_hd(own, library_id="_a/b").shapes) == ["a_b_square_008um"]


def test_what_is_still_packed_is_named(own):
    for name in ("binned_outputs", "segmented_outputs"):
        shutil.rmtree(own / name)
    (own / "binned_outputs.tar.gz").write_bytes(b"archive")
    with pytest.raises(FileNotFoundError, match=r"Unpack binned_outputs\.tar\.gz"):
        stalign.io.read_visium_hd(own)


@pytest.mark.parametrize("suffix", [".btf", ".tif", ".svs"])
def test_a_large_tiff_is_read_by_region(own, suffix, monkeypatch):
    import tifffile

    monkeypatch.setattr("stalign.io._hd_images._CHUNK", 256)

    pixels = np.asarray(Image.open(own / "microscope_image" / "toy_hd.tif"))
    (own / "microscope_image" / "toy_hd.tif").unlink()
    file = own / f"image{suffix}"
    tifffile.imwrite(file, pixels, tile=(128, 128), bigtiff=True, photometric="rgb", compression="deflate")
    sdata = stalign.io.read_visium_hd(own, image=file, library_id="S")
    full = sdata.images["S_full_image"]["scale0"]["image"].data
    file.write_bytes(file.read_bytes()[:-50_000])  # the last tiles are gone, which only matters to who reads them
    np.testing.assert_array_equal(full[:, :100, :90].compute(), pixels[:100, :90].transpose(2, 0, 1))
    with pytest.raises(FileNotFoundError, match="image file.*the folder .*microscope_image"):
        stalign.io.read_visium_hd(own, image=own / "microscope_image")
    with pytest.raises(FileNotFoundError, match="image file.*toy.tif"):
        stalign.io.read_visium_hd(own, image=own / "toy.tif")


def test_an_image_of_another_size_lies_where_that_of_space_ranger_lay(own, caplog):
    """A scan twice as fine would otherwise show each bin the tissue at half of its place."""
    file = own / "microscope_image" / "toy_hd.tif"
    image = Image.open(file).copy()
    image.resize((2 * image.width, 2 * image.height)).save(file)
    section = sections(stalign.io.read_visium_hd(own, library_id="S"))[0]
    assert "2 times as large" in caplog.text
    assert section.image.key == "S_full_image"
    assert section.image.scale == 2
    assert section.image.mpp == 0.25
    image.crop((0, 0, image.width, image.height // 2)).save(file)
    with pytest.raises(ValueError, match="Expected the image that the hires image was made of.*neither cropped"):
        stalign.io.read_visium_hd(own)


def test_two_full_resolution_images_are_not_guessed_between(own):
    shutil.copy(own / "microscope_image" / "toy_hd.tif", own / "microscope_image" / "b.tif")
    with pytest.raises(ValueError, match="one full-resolution image.*'b.tif', 'toy_hd.tif'.*`image=`"):
        stalign.io.read_visium_hd(own)


def test_nuclei_are_kept_beside_their_cells(outs):
    sdata = stalign.io.read_visium_hd(outs, cells=True)
    library = outs.parent.name
    cells, nuclei = (sdata.shapes[f"{library}_{kind}_segmentations"] for kind in ("cell", "nucleus"))
    assert list(nuclei.index) == list(cells.index)
    assert (nuclei.area / cells.area).median() == pytest.approx(0.36, abs=0.01)  # a share of .6 of the radius
    assert set(sdata.coordinate_systems) == set(stalign.io.read_visium_hd(outs).coordinate_systems)
    assert sections(sdata)[0].image.key == f"{library}_full_image"


def test_nuclei_hold_the_counts_of_their_squares(tmp_path):
    import pandas as pd

    outs = stalign.datasets.write_toy_hd(tmp_path / "outs", bins=(2,), side_um=200)
    sdata = stalign.io.read_visium_hd(outs, cells="nuclei", library_id="S")
    table, squares = sdata.tables["nucleus_segmentations"], stalign.datasets.toy_hd(2, side_um=200)
    mappings = pd.read_parquet(outs / "barcode_mappings.parquet")
    name = table.obs_names[7]
    own = mappings.loc[mappings["in_nucleus"] & (mappings["cell_id"] == name), "square_002um"]
    expected = np.asarray(squares[squares.obs_names.isin(own)].X.sum(axis=0)).ravel()
    np.testing.assert_array_equal(table[name].X.toarray().ravel(), expected)
    assert 0 < table.X.sum() < stalign.io.read_visium_hd(outs, cells=True).tables["cell_segmentations"].X.sum()
    assert list(sdata.shapes) == ["S_nucleus_segmentations"]
    view = sections(sdata)[0]
    assert 4 < view.spot_diameter_um < 7
    assert view.image.key == "S_full_image"


def test_what_nuclei_need_is_asked_for(own):
    with pytest.raises(ValueError, match="`cells` to be True, False or 'nuclei'.*'cell'"):
        stalign.io.read_visium_hd(own, cells="cell")
    with pytest.raises(ValueError, match="bins of 2 µm"):  # only those of 8 and 16 µm are there
        stalign.io.read_visium_hd(own, cells="nuclei")
    (own / "barcode_mappings.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"barcode_mappings\.parquet"):
        stalign.io.read_visium_hd(own, cells="nuclei")
    (own / "segmented_outputs" / "nucleus_segmentations.geojson").unlink()
    assert list(stalign.io.read_visium_hd(own, cells=True, library_id="S").shapes) == ["S_cell_segmentations"]
