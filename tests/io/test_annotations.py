"""Labels of QuPath and Loupe Browser, in their layouts, and back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from stalign.io import read_annotations, write_annotations


def _broken(**geometry):
    return json.dumps([{"geometry": geometry, "properties": {"classification": {"name": "a"}}}])


@pytest.fixture
def grid():
    """Eight by eight spots, 100 px apart, with barcodes as Space Ranger writes them."""
    xy = np.stack(np.meshgrid(range(8), range(8)), axis=-1).reshape(-1, 2) * 100.0 + 50
    obs = pd.DataFrame(index=[f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}{'ACGT'[i // 16]}-1" for i in range(64)])
    adata = AnnData(np.ones((64, 3), np.float32), obs=obs, obsm={"spatial": xy})
    adata.uns["spatial"] = {"s": {"images": {}, "scalefactors": {"tissue_hires_scalef": 0.1}, "metadata": {}}}
    return adata


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def annotation(geometry, classification):
    return {
        "type": "Feature",
        "id": "6d5f",
        "geometry": geometry,
        "properties": {"objectType": "annotation", "classification": classification, "isLocked": False},
    }


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def save(path, content, *, bom=False):
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + json.dumps(content).encode())
    return path


def labels(adata, key="annotation"):
    return adata.obs[key].astype(object).where(adata.obs[key].notna(), "").to_numpy().reshape(8, 8)


def test_polygons_with_holes_parts_and_colours(grid, tmp_path):
    tumour = polygon(box(0, 0, 400, 400), box(100, 100, 200, 200))
    islands = {"type": "MultiPolygon", "coordinates": [[box(500, 500, 600, 600)], [box(700, 700, 800, 800)]]}
    file = save(
        tmp_path / "a.geojson",
        {
            "type": "FeatureCollection",
            "features": [
                annotation(tumour, {"name": "Tumor", "color": [200, 0, 0]}),
                annotation(islands, {"name": "Stroma", "colorRGB": -16777056}),
            ],
        },
        bom=True,
    )
    read_annotations(grid, file)
    found = labels(grid)
    assert (found == "Tumor").sum() == 15
    assert found[1, 1] == ""
    assert np.argwhere(found == "Stroma").tolist() == [[5, 5], [7, 7]]
    assert dict(zip(grid.obs["annotation"].cat.categories, grid.uns["annotation_colors"], strict=True)) == {
        "Tumor": "#C80000",
        "Stroma": "#0000A0",
    }


@pytest.mark.parametrize("wrap", [lambda f: [f], lambda f: f, lambda f: {"type": "FeatureCollection", "features": [f]}])
def test_lists_single_features_and_collections(grid, tmp_path, wrap):
    file = save(tmp_path / "a.json", wrap(annotation(polygon(box(0, 0, 100, 100)), {"name": "x"})))
    read_annotations(grid, file)
    assert (labels(grid) == "x").sum() == 1


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor: Positive"}, "Tumor: Positive"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive"),
        ({"classification": {"name": "Tumor"}}, "Tumor"),
        ("Tumor", "Tumor"),
        ({"name": " Tumor "}, "Tumor"),
    ],
)
def test_spellings_of_a_class(grid, tmp_path, classification, name):
    read_annotations(grid, save(tmp_path / "a.geojson", [annotation(polygon(box(0, 0, 100, 100)), classification)]))
    assert labels(grid)[0, 0] == name


def test_smaller_region_wins_in_any_order_and_points_above_all(grid, tmp_path):
    large = annotation(polygon(box(0, 0, 800, 800)), {"name": "large"})
    small = annotation(polygon(box(0, 0, 200, 200)), {"name": "small"})
    points = annotation({"type": "MultiPoint", "coordinates": [[55, 52], [760, 760], [5000, 0]]}, {"name": "dot"})
    for order in ([large, small, points], [points, small, large]):
        read_annotations(grid, save(tmp_path / "a.geojson", order))
        found = labels(grid)
        assert (found == "small").sum() == 3
        assert np.argwhere(found == "dot").tolist() == [[0, 0], [7, 7]]
        assert (found == "large").sum() == 59


def test_objects_without_class_and_self_crossing_outlines(grid, tmp_path, log):
    bow = polygon([[0, 0], [400, 400], [400, 0], [0, 400], [0, 0]])
    content = [annotation(bow, {"name": "bow"}), annotation(polygon(box(0, 0, 800, 800)), None)]
    content[1]["properties"].pop("classification")
    read_annotations(grid, save(tmp_path / "a.geojson", content))
    assert "1 objects of a.geojson have no class" in log.text
    assert 0 < (labels(grid) == "bow").sum() < 16


def test_px_of_an_image(grid, tmp_path):
    file = save(tmp_path / "a.geojson", [annotation(polygon(box(0, 0, 20, 20)), {"name": "x"})])
    read_annotations(grid, file, image_key="hires")
    assert np.argwhere(labels(grid) == "x").tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    with pytest.raises(KeyError, match="tissue_lowres_scalef"):
        read_annotations(grid, file, image_key="lowres")
    far = save(tmp_path / "b.geojson", [annotation(polygon(box(9000, 9000, 9100, 9100)), {"name": "x"})])
    before = grid.obs.copy()
    with pytest.raises(ValueError, match="9000 to 9100.*image_key"):
        read_annotations(grid, far)
    pd.testing.assert_frame_equal(grid.obs, before)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "Expected GeoJSON in"),
        ('{"type": "Topology"}', "Topology"),
        ("3", "int"),
        (_broken(type="Polygon", coordinates=3), "geometry of class 'a'"),
        (_broken(type="Circle", coordinates=[1, 2]), "geometry of class 'a'"),
        (_broken(type="Polygon", coordinates=[[[float("nan"), 0], [1, 1], [2, 0], [0, 0]]]), "geometry of class 'a'"),
        ('[{"geometry": {"type": "Point", "coordinates": [50, 50]}, "properties": [1]}]', "Found: 1 without. Give"),
    ],
)
def test_files_that_are_no_geojson(grid, tmp_path, text, error):
    file = tmp_path / "a.geojson"
    file.write_text(text)
    with pytest.raises(ValueError, match=error):
        read_annotations(grid, file)


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("sep", [",", "\t", ";"])
def test_loupe_csv(grid, tmp_path, bom, end, sep):
    file = tmp_path / "a.csv"
    lines = [sep.join(["Barcode", "my layers"]), sep.join([grid.obs_names[0], "L1"]), sep.join([grid.obs_names[9], ""])]
    lines += [sep.join([grid.obs_names[3], "WM"])]
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + end.join([*lines, ""]).encode())
    read_annotations(grid, file)
    column = grid.obs["my layers"]
    assert list(column.cat.categories) == ["L1", "WM"]
    assert column.iloc[[0, 3]].tolist() == ["L1", "WM"]
    assert column.notna().sum() == 2


def test_barcodes_match_without_their_suffix_and_by_the_barcode_column(grid, tmp_path, log):
    bare = [name[:-2] for name in grid.obs_names]
    file = tmp_path / "a.csv"
    pd.DataFrame({"Barcode": [*bare[:5], "TTTTTT"], "x": list("aabbcc")}).to_csv(file, index=False)
    read_annotations(grid, file)
    assert grid.obs["x"].iloc[:5].tolist() == list("aabbc")
    assert "1 of 6 barcodes" in log.text
    grid.obs["barcode"] = grid.obs_names
    grid.obs_names = [f"s_{name}" for name in grid.obs_names]
    read_annotations(grid, file, key="y")
    assert grid.obs["y"].iloc[:5].tolist() == list("aabbc")


def test_empty_lines_and_objects_that_mark_no_spot(grid, tmp_path, log):
    file = tmp_path / "a.csv"
    file.write_text('\nBarcode,x\n\nAAA-1,"tumour, invasive"\n,\n')
    read_annotations(grid, file)
    assert grid.obs["x"].iloc[0] == "tumour, invasive"
    assert grid.obs["x"].notna().sum() == 1
    line = {"type": "LineString", "coordinates": [[0, 0], [800, 800]]}
    content = [annotation(line, {"name": "line"}), annotation(polygon(box(0, 0, 100, 100)), {"name": "a"})]
    read_annotations(grid, save(tmp_path / "a.geojson", content))
    assert "1 of 2 objects of a.geojson mark no spot" in log.text


def test_bad_tables(grid, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("Barcode,x\nZZZ-1,a\n")
    with pytest.raises(ValueError, match="ZZZ-1 in the file and AAA-1"):
        read_annotations(grid, file)
    file.write_text("Barcode,x\nAAA-1,a\nAAA-1,b\n")
    with pytest.raises(ValueError, match="'AAA-1' twice"):
        read_annotations(grid, file)
    for text, error in [
        ("", "an empty file"),
        ("AAA-1,tumour\nCAA-1,tumour\n", "names of columns in the first line of .* Found: AAA-1. Add"),
        ("Barcode,x\nAAA-1,tumour, invasive\n", "Expected 2 cells .* Found: 3 in row 2"),
        ("Barcode,x\nAAA-1,\n", "labels in the column 'x'"),
    ]:
        file.write_text(text)
        with pytest.raises(ValueError, match=error):
            read_annotations(grid, file)
    with pytest.raises(FileNotFoundError):
        read_annotations(grid, tmp_path / "none.csv")
    with pytest.raises(ValueError, match="GeoJSON file or a CSV"):
        (tmp_path / "a.xlsx").write_text("")
        read_annotations(grid, tmp_path / "a.xlsx")


@pytest.mark.parametrize("name", ["a.geojson", "a.csv"])
def test_out_and_in_again(grid, tmp_path, name):
    values = np.array(["A", "B", "Ä: x"], dtype=object)[np.arange(64) // 22]
    values[5] = None
    grid.obs["stalign_annotation"] = pd.Categorical(values, categories=["Ä: x", "B", "A"])
    grid.uns["stalign_annotation_colors"] = ["#112233", "#445566", "#778899"]
    path = write_annotations(grid, tmp_path / name)
    read_annotations(grid, path, key="back")
    known = grid.obs["stalign_annotation"].notna()
    assert (grid.obs["back"].astype(str) == grid.obs["stalign_annotation"].astype(str))[known].all()
    if name.endswith("json"):
        found = dict(zip(grid.obs["back"].cat.categories, grid.uns["back_colors"], strict=True))
        assert found == {"Ä: x": "#112233", "B": "#445566", "A": "#778899"}
        features = json.loads(path.read_text())["features"]
        assert {f["geometry"]["type"] for f in features} <= {"Polygon", "MultiPolygon"}
        assert {f["properties"]["objectType"] for f in features} == {"annotation"}
    else:
        assert path.read_text().startswith("Barcode,stalign_annotation\n")
        assert len(path.read_text().splitlines()) == 1 + 63
        assert grid.obs["back"].notna().sum() == 63
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_one_section_of_several(grid, tmp_path):
    grid.obs["library"] = np.repeat(["s", "t"], 32)
    file = save(tmp_path / "a.geojson", [annotation(polygon(box(0, 0, 800, 800)), {"name": "x"})])
    with pytest.raises(KeyError, match="'s', 't'"):
        read_annotations(grid, file, library_key="library")
    read_annotations(grid, file, library_key="library", library="t")
    other = save(tmp_path / "b.geojson", [annotation(polygon(box(0, 0, 800, 800)), {"name": "y"})])
    read_annotations(grid, other, library_key="library", library="s")
    assert grid.obs["annotation"].tolist() == ["y"] * 32 + ["x"] * 32


def test_copy_and_missing_column(grid, tmp_path):
    file = save(tmp_path / "a.geojson", [annotation(polygon(box(0, 0, 800, 800)), {"name": "x"})])
    assert "annotation" in read_annotations(grid, file, copy=True).obs
    assert "annotation" not in grid.obs
    with pytest.raises(KeyError, match="tl.annotate"):
        write_annotations(grid, tmp_path / "x.csv")
    grid.obs["a"] = "b"
    with pytest.raises(ValueError, match=r"\.geojson or \.csv"):
        write_annotations(grid, tmp_path / "x.txt", key="a")
