from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import stalign as st
from stalign.cli import main
from stalign.train import curate_hest, curate_stimage
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.manifest import kept_slides
from stalign.train.slides import as_slides, read_slide
from stalign.train.store import open_store


def stimage_slide(root, name, tech="Visium", n_rows=10, suffix="png", separator=",", bom=False):
    """Write a slide as the collection has it: y before x, prefixed spot names, images under the wrong suffix."""
    from PIL import Image

    adata = st.datasets.toy(n_rows=n_rows)
    spots = [f"{name}_{i}x{i}" for i in range(adata.n_obs)]
    folder = root / tech
    for part in ("image", "coord", "gene_exp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    scale = 0.25
    x, y = adata.obsm["spatial"].T * scale
    coords = pd.DataFrame({"yaxis": y, "xaxis": x, "r": 13.75}, index=spots)
    text = ("\ufeff" if bom else "") + coords.to_csv(sep=separator)
    (folder / "coord" / f"{name}_coord.csv").write_text(text, encoding="utf-8")
    counts = pd.DataFrame(adata.X.toarray()[:, :60], index=spots, columns=adata.var_names[:60])
    counts.to_csv(folder / "gene_exp" / f"{name}_count.csv", sep=separator)
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    Image.fromarray(pixels).save(folder / "image" / f"{name}.{suffix}", format="jpeg")
    return adata.n_obs


@pytest.fixture
def stimage(tmp_path):
    root = tmp_path / "STimage-1K4M"
    rows = []
    for name, species, tech, pmid, title, options in (
        ("GSE1_GSM1", "human", "Visium", "100", "One", {}),
        ("GSE1_GSM2", "human", "Visium", "100", "One", {"separator": "\t", "bom": True}),
        ("Human_Brain_Maynard_02082021_Visium_151673", "human", "Visium", "200", "Cortex", {"suffix": "tif"}),
        ("Mouse_Kidney_X", "mouse", "Visium", None, "Mouse", {}),
        ("Human_Breast_Andersson_ST_A1", "human", "ST", "300", "Breast", {}),
        ("GSE2_GSM9", "human", "Visium", "400", "Small", {}),
    ):
        n = stimage_slide(root, name, tech, **options)
        n = 40 if name == "GSE2_GSM9" else n
        rows.append(
            {
                "slide": name,
                "species": species,
                "tissue": "brain",
                "pmid": pmid,
                "title": title,
                "tech": tech,
                "spot_num": n,
            }
        )
    rows.append({**rows[0], "slide": "GSE3_GSM1"})  # in the table and not on disk
    (root / "meta").mkdir()
    pd.DataFrame(rows[:2]).to_csv(root / "meta" / "meta_all_gene.csv", index=False)
    table = pd.DataFrame(rows).to_csv(index=False, sep="\t")
    (root / "meta" / "meta_all_gene02122025.csv").write_text("\ufeff" + table, encoding="utf-8")
    return root


def test_stimage_keeps_and_says_why_not(stimage, tmp_path):
    out = tmp_path / "manifest.csv"
    table = curate_stimage(stimage, out, exclude=["*Maynard*"]).set_index("slide")
    assert table.index[table["kept"]].tolist() == ["GSE1_GSM1", "GSE1_GSM2"]
    assert table["why"].to_dict() == {
        "GSE1_GSM1": "",
        "GSE1_GSM2": "",
        "Human_Brain_Maynard_02082021_Visium_151673": (
            "excluded by its slide 'Human_Brain_Maynard_02082021_Visium_151673'"
        ),
        "Mouse_Kidney_X": "species is mouse",
        "Human_Breast_Andersson_ST_A1": "technology is ST",
        "GSE2_GSM9": "40 spots, fewer than 50",
        "GSE3_GSM1": "no counts and no coordinates and no image on disk",
    }
    assert table.loc["GSE1_GSM1", "study"] == "100"
    specs = kept_slides(out)
    assert [(s.slide, s.format, s.study) for s in specs] == [
        ("GSE1_GSM1", "stimage", "100"),
        ("GSE1_GSM2", "stimage", "100"),
    ]
    store = open_store(as_slides(specs), DataConfig(), st.models.MINI.input)
    assert [s.name for s in store.sections] == ["GSE1_GSM1", "GSE1_GSM2"]
    assert {s.stratum for s in store.sections} == {"both"}
    a, b = (s.reader for s in store.sections)
    np.testing.assert_array_equal(a.expression.scores, b.expression.scores)  # one slide under two separators


def test_stimage_excludes_by_study_and_donor(stimage):
    table = curate_stimage(stimage, exclude=["100"], donors={"GSE2_GSM9": "Br1"}, min_spots=1).set_index("slide")
    assert table.index[table["kept"]].tolist() == ["Human_Brain_Maynard_02082021_Visium_151673", "GSE2_GSM9"]
    assert table.loc["GSE1_GSM1", "why"] == "excluded by its study '100'"
    table = curate_stimage(stimage, exclude=["br1"], donors={"GSE2_GSM9": "Br1"}, min_spots=1).set_index("slide")
    assert table.loc["GSE2_GSM9", "why"] == "excluded by its donor 'Br1'"


def write_stimage_table(root, rows):
    (root / "meta").mkdir(parents=True)
    base = {"species": "human", "tech": "Visium", "pmid": "1", "title": "T", "spot_num": "99"}
    pd.DataFrame([{**base, **row} for row in rows]).to_csv(root / "meta" / "meta_all_gene.csv", index=False)


def test_a_slide_of_several_rows_is_judged_once(tmp_path, caplog):
    for name in ("A", "B"):
        stimage_slide(tmp_path, name)
    rows = [{"slide": "A"}, {"slide": "B"}, {"slide": "A", "title": "Held out"}, {"slide": "B"}, {"slide": None}]
    write_stimage_table(tmp_path, rows)
    with st.settings.override(verbosity="warning"):
        table = curate_stimage(tmp_path, exclude=["held*", "nobody"])
    held = "excluded by its title 'Held out'"
    assert table["why"].tolist() == [held, "", held, "listed more than once", "no slide id"]
    assert table["kept"].tolist() == [False, True, False, False, False]
    assert [r.getMessage() for r in caplog.records] == ["The exclude pattern 'nobody' fits no slide."]
    assert curate_stimage(tmp_path, exclude="held*", species="human")["kept"].sum() == 1  # a text is one value


def test_a_slide_without_an_image_can_be_trained_on(tmp_path):
    for name in ("A[1]", "B"):
        stimage_slide(tmp_path, name)
    (tmp_path / "Visium" / "image" / "B.png").unlink()
    write_stimage_table(tmp_path, [{"slide": "A[1]"}, {"slide": "B"}])
    assert curate_stimage(tmp_path)["why"].tolist() == ["", "no image on disk"]
    assert curate_stimage(tmp_path, tmp_path / "manifest.csv", images=False)["image"].tolist() == [True, False]
    store = open_store(as_slides(kept_slides(tmp_path / "manifest.csv")), DataConfig(), st.models.MINI.input)
    assert [(s.name, s.stratum) for s in store.sections] == [("A[1]", "both"), ("B", "gene")]


def test_the_scale_that_a_configuration_names_is_used(tmp_path):
    stimage_slide(tmp_path, "HD", tech="VisiumHD")
    spec = SectionSpec(str(tmp_path), format="stimage", slide="HD", mpp=2.0, image=False)
    data = read_slide(*as_slides([spec]))
    metadata = data.uns["spatial"]["HD"]["metadata"]
    assert metadata["um_per_px"] == 2.0 and "image_file" not in metadata


def test_tables_that_cannot_be_read_are_named(tmp_path):
    file = tmp_path / "meta" / "meta_all_gene.csv"
    file.parent.mkdir()
    for content, found in (
        (b"slide,species,tech\n", "a header alone"),
        (b"", "No columns"),
        (b"slide\n\xff\xfe", "utf-8"),
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"meta_all_gene\.csv.*{found}"):
            curate_stimage(tmp_path)


def test_a_folder_is_no_place_for_a_manifest(stimage, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="Expected `out` to be a file.*the folder"):
        curate_stimage(stimage, tmp_path / "out")
    assert not list(tmp_path.glob("*saving*")) and not list((tmp_path / "out").iterdir())


def test_no_table_and_wrong_columns(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta_all_gene\*.csv"):
        curate_stimage(tmp_path)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "meta_all_gene.csv").write_text("slide,spot_num\nA,1\n")
    with pytest.raises(ValueError, match="Expected columns species, tech"):
        curate_stimage(tmp_path)
    (tmp_path / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="Expected a manifest"):
        kept_slides(tmp_path / "manifest.csv")
    with pytest.raises(FileNotFoundError, match="Expected a manifest"):
        kept_slides(tmp_path / "none.csv")


def test_hest_keeps_and_says_why_not(tmp_path):
    root = tmp_path / "hest"
    (root / "st").mkdir(parents=True)
    toy = st.datasets.toy(n_rows=10)
    image = toy.uns["spatial"]["toy"]["images"]["hires"]
    toy.uns["spatial"] = {
        "ST": {
            "images": {"downscaled_fullres": image},
            "scalefactors": {"spot_diameter_fullres": 110.0, "tissue_downscaled_fullres_scalef": 0.25},
        }
    }
    rows = []
    for sample, species, tech, patient in (
        ("TENX1", "Homo sapiens", "Visium", "Patient 1"),
        ("TENX2", "Homo sapiens", "Visium", "Patient 2"),
        ("MISC4", "Homo sapiens", "Visium", None),
        ("TENX3", "Mus musculus", "Visium", "Patient 1"),
        ("TENX4", "Homo sapiens", "Xenium", "Patient 1"),
        ("GONE", "Homo sapiens", "Visium", "Patient 3"),
    ):
        if sample != "GONE":
            toy.write_h5ad(root / "st" / f"{sample}.h5ad")
        rows.append(
            {
                "id": sample,
                "species": species,
                "st_technology": tech,
                "patient": patient,
                "dataset_title": "A study",
                "organ": "Brain",
                "spots_under_tissue": float(toy.n_obs),
            }
        )
    text = pd.DataFrame(rows).to_csv(index=False)
    (root / "HEST_v1_1_0.csv").write_text("\ufeff" + text, encoding="utf-8")
    out = tmp_path / "manifest.csv"
    table = curate_hest(root, out, exclude=["MISC*", "A study/Patient 2"]).set_index("slide")
    assert table["why"].to_dict() == {
        "TENX1": "",
        "TENX2": "excluded by its donor 'A study/Patient 2'",
        "MISC4": "excluded by its slide 'MISC4'",
        "TENX3": "species is Mus musculus",
        "TENX4": "technology is Xenium",
        "GONE": "no counts on disk",
    }
    store = open_store(as_slides(kept_slides(out)), DataConfig(), st.models.MINI.input)
    assert [(s.name, s.stratum, s.donor) for s in store.sections] == [("TENX1", "both", "A study/Patient 1")]


def test_hest_samples_are_judged_once_and_donors_are_named_without_a_study(tmp_path):
    base = {"species": "Homo sapiens", "st_technology": "Visium", "spots_under_tissue": "99", "patient": "1"}
    rows = [
        {"id": "A", "dataset_title": None},
        {"id": "B", "dataset_title": "S"},
        {"id": "B", "dataset_title": "Held out", "st_technology": "Visium HD"},
        {"id": "A", "dataset_title": None},
        {"id": None, "dataset_title": "S"},
    ]
    pd.DataFrame([{**base, **row} for row in rows]).to_csv(tmp_path / "HEST_v1.csv", index=False)
    (tmp_path / "st").mkdir()
    for sample in "AB":
        (tmp_path / "st" / f"{sample}.h5ad").touch()
    table = curate_hest(tmp_path, exclude=["held out"])
    held = "excluded by its study 'Held out'"
    assert table["why"].tolist() == ["", held, "technology is Visium HD", "listed more than once", "no slide id"]
    assert table["donor"].tolist()[:2] == ["A/1", "S/1"]


def stimage_table(path, n=1149, **columns):
    """A metadata table of the size of the collection's, with its columns and 531 human Visium slides."""
    rows = pd.DataFrame(
        {
            "slide": [f"GSE{i // 4}_GSM{i}" for i in range(n)],
            "species": ["human" if i < 672 else "mouse" for i in range(n)],
            "tissue": "brain",
            "pmid": [str(30000000 + i // 4) if i % 4 else None for i in range(n)],
            "title": [f"Study {i // 4}" for i in range(n)],
            "abstract": "words " * 200,
            "keywords": "k",
            "involve_cancer": "no",
            "tech": ["Visium" if i < 531 or i >= 672 else "ST" for i in range(n)],
            "spot_num": 2000,
            "gene_num": 36601,
            **columns,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(path, index=False)


def test_a_dry_curation_of_the_whole_collection_needs_no_files_and_few_seconds(tmp_path):
    path = tmp_path / "meta" / "meta_all_gene02122025.csv"
    stimage_table(path)
    start = time.perf_counter()
    table = curate_stimage(tmp_path, tmp_path / "manifest.csv", files=False, exclude=["*GSM11", "31*"])
    assert time.perf_counter() - start < 10
    assert len(table) == 1149 and table["kept"].sum() == 530
    assert curate_stimage(path, files=False)["kept"].sum() == 531
    assert set(curate_stimage(path, files=False)["root"]) == {str(tmp_path)}
    assert (curate_stimage(tmp_path)["why"].iloc[:3] == "no counts and no coordinates and no image on disk").all()
    assert main(["curate", "stimage", str(path), "--no-files", "--out", str(tmp_path / "cli.csv")]) == 0
    assert pd.read_csv(tmp_path / "cli.csv")["kept"].sum() == 531


def test_donors_of_the_table_are_guarded(tmp_path):
    path = tmp_path / "meta" / "meta_all_gene.csv"
    stimage_table(path, n=6, patient=["P1", "P1", "P2", None, "P3", "P3"])
    table = curate_stimage(path, files=False, exclude=["P1"], donors={"GSE1_GSM4": "other"}).set_index("slide")
    assert table["donor"].fillna("").tolist() == ["P1", "P1", "P2", "", "other", "P3"]
    assert table["why"].tolist() == ["excluded by its donor 'P1'"] * 2 + [""] * 4


def test_a_dry_curation_of_hest(tmp_path):
    pd.DataFrame(
        {"id": ["A1", "A2"], "species": "Homo sapiens", "st_technology": "Visium", "spots_under_tissue": 900}
    ).to_csv(tmp_path / "HEST_v1_1_0.csv", index=False, encoding="utf-8-sig")
    assert curate_hest(tmp_path / "HEST_v1_1_0.csv", files=False)["kept"].all()
    assert not curate_hest(tmp_path)["kept"].any()
