from __future__ import annotations

import gzip

import numpy as np
import pytest
import scipy.sparse as sp

import stalign as st
from stalign.models.config import MINI
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.orthologs import read_orthologs
from stalign.train.slides import Slide, as_slides, left_out
from stalign.train.store import open_store
from stalign.train.vocabulary import GeneCensus, choose, human_symbols, read_gene_file

SPEC = MINI.input


def test_census_ranks_by_tables_sections_spots_and_name():
    census = GeneCensus()
    census.add(["A", "B", None, "C"], [np.array([9, 1, 50, 0]), np.array([0, 1, 50, 3])])
    census.add(["B", "D", "C"], [np.array([1, 3, 1])])
    # B and C are in two tables; B in three sections, C in two.
    assert census.ranked() == ["B", "C", "A", "D"]


def test_vocabulary_is_filled_and_sorted():
    census = GeneCensus()
    census.add(["SNAP25", "Snap25", "MBP"], [np.array([5, 9, 1])])
    vocabulary = choose(census, 3, [("PCP4", "ENSG00000183036"), ("MBP", "ENSG00000197971"), ("TP53", "")])
    assert vocabulary.symbols == ("MBP", "PCP4", "Snap25")  # one spelling of SNAP25, the most widely detected
    assert vocabulary.ensembl == ("ENSG00000197971", "ENSG00000183036", "")
    with pytest.raises(ValueError, match="Expected genes with human symbols"):
        choose(GeneCensus(), 3)


def test_gene_names_become_human_symbols(tmp_path):
    assert human_symbols(["Snap25", "Gm1"], {"Snap25": "SNAP25"}, {}) == ["SNAP25", None]
    assert human_symbols(["ENSG01.3", "MBP", " "], None, {"ENSG01": "TTN"}) == ["TTN", "MBP", None]
    (tmp_path / "genes.txt").write_text("MBP\nPCP4\n")
    assert read_gene_file(tmp_path / "genes.txt") == [("MBP", ""), ("PCP4", "")]
    with gzip.open(tmp_path / "genes.tsv.gz", "wt") as file:
        file.write("ENSG00000197971.14\tMBP\tGene Expression\n")
    assert read_gene_file(tmp_path / "genes.tsv.gz") == [("MBP", "ENSG00000197971")]


def test_orthologs_are_found_by_name(tmp_path):
    (tmp_path / "o.tsv").write_text(
        "human_symbol\thuman_entrez\tmouse_symbol\tmgi_id\nSNAP25\t1\tSnap25\tM\nX\t2\t\tM\n"
    )
    assert read_orthologs(tmp_path / "o.tsv") == {"Snap25": "SNAP25"}
    (tmp_path / "o.csv").write_text("rat,man\nSnap25,SNAP25\n")
    assert read_orthologs(tmp_path / "o.csv", ("rat", "man")) == {"Snap25": "SNAP25"}
    with pytest.raises(ValueError, match="ortholog_columns"):
        read_orthologs(tmp_path / "o.csv")
    with pytest.raises(FileNotFoundError):
        as_slides([SectionSpec("a.h5ad", orthologs="none.tsv")], root=tmp_path)


def test_a_section_can_be_left_out_by_name_donor_and_study():
    slide = Slide(SectionSpec("a.h5ad", donor="Br8100", study="Maynard", include=("1516*",), exclude=("151670",)))
    assert left_out(slide, "151510", None, ()) == "not among those to include"
    assert left_out(slide, "151670", None, ()) == "excluded by its table's `exclude`"
    assert left_out(slide, "151673", None, ()) is None
    assert left_out(slide, "151673", None, ["br8100"]) == "excluded by its donor 'Br8100'"
    assert left_out(slide, "151673", "other", ["br8100"]) is None
    assert left_out(slide, "151673", None, ["May*"]) == "excluded by its study 'Maynard'"


def test_mouse_and_human_sections_share_a_vocabulary(toy2):
    mouse = toy2[toy2.obs["library"] == "toy_2"].copy()
    mouse.var_names = [f"Mm{name.capitalize()}" for name in mouse.var_names]
    orthologs = {f"Mm{name.capitalize()}": name for name in toy2.var_names[:600]}
    human = toy2[toy2.obs["library"] == "toy_1"].copy()
    slides = [
        Slide(SectionSpec("human", library_key="library"), human),
        Slide(SectionSpec("mouse", library_key="library"), mouse, orthologs=orthologs),
    ]
    store = open_store(slides, DataConfig(max_genes=700), SPEC)
    assert len(store.vocabulary.symbols) == 700
    a, b = (s.reader.expression for s in store.sections)
    assert a.n_matched == 700 and b.n_matched == 600
    column = store.vocabulary.symbols.index(toy2.var_names[5])
    np.testing.assert_allclose(b.counts[:, column].toarray().ravel(), mouse.X[:, 5].toarray().ravel())
    assert store.fingerprint() == [["toy_1", len(store.sections[0].rows)], ["toy_2", len(store.sections[1].rows)]]


def test_donors_by_column_and_names_that_come_twice(toy2):
    table = toy2.copy()
    table.obs["patient"] = np.where(table.obs["library"] == "toy_1", "P1", "P2")
    slide = Slide(SectionSpec("a", library_key="library", donor_key="patient"), table)
    store = open_store([slide], DataConfig(exclude=("P2",)), SPEC)
    assert [s.donor for s in store.sections] == ["P1"]
    manifest = store.manifest().set_index("section")
    assert manifest.loc["toy_2", "why"] == "excluded by its donor 'P2'"
    twice = open_store([slide, slide], DataConfig(exclude=("P2",)), SPEC)
    assert [s.name for s in twice.sections] == ["toy_1", "toy_1 (2)"]
    table.obs["patient"] = [f"P{i}" for i in range(table.n_obs)]
    with pytest.raises(RuntimeError, match="Expected one donor"):
        open_store([slide], DataConfig(), SPEC)


def test_sections_of_different_inputs_are_told_apart(toy2, tmp_path):
    given = [
        Slide(SectionSpec("both", library_key="library", include=("toy_1",)), toy2),
        Slide(SectionSpec("genes", library_key="library", include=("toy_1",), image=False), toy2),
        Slide(SectionSpec("image", library_key="library", include=("toy_1",), genes=False), toy2),
    ]
    store = open_store(given, DataConfig(), SPEC)
    assert [s.stratum for s in store.sections] == ["both", "gene", "image"]
    with pytest.raises(ValueError, match="Expected counts in at least one section"):
        open_store(given[2:], DataConfig(), SPEC)


def test_frozen_features_as_arrays(toy2, tmp_path):
    features = np.random.default_rng(0).normal(size=(toy2.n_obs, 6)).astype(np.float32)
    np.save(tmp_path / "uni.npy", features)
    spec = SectionSpec("a", library_key="library", features={"niche_image": "uni.npy"})
    before = set(toy2.obsm)
    store = open_store([Slide(spec, toy2, root=tmp_path)], DataConfig(), SPEC)
    stored = store.sections[1]
    assert stored.stratum == "both+niche_image"
    batch = stored.reader.batch(stored.rows[:4])
    rows = stored.reader.section.rows[stored.rows[:4]]
    np.testing.assert_array_equal(batch.niche_image.numpy(), features[rows])
    assert batch.spot_image.shape == (4, 3, 28, 28)
    assert set(toy2.obsm) == before  # the caller's table is left alone
    np.save(tmp_path / "uni.npy", features[:-1])
    with pytest.raises(RuntimeError, match=rf"Expected {toy2.n_obs} rows of features for 'niche_image'"):
        open_store([Slide(spec, toy2, root=tmp_path)], DataConfig(), SPEC)


def test_reads_h5ad_with_its_image_and_spatialdata(toy2, tmp_path):
    toy2.write_h5ad(tmp_path / "toy.h5ad")
    slides = as_slides([SectionSpec("toy.h5ad", library_key="library")], root=tmp_path)
    assert [s.stratum for s in open_store(slides, DataConfig(), SPEC).sections] == ["both", "both"]
    sdata = st.datasets.toy(n_rows=10, spatialdata=True)
    store = open_store(as_slides([sdata]), DataConfig(), SPEC)
    assert store.sections[0].stratum == "both"
    (tmp_path / "folder").mkdir()
    with pytest.raises(RuntimeError, match="Name its `format`"):
        open_store(as_slides([tmp_path / "folder"]), DataConfig(), SPEC)
    with pytest.raises(RuntimeError, match="Expected a slide at"):
        open_store(as_slides(["none.h5ad"], root=tmp_path), DataConfig(), SPEC)


def test_negative_counts_stop_and_name_the_section(toy2):
    bad = toy2.copy()
    bad.X = sp.csr_matrix(bad.X).astype(float)
    bad.X.data[0] = -1
    with pytest.raises(RuntimeError, match="negative values"):
        open_store([Slide(SectionSpec("bad", library_key="library"), bad)], DataConfig(), SPEC)
