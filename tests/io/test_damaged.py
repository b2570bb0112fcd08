"""Damaged, hand-edited and foreign files: read where the meaning is plain, else one error that names the file."""

from __future__ import annotations

import atexit
import functools
import gzip
import io
import json
import re
import shutil
import tempfile
from pathlib import Path

import anndata
import folders
import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stalign

POSITIONS = "spatial/tissue_positions.csv"
FACTORS = "spatial/scalefactors_json.json"
COUNTS = "filtered_feature_bc_matrix.h5"
HIRES = "spatial/tissue_hires_image.png"
SLIDE = "Human_Brain_Toy_01012020_Visium_A1"


def cut(name, share=0.5):
    def change(root):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: int(share * len(whole))])

    return change


def write(name, content):
    return lambda root: (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def recode(name, function):
    return lambda root: (root / name).write_bytes(function((root / name).read_bytes()))


def pack(name):
    def change(root):
        (root / f"{name}.gz").write_bytes(gzip.compress((root / name).read_bytes()))
        (root / name).unlink()

    return change


def table(name, function, *, index=True, **options):
    def change(root):
        found = pd.read_csv(root / name, index_col=0 if index else None)
        function(found).to_csv(root / name, index=index, **options)

    return change


def positions(function, **options):
    return table(POSITIONS, function, index=False, **options)


def column(name, function):
    return positions(lambda found: found.assign(**{name: function(found)}))


def facts(name, **changes):
    return lambda root: (root / name).write_text(json.dumps(json.loads((root / name).read_text()) | changes))


def datasets(name, **changes):
    def change(root):
        with h5py.File(root / name, "a") as handle:
            for key, value in changes.items():
                del handle[key.replace("__", "/")]
                if value is not None:
                    handle[key.replace("__", "/")] = value

    return change


def h5ad(name, function):
    def change(root):
        adata = anndata.read_h5ad(root / name)
        found = function(adata)
        (found if isinstance(found, anndata.AnnData) else adata).write_h5ad(root / name)

    return change


def both(*changes):
    return lambda root: [change(root) for change in changes]


@functools.cache
def written(kind):
    """A whole folder, made once, and what it was made of."""
    where = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, where, ignore_errors=True)
    return where, getattr(folders, f"write_{kind}")(where)


def copy(kind, root):
    where, made = written(kind)
    shutil.copytree(where, root, dirs_exist_ok=True)
    return made


def refused(call, match, *kinds):
    with pytest.raises(kinds or ValueError, match=match) as caught:
        call()
    assert str(caught.value).strip("'\"").startswith("Expected")
    assert "\n" not in str(caught.value)


# --- Space Ranger folders ---


def in_row(row):
    """Rows of the positions file; the first is a spot out of tissue."""
    return lambda found: found.index == row


VISIUM_READ = {
    "tabs": positions(lambda t: t, sep="\t"),
    "semicolons": positions(lambda t: t, sep=";"),
    "quotes": positions(lambda t: t, quoting=1),
    "CRLF": recode(POSITIONS, lambda b: b.replace(b"\n", b"\r\n")),
    "CR": recode(POSITIONS, lambda b: b.replace(b"\n", b"\r")),
    "byte order mark": recode(POSITIONS, lambda b: b"\xef\xbb\xbf" + b),
    "UTF-16": recode(POSITIONS, lambda b: b.decode().encode("utf-16")),
    "blank lines": recode(POSITIONS, lambda b: b"\n" + b + b"\n\n"),
    "gzipped": pack(POSITIONS),
    "gzipped under the plain name": recode(POSITIONS, gzip.compress),
    "plain under the name of a gzipped file": lambda d: (d / POSITIONS).rename(d / f"{POSITIONS}.gz"),
    "columns in another order": positions(lambda t: t[t.columns[[3, 0, 2, 5, 4, 1]]]),
    "capitals": positions(lambda t: t.rename(columns=str.upper)),
    "spaces": positions(lambda t: t.rename(columns=lambda c: f" {c} ").map(lambda v: f" {v} ")),
    "an extra column": positions(lambda t: t.assign(note="x, y")),
    "row numbers": table(POSITIONS, lambda t: t.reset_index().set_axis(range(len(t))), index=True),
    "header one short": recode(POSITIONS, lambda b: b.replace(b"barcode,", b"", 1)),
    "header with a blank": recode(POSITIONS, lambda b: b.replace(b"barcode,", b'"",', 1)),
    "True and False": column("in_tissue", lambda t: t.in_tissue.astype(bool)),
    "1.0 and 0.0": column("in_tissue", lambda t: t.in_tissue.astype(float)),
    "a spot out of tissue without array_row": column(
        "array_row", lambda t: t.array_row.astype(float).mask(in_row(0)(t))
    ),
    "rows twice": positions(lambda t: pd.concat([t, t.iloc[5:8]])),
    "resource fork of positions": write("spatial/._tissue_positions.csv", b"\0\5\x16\7"),
    "bools in parquet": lambda d: (
        pd.read_csv(d / POSITIONS)
        .assign(in_tissue=lambda t: t.in_tissue.astype(bool))
        .to_parquet(d / "spatial/tissue_positions.parquet"),
        (d / POSITIONS).unlink(),
    ),
    "geojson beside the image": write("spatial/tissue_hires_image.geojson", "{}"),
    "resource fork of the image": write("spatial/._tissue_hires_image.png", b"\0\5\x16\7"),
    "suffix in capitals": lambda d: (d / HIRES).rename(d / "spatial/tissue_hires_image.PNG"),
    "lowres cut short": cut("spatial/tissue_lowres_image.png"),
    "resource fork of prefixed counts": both(
        lambda d: (d / COUNTS).rename(d / f"GSM1_{COUNTS}"), write(f"._GSM1_{COUNTS}", b"\0\5\x16\7")
    ),
    "mark before JSON": recode(FACTORS, lambda b: b"\xef\xbb\xbf" + b),
    "JSON in UTF-16": recode(FACTORS, lambda b: b.decode().encode("utf-16")),
    "JSON gzipped": pack(FACTORS),
    "factor as text": facts(FACTORS, tissue_hires_scalef="0.25"),
    "factor in a list": facts(FACTORS, tissue_hires_scalef=[0.25]),
    "no spot diameter": facts(FACTORS, spot_diameter_fullres=None),
}


@pytest.mark.parametrize("kind", VISIUM_READ)
def test_visium_read_as_meant(tmp_path, kind):
    made = copy("visium", tmp_path)
    VISIUM_READ[kind](tmp_path)
    adata = stalign.io.read_visium(tmp_path)
    assert list(adata.obs_names) == list(made.obs_names)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"])
    for name in ("array_row", "array_col"):
        assert adata.obs[name].dtype == np.int64
        np.testing.assert_array_equal(adata.obs[name], made.obs[name])
    assert (adata.obs["in_tissue"] == 1).all()
    entry = adata.uns["spatial"]["V1_Toy"]
    assert entry["scalefactors"]["tissue_hires_scalef"] == 0.25
    assert entry["metadata"]["image_key"] == "hires"


TABLE = r"tissue_positions\.csv"
VISIUM_REFUSED = {
    "counts cut short": (cut(COUNTS), rf"{COUNTS}, which can't be read \(.*truncated.*counts_file="),
    "counts empty": (write(COUNTS, ""), rf"{COUNTS}, which can't be read"),
    "counts are text": (write(COUNTS, "<html>"), rf"{COUNTS}, which can't be read"),
    "counts are an h5ad": (lambda d: folders.toy().write_h5ad(d / COUNTS), rf"{COUNTS}, which can't be read"),
    "no barcodes": (datasets(COUNTS, matrix__barcodes=None), rf"{COUNTS}, which can't be read"),
    "no features": (datasets(COUNTS, matrix__features=None), rf"{COUNTS}, which can't be read"),
    "too few barcodes": (datasets(COUNTS, matrix__barcodes=np.array([b"A-1"])), rf"{COUNTS}, which can't be read"),
    "counts of another type": (
        datasets(COUNTS, matrix__data=np.array([b"1"] * 9)),
        rf"{COUNTS}, which can't be read",
    ),
    "a barcode twice in the counts": (
        datasets(COUNTS, matrix__barcodes=np.array([b"A-1"] * 99)),
        rf"each barcode once in .*{COUNTS}.*'A-1'",
    ),
    "two counts files": (
        lambda d: (shutil.copy(d / COUNTS, d / f"GSM1_{COUNTS}"), (d / COUNTS).rename(d / f"GSM2_{COUNTS}")),
        rf"one file with the counts.*GSM1_{COUNTS}, GSM2_{COUNTS}. Pass `counts_file=`",
    ),
    "counts gzipped": (pack(COUNTS), rf"Unpack {COUNTS}\.gz with gunzip"),
    "image cut short": (cut(HIRES), r"tissue_hires_image\.png, which can't be read.*image='lowres'"),
    "image empty": (write(HIRES, ""), r"tissue_hires_image\.png, which can't be read"),
    "image is text": (write(HIRES, "<html>"), r"tissue_hires_image\.png, which can't be read"),
    "image gzipped": (
        both(pack(HIRES), lambda d: (d / "spatial/tissue_lowres_image.png").unlink()),
        r"Unpack tissue_hires_image\.png\.gz",
    ),
    "JSON cut short": (cut(FACTORS), r"JSON object in .*scalefactors_json\.json. Found: .*fetch the file again"),
    "JSON empty": (write(FACTORS, ""), r"JSON object in .*scalefactors_json\.json"),
    "JSON a list": (write(FACTORS, "[1]"), r"JSON object in .*scalefactors_json\.json. Found: a list"),
    "JSON in no UTF": (write(FACTORS, b"\xff\xff{"), r"JSON object in .*scalefactors_json\.json"),
    "no factor": (facts(FACTORS, tissue_hires_scalef=None), r"'tissue_hires_scalef' in .*scalefactors_json\.json"),
    "positions empty": (write(POSITIONS, ""), rf"spots in .*{TABLE}. Found: an empty table"),
    "positions of blank lines": (write(POSITIONS, "\n\n"), rf"spots in .*{TABLE}. Found: an empty table"),
    "a header alone": (
        recode(POSITIONS, lambda b: b.split(b"\n")[0]),
        rf"spots in .*{TABLE}. Found: an empty table",
    ),
    "gzip cut short": (both(pack(POSITIONS), cut(f"{POSITIONS}.gz")), rf"{TABLE}\.gz, which can't be read"),
    "Latin-1": (recode(POSITIONS, lambda b: b + b"\xfcber,0,1,1,1,1\n"), rf"{TABLE}, which can't be read \(Unicode"),
    "a folder": (lambda d: ((d / POSITIONS).unlink(), (d / POSITIONS).mkdir()), rf"{TABLE}, which can't be read"),
    "parquet cut short": (
        both(
            lambda d: pd.read_csv(d / POSITIONS).to_parquet(d / "spatial/tissue_positions.parquet"),
            cut("spatial/tissue_positions.parquet"),
            lambda d: (d / POSITIONS).unlink(),
        ),
        r"tissue_positions\.parquet, which can't be read",
    ),
    "columns of other software": (
        positions(lambda t: t.set_axis(["barcode", "tissue", "row", "col", "imagerow", "imagecol"], axis=1)),
        rf"columns in_tissue, .* in .*{TABLE}.*Found: tissue, row.*Rename",
    ),
    "a column twice": (
        positions(lambda t: t.set_axis(["barcode", "in_tissue", "array_row", "array_row", *t.columns[4:]], axis=1)),
        "each once. Found: in_tissue, array_row, array_row",
    ),
    "a row too long": (recode(POSITIONS, lambda b: b + b"A,1,2,3,4,5,6,7\n"), rf"6 cells .*{TABLE}. Found: 8.*'A'"),
    "cut short in a row": (cut(POSITIONS, 0.503), rf"6 cells in each row of .*{TABLE}. Found: 1 cells"),
    "in_tissue in words": (
        column("in_tissue", lambda t: t.in_tissue.map({0: "no", 1: "yes"})),
        rf"in_tissue to be 0 or 1 in .*{TABLE}. Found: 'no' for spot 'TTTT",
    ),
    "in_tissue of 2": (column("in_tissue", lambda t: 2), "in_tissue to be 0 or 1 .* Found: '2'"),
    "all out of tissue": (column("in_tissue", lambda t: 0), rf"in tissue in .*{TABLE}. Found: .* all 99 .*Write 1"),
    "a barcode twice": (
        positions(lambda t: pd.concat([t, t.iloc[5:8].assign(array_row=1)])),
        rf"one row per spot in .*{TABLE}. Found: .*different rows.*'ACGT.*Delete",
    ),
    "an array_row missing": (
        column("array_row", lambda t: t.array_row.astype(float).mask(in_row(5)(t))),
        rf"number in column 'array_row' of .*{TABLE} for spot 'ACGT.*Found: nothing; so in 1 rows",
    ),
    "a fraction of a row": (column("array_row", lambda t: t.array_row + 0.5), "whole numbers in column 'array_row'"),
    "text for a position": (
        column("pxl_row_in_fullres", lambda t: t.pxl_row_in_fullres.astype(object).mask(in_row(5)(t), "far")),
        "column 'pxl_row_in_fullres' of .*Found: 'far'; so in 1 rows",
    ),
    "infinity": (column("pxl_col_in_fullres", lambda t: np.inf), "'pxl_col_in_fullres' .*'inf'; so in 99 rows"),
    "decimal commas": (
        positions(lambda t: t.assign(pxl_row_in_fullres=t.pxl_row_in_fullres + 0.5), sep=";", decimal=","),
        r"Found: '\d+,5'; .*decimal point",
    ),
}


@pytest.mark.parametrize("kind", VISIUM_REFUSED)
def test_visium_refused_by_name(tmp_path, kind):
    copy("visium", tmp_path)
    change, match = VISIUM_REFUSED[kind]
    change(tmp_path)
    refused(lambda: stalign.io.read_visium(tmp_path), match, ValueError, FileNotFoundError, KeyError)


@pytest.mark.parametrize("key", ["tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres"])
def test_visium_scale_factors_that_are_no_lengths(tmp_path, key):
    copy("visium", tmp_path)
    match = rf"'{key}' of .*scalefactors_json.json to be a positive number. Found: "
    for value in (float("nan"), 0, -0.25, True, "", "a", "0,25", [1, 2], {"a": 1}, float("inf")):
        facts(FACTORS, **{key: value})(tmp_path)
        refused(functools.partial(stalign.io.read_visium, tmp_path), match + re.escape(repr(value)))


@pytest.mark.parametrize("damaged", ["hires", "lowres"])
def test_visium_a_damaged_image_is_left_out_where_another_is_asked_for(tmp_path, log, damaged):
    copy("visium", tmp_path)
    cut(f"spatial/tissue_{damaged}_image.png")(tmp_path)
    other = {"hires": "lowres", "lowres": "hires"}[damaged]
    adata = stalign.io.read_visium(tmp_path, image=other)
    assert list(adata.uns["spatial"]["V1_Toy"]["images"]) == [other]
    assert f"The {damaged} image is left out" in log.text


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_visium_a_damaged_full_image(tmp_path, content):
    made = copy("visium", tmp_path)
    folders.full_image(made).save(tmp_path / "full.tif")
    (cut("full.tif") if content is None else write("full.tif", content))(tmp_path)
    match = r"an image. Found: .*full\.tif, which can't be read.*Pass another image as `image=`"
    refused(lambda: stalign.io.read_visium(tmp_path, image=tmp_path / "full.tif"), match)


def test_visium_rows_left_out_are_counted(tmp_path, log):
    copy("visium", tmp_path)
    VISIUM_READ["rows twice"](tmp_path)
    stalign.io.read_visium(tmp_path)
    assert "3 rows of" in log.text


def matrix(root):
    from scipy.io import mmwrite

    made = folders.toy()
    (root / COUNTS).unlink()
    where, buffer = root / "filtered_feature_bc_matrix", io.BytesIO()
    where.mkdir()
    mmwrite(buffer, made.X.T.tocoo())
    genes = [f"E{i}\t{name}\tGene Expression" for i, name in enumerate(made.var_names)]
    for name, content in {
        "matrix.mtx": buffer.getvalue(),
        "barcodes.tsv": "\n".join(made.obs_names).encode(),
        "features.tsv": "\n".join(genes).encode(),
    }.items():
        (where / f"{name}.gz").write_bytes(gzip.compress(content))
    return where


@pytest.mark.parametrize(
    "change",
    [
        cut("matrix.mtx.gz"),
        lambda d: (d / "features.tsv.gz").unlink(),
        write("barcodes.tsv.gz", gzip.compress(b"A-1\n")),
        write("matrix.mtx.gz", b"text"),
    ],
)
def test_visium_a_damaged_matrix_folder(tmp_path, change):
    copy("visium", tmp_path)
    change(matrix(tmp_path))
    match = "Found: .*filtered_feature_bc_matrix, which can't be read .*counts_file="
    refused(lambda: stalign.io.read_visium(tmp_path, counts_file="filtered_feature_bc_matrix"), match)


def test_visium_counts_by_an_absolute_path_or_a_name_with_brackets(tmp_path):
    copy("visium", tmp_path)
    assert stalign.io.read_visium(tmp_path, counts_file=str(tmp_path / COUNTS)).n_obs == 99
    (tmp_path / COUNTS).rename(tmp_path / "a[1].h5")
    assert stalign.io.read_visium(tmp_path, counts_file="a[1].h5").n_obs == 99


@pytest.mark.parametrize("inner", ["outs", "sample", "sample/outs", "outs/outs"])
def test_visium_folders_in_folders(tmp_path, inner):
    copy("visium", tmp_path / inner)
    assert stalign.io.read_visium(tmp_path).n_obs == 99
    assert stalign.io.read_visium(tmp_path / inner / "spatial").n_obs == 99


def test_visium_folders_that_are_not_one_section(tmp_path):
    for name in ("a", "b/outs"):
        copy("visium", tmp_path / "two" / name)
    refused(lambda: stalign.io.read_visium(tmp_path / "two"), "one section in .*2 folders .*'a', 'b/outs'. Pass one")
    (tmp_path / "a.zip").write_bytes(b"PK")
    refused(lambda: stalign.io.read_visium(tmp_path / "a.zip"), "Unpack it", FileNotFoundError)
    (tmp_path / "hd" / "binned_outputs").mkdir(parents=True)
    refused(lambda: stalign.io.read_visium(tmp_path / "hd"), "read_visium_hd", FileNotFoundError)


# --- HEST ---

H5AD, FACTS, WSI = "st/MISC4.h5ad", "metadata/MISC4.json", "wsis/MISC4.tif"


def with_factor(value):
    return h5ad(H5AD, lambda a: a.uns["spatial"]["ST"]["scalefactors"].update(tissue_downscaled_fullres_scalef=value))


HEST_READ = {
    "mark before JSON": recode(FACTS, lambda b: b"\xef\xbb\xbf" + b),
    "JSON in UTF-16": recode(FACTS, lambda b: b.decode().encode("utf-16")),
    "scale as text": facts(FACTS, pixel_size_um_estimated="0.5"),
    "scale in a list": facts(FACTS, pixel_size_um_estimated=[0.5]),
    "geojson and XML beside the image": both(write("wsis/MISC4.geojson", "{}"), write("wsis/MISC4.aux.xml", "<a/>")),
    "another sample's image": write("wsis/MISC4.1.tif", "x"),
    "resource fork of the image": write("wsis/._MISC4.tif", b"\0"),
    "factor as text": with_factor("0.0625"),
    "factor in an array": with_factor(np.array([0.0625])),
    "sparse coordinates": h5ad(
        H5AD, lambda a: a.obsm.update(spatial=__import__("scipy.sparse").sparse.csr_matrix(a.obsm["spatial"]))
    ),
    "coordinates as text": h5ad(
        H5AD, lambda a: a.obsm.update(spatial=pd.DataFrame(a.obsm["spatial"], a.obs_names, ["x", "y"]).astype(str))
    ),
    "three coordinates": h5ad(H5AD, lambda a: a.obsm.update(spatial=np.c_[a.obsm["spatial"], np.zeros(a.n_obs)])),
}


@pytest.mark.parametrize("kind", HEST_READ)
def test_hest_read_as_meant(tmp_path, kind):
    made, sample = copy("hest", tmp_path)
    HEST_READ[kind](tmp_path)
    adata = stalign.io.read_hest(tmp_path, sample)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"])
    entry = adata.uns["spatial"][sample]
    assert entry["metadata"]["um_per_px"] == 0.5
    assert entry["metadata"]["source_image_path"] == str(tmp_path / WSI)
    assert entry["scalefactors"]["tissue_downscaled_fullres_scalef"] == 0.0625


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.uns.update(spatial="x"),
        lambda a: a.uns["spatial"].update(ST="x"),
        lambda a: a.uns["spatial"]["ST"].update(images="x"),
        lambda a: a.uns["spatial"]["ST"].update(scalefactors="x"),
    ],
)
def test_hest_entries_that_are_no_mappings_are_passed_over(tmp_path, change):
    _, sample = copy("hest", tmp_path)
    h5ad(H5AD, change)(tmp_path)
    assert stalign.io.read_hest(tmp_path, sample).uns["spatial"][sample]["metadata"]["image_key"] == "fullres"


HEST_REFUSED = {
    "table cut short": (cut(H5AD), r"MISC4\.h5ad, which can't be read"),
    "table empty": (write(H5AD, ""), r"MISC4\.h5ad, which can't be read"),
    "table is text": (write(H5AD, "x"), r"MISC4\.h5ad, which can't be read"),
    "table gzipped": (pack(H5AD), r"Unpack MISC4\.h5ad\.gz"),
    "table of 10x": (lambda d: folders.write_10x(d / H5AD, folders.toy()), r"MISC4\.h5ad, which can't be read"),
    "JSON cut short": (cut(FACTS), r"JSON object in .*MISC4\.json"),
    "JSON in Latin-1": (write(FACTS, b'{"organ": "\xfc"}'), r"JSON object in .*MISC4\.json"),
    "scale of 0": (facts(FACTS, pixel_size_um_estimated=0), r"'pixel_size_um_estimated' of .*MISC4\.json.*Found: 0"),
    "scale below 0": (facts(FACTS, pixel_size_um_estimated=-1), r"of .*MISC4\.json.*Found: -1"),
    "scale in words": (facts(FACTS, pixel_size_um_estimated="a"), r"of .*MISC4\.json.*Found: 'a'"),
    "scale a bool": (facts(FACTS, pixel_size_um_estimated=True), r"of .*MISC4\.json.*Found: True"),
    "spot of 0": (facts(FACTS, spot_diameter=0), r"'spot_diameter' of .*MISC4\.json.*Found: 0"),
    "factor NaN": (with_factor(np.nan), r"'tissue_downscaled_fullres_scalef' of .*MISC4\.h5ad.*Found: nan"),
    "image cut short": (cut(WSI), r"MISC4\.tif, which can't be read.*image='downscaled'"),
    "image is text": (write(WSI, "x"), r"MISC4\.tif, which can't be read.*image='downscaled'"),
    "no coordinates": (h5ad(H5AD, lambda a: a.obsm.pop("spatial")), r"obsm\['spatial'\] in .*MISC4\.h5ad"),
    "one coordinate": (
        h5ad(H5AD, lambda a: a.obsm.update(spatial=a.obsm["spatial"][:, :1])),
        r"x and y in obsm\['spatial'\] of .*MISC4\.h5ad. Found: shape \(99, 1\)",
    ),
    "words for coordinates": (
        h5ad(H5AD, lambda a: a.obsm.update(spatial=pd.DataFrame({"x": "far", "y": "0"}, a.obs_names))),
        r"numbers in obsm\['spatial'\] of .*MISC4\.h5ad. Found: .*far",
    ),
    "no spots": (h5ad(H5AD, lambda a: a[:0].copy()), r"spots in .*MISC4\.h5ad. Found: none"),
}


@pytest.mark.parametrize("kind", HEST_REFUSED)
def test_hest_refused_by_name(tmp_path, kind):
    _, sample = copy("hest", tmp_path)
    change, match = HEST_REFUSED[kind]
    change(tmp_path)
    refused(lambda: stalign.io.read_hest(tmp_path, sample), match, ValueError, FileNotFoundError, KeyError)


def test_hest_nan_is_a_missing_value(tmp_path):
    _, sample = copy("hest", tmp_path)
    facts(FACTS, pixel_size_um_estimated=float("nan"), spot_diameter=float("nan"), organ=float("nan"))(tmp_path)
    metadata = stalign.io.read_hest(tmp_path, sample).uns["spatial"][sample]["metadata"]
    assert metadata["um_per_px"] == 0.25
    assert not {"spot_diameter_um", "organ"} & set(metadata)


def test_hest_a_damaged_slide_is_not_opened_where_another_image_is_asked_for(tmp_path):
    _, sample = copy("hest", tmp_path)
    cut(WSI)(tmp_path)
    entry = stalign.io.read_hest(tmp_path, sample, image="downscaled").uns["spatial"][sample]
    assert entry["metadata"]["image_key"] == "downscaled_fullres"


# --- STimage-1K4M ---

COORD, COUNT = f"Visium/coord/{SLIDE}_coord.csv", f"Visium/gene_exp/{SLIDE}_count.csv"
PICTURE, META = f"Visium/image/{SLIDE}.png", "meta/meta_all_gene02122025.csv"
C, G = rf"{SLIDE}_coord\.csv", rf"{SLIDE}_count\.csv"

STIMAGE_READ = {
    "counts with semicolons": recode(COUNT, lambda b: b.replace(b",", b";")),
    "counts with CRLF": recode(COUNT, lambda b: b.replace(b"\n", b"\r\n")),
    "counts in UTF-16": recode(COUNT, lambda b: b.decode("utf-8-sig").encode("utf-16")),
    "counts gzipped": pack(COUNT),
    "counts gzipped under the plain name": recode(COUNT, gzip.compress),
    "rows of counts twice": recode(COUNT, lambda b: b + b"".join(b.splitlines(keepends=True)[4:6])),
    "header one short": recode(COUNT, lambda b: b.decode("utf-8-sig").removeprefix(",").encode()),
    "resource fork of counts": write(f"Visium/gene_exp/._{SLIDE}_count.csv", b"\0"),
    "coordinates with semicolons": table(COORD, lambda t: t, sep=";"),
    "capitals": table(COORD, lambda t: t.rename(columns=str.upper)),
    "columns in another order": table(COORD, lambda t: t[["r", "xaxis", "yaxis"]].assign(z="x")),
    "rows of coordinates twice": table(COORD, lambda t: pd.concat([t, t.iloc[:2]])),
    "geojson beside the image": write(f"Visium/image/{SLIDE}.geojson", "{}"),
    "resource fork of the image": write(f"Visium/image/._{SLIDE}.png", b"\0"),
    "resource fork of the facts": write("meta/._meta_all_gene9.csv", b"\0\5"),
}


@pytest.mark.parametrize("kind", STIMAGE_READ)
def test_stimage_read_as_meant(tmp_path, kind):
    made, slide = copy("stimage", tmp_path)
    STIMAGE_READ[kind](tmp_path)
    adata = stalign.io.read_stimage(tmp_path, slide)
    np.testing.assert_array_equal(adata.X.toarray(), made.X.toarray())
    np.testing.assert_allclose(adata.obsm["spatial"], made.obsm["spatial"] / 4)
    assert list(adata.var["gene_name"]) == list(made.var_names)
    entry = adata.uns["spatial"][slide]
    np.testing.assert_array_equal(entry["images"]["fullres"], made.uns["spatial"]["toy"]["images"]["hires"])
    assert entry["scalefactors"]["spot_diameter_fullres"] == 32.5
    assert entry["metadata"]["species"] == "human"


STIMAGE_REFUSED = {
    "counts empty": (write(COUNT, ""), f"{G}, which can't be read"),
    "counts cut short": (cut(COUNT, 0.7), f"counts in .*{G}. Found: none or infinity for '.*fetch the file again"),
    "a header alone": (recode(COUNT, lambda b: b.split(b"\n")[0] + b"\n"), f"spots in .*{G}. Found: an empty table"),
    "words for counts": (table(COUNT, lambda t: t.astype(object).replace(1, "x")), f"{G}, which can't be read .*'x'"),
    "counts missing": (table(COUNT, lambda t: t.astype(float).replace(1, np.nan)), f"counts in .*{G}. Found: none"),
    "gzip cut short": (both(pack(COUNT), cut(f"{COUNT}.gz")), rf"{G}\.gz, which can't be read"),
    "a row too long": (recode(COUNT, lambda b: b + b"A" + b",1" * 60), f"{G}, which can't be read"),
    "a spot twice in the counts": (
        table(COUNT, lambda t: pd.concat([t, t.iloc[:2] + 1])),
        f"one row per spot in .*{G}. Found: 2 spots .*different counts. Available: '{SLIDE}_ACGTACGTACGT0000-1'",
    ),
    "two counts files": (
        lambda d: shutil.copy(d / COUNT, d / COUNT.replace(".csv", ".txt")),
        rf"one file with the counts.*{G}, {SLIDE}_count\.txt",
    ),
    "coordinates empty": (write(COORD, ""), f"{C}, which can't be read"),
    "words for coordinates": (table(COORD, lambda t: t.assign(r="far")), f"column 'r' of .*{C} for spot .*'far'"),
    "a spot twice": (table(COORD, lambda t: pd.concat([t, t.iloc[:2] + 1])), f"one row per spot in .*{C}.*different"),
    "radius of 0": (table(COORD, lambda t: t.assign(r=0)), f"'r' of .*{C} to be a positive number. Found: 0.0"),
    "no radius": (table(COORD, lambda t: t.assign(r=np.nan)), f"'r' of .*{C} .*Found: nan"),
    "radius below 0": (table(COORD, lambda t: t.assign(r=-1)), f"'r' of .*{C} .*Found: -1.0"),
    "infinity": (table(COORD, lambda t: t.assign(xaxis=np.inf)), f"column 'xaxis' of .*{C} .*'inf'; so in 99 rows"),
    "image cut short": (cut(PICTURE), rf"{SLIDE}\.png, which can't be read .*beyond the end.*image=False"),
    "image empty": (write(PICTURE, ""), rf"{SLIDE}\.png, which can't be read .*image=False"),
    "geojson alone": (
        lambda d: (d / PICTURE).rename((d / PICTURE).with_suffix(".geojson")),
        rf"the image in .*no such file.*{SLIDE}\.geojson.*image=False",
    ),
}


@pytest.mark.parametrize("kind", STIMAGE_REFUSED)
def test_stimage_refused_by_name(tmp_path, kind):
    _, slide = copy("stimage", tmp_path)
    change, match = STIMAGE_REFUSED[kind]
    change(tmp_path)
    refused(lambda: stalign.io.read_stimage(tmp_path, slide), match, ValueError, FileNotFoundError)


@pytest.mark.parametrize("content", [b"", b"\xff\xff\0"])
def test_stimage_facts_that_cannot_be_read_are_done_without(tmp_path, log, content):
    _, slide = copy("stimage", tmp_path)
    write(META, content)(tmp_path)
    assert stalign.io.read_stimage(tmp_path, slide).uns["spatial"][slide]["metadata"]["species"] == "wrong"
    assert META.split("/")[1] in log.text


# --- h5ad ---


def table_with_image(root):
    adata = folders.toy()
    adata.var_names_make_unique()
    pixels = adata.uns["spatial"]["toy"].pop("images")["hires"]
    adata.uns["spatial"]["toy"]["metadata"] = {"image_file": "a.png", "image_key": "hires"}
    Image.fromarray(pixels).save(root / "a.png")
    adata.write_h5ad(root / "a.h5ad")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (recode("a.h5ad", gzip.compress), r"a\.h5ad, which can't be read"),
        (lambda d: folders.write_10x(d / "a.h5ad", folders.toy()), r"a\.h5ad, which can't be read"),
        (datasets("a.h5ad", obs=None), r"a\.h5ad, which can't be read"),
        (datasets("a.h5ad", X__indptr=None), r"a\.h5ad, which can't be read"),
        (cut("a.png"), r"a\.png, which can't be read .*image=False"),
        (write("a.png", "x"), r"a\.png, which can't be read .*image=False"),
    ],
)
def test_h5ad_refused_by_name(tmp_path, change, match):
    table_with_image(tmp_path)
    change(tmp_path)
    refused(lambda: stalign.io.read_h5ad(tmp_path / "a.h5ad"), match)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.uns.update(spatial="x"),
        lambda a: a.uns["spatial"].update(toy="x"),
        lambda a: a.uns["spatial"]["toy"].update(metadata="x"),
        lambda a: a.uns["spatial"]["toy"]["metadata"].update(image_file=["a.png", "b.png"]),
        lambda a: a.uns["spatial"]["toy"]["metadata"].update(image_file=3.0),
        lambda a: a.uns["spatial"]["toy"]["metadata"].update(image_file="a" * 5000),
        lambda a: a.uns["spatial"]["toy"]["metadata"].update(image_file="."),
    ],
)
def test_h5ad_entries_that_name_no_file_are_passed_over(tmp_path, change):
    table_with_image(tmp_path)
    h5ad("a.h5ad", change)(tmp_path)
    assert stalign.io.read_h5ad(tmp_path / "a.h5ad").n_obs == 99
