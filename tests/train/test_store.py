from __future__ import annotations

import errno
import gzip
import zlib
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

import stalign as st
from stalign.data import read_orthologs
from stalign.models.config import MINI
from stalign.train import slide_reader
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.patterns import left_out
from stalign.train.readers import weights_of
from stalign.train.slides import Slide, as_slides
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
    for content in (b"", b"\xff\xfe,b\n"):
        (tmp_path / "bad.tsv").write_bytes(content)
        with pytest.raises(ValueError, match=r"table of orthologs in .*bad\.tsv"):
            read_orthologs(tmp_path / "bad.tsv")
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
    found = [section[:2] for section in store.fingerprint()]
    assert found == [["toy_1", len(store.sections[0].rows)], ["toy_2", len(store.sections[1].rows)]]


def test_donors_by_column_and_names_that_come_twice(toy2):
    table = toy2.copy()
    table.obs["patient"] = np.where(table.obs["library"] == "toy_1", "P1", "P2")
    slide = Slide(SectionSpec("a", library_key="library", donor_key="patient"), table)
    store = open_store([slide], DataConfig(exclude=("P2",)), SPEC)
    assert [s.donor for s in store.sections] == ["P1"]
    manifest = store.manifest().set_index("section")
    assert manifest.loc["toy_2", "why"] == "excluded by its donor 'P2'"
    other = Slide(SectionSpec("b", library_key="library", donor_key="patient"), table.copy())
    twice = open_store([slide, other], DataConfig(exclude=("P2",)), SPEC)
    assert [s.name for s in twice.sections] == ["toy_1", "toy_1 (2)"]
    assert all(s.fits(["toy_1"]) for s in twice.sections)  # both are held out by the name in their tables
    assert [s.fits("toy_1 (2)") for s in twice.sections] == [False, True]
    assert twice.manifest().query("kept")["section"].tolist() == ["toy_1", "toy_1 (2)"]
    for donors in ([f"P{i}" for i in range(table.n_obs)], ["P1", *[None] * (table.n_obs - 1)]):
        table.obs["patient"] = donors
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
    rows = np.flatnonzero(toy2.obs["library"] == stored.name)[stored.rows[:4]]
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


def test_a_section_that_is_listed_again_is_used_once(toy2):
    slide = Slide(SectionSpec("a", library_key="library"), toy2)
    one = Slide(replace(slide.spec, include=("toy_1",), donor="P1"), toy2)
    store = open_store([slide, slide, one], DataConfig(), SPEC)
    assert [s.name for s in store.sections] == ["toy_1", "toy_2"]
    assert store.manifest()["why"].tolist().count("listed more than once") == 3
    store = open_store([slide, one], DataConfig(exclude=("P1",)), SPEC)
    assert [s.name for s in store.sections] == ["toy_2"]
    assert set(store.manifest().query("not kept and section == 'toy_1'")["why"]) == {"excluded by its donor 'P1'"}
    twins = Slide(replace(slide.spec, donor_key="patient"), toy2.copy())
    twins.data.obs["patient"] = np.where(toy2.obs["library"] == "toy_1", "P1", "P2")
    same = Slide(slide.spec, twins.data)
    store = open_store([same, twins], DataConfig(exclude=("P1",)), SPEC)
    assert [s.name for s in store.sections] == ["toy_2"]


@pytest.mark.parametrize("pattern", ["hest/bad", "BAD", "b*d", "Br1", "A study"])
def test_an_excluded_slide_is_not_opened(toy2, tmp_path, pattern):
    bad = SectionSpec("hest", format="hest", slide="bad", donor="Br1", study="A study")
    slides = [Slide(SectionSpec("a.h5ad", library_key="library"), toy2), *as_slides([bad], root=tmp_path)]
    with pytest.raises(RuntimeError, match="Cannot read slide 'hest/bad'"):
        open_store(slides, DataConfig(), SPEC)
    store = open_store(slides, DataConfig(exclude=(pattern,)), SPEC)
    row = store.manifest().query("not kept").iloc[0]
    assert row["slide"] == "hest/bad" and row["why"].startswith("excluded by its ")
    for name in ("a.h5ad", "a"):
        with pytest.raises(ValueError, match=rf"a\.h5ad: excluded by its slide '{name}"):
            open_store(slides[:1], DataConfig(exclude=(name,)), SPEC)


def test_patterns_to_exclude_that_fit_nothing_are_told(toy2, caplog):
    slide = Slide(SectionSpec("a", library_key="library"), toy2)
    with st.settings.override(verbosity="warning"):
        open_store([slide], DataConfig(exclude=("toy_2", "nobody")), SPEC)
    told = [r.getMessage() for r in caplog.records if "fits no" in r.getMessage()]
    assert told == ["The exclude pattern 'nobody' fits no slide."]


def failing(monkeypatch, bad, error):
    """Let one slide fail as it is opened."""
    open_slide = slide_reader.open_slide

    def fails(slide):
        if slide is bad:
            raise error
        return open_slide(slide)

    monkeypatch.setattr(slide_reader, "open_slide", fails)


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no x"),
        IndexError("7"),
        KeyError("spots"),
        NameError("x"),
        NotImplementedError("x"),
        TypeError("an integer is required"),
        OSError(errno.EMFILE, "Too many open files"),
    ],
)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_mistake_that_is_not_the_slide_s_passes_with_its_name(toy2, monkeypatch, error, on_error):
    bad = Slide(SectionSpec("bad", library_key="library"), toy2)
    failing(monkeypatch, bad, error)
    with pytest.raises(type(error)) as caught:
        open_store([bad], DataConfig(on_error=on_error), SPEC)
    assert caught.value.__notes__[-1] == "While reading slide 'bad'."


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (EOFError("Compressed file ended"), "EOFError: Compressed file ended"),
        (EOFError(), "EOFError"),
        (TypeError("Expected a table. Found: none."), "Expected a table. Found: none"),
        (PermissionError(13, "Permission denied"), "[Errno 13] Permission denied"),
        (RuntimeError("unspecified"), "RuntimeError: unspecified"),
        (zlib.error("Error -3"), "zlib.error: Error -3"),
        (KeyError("object 'spots' doesn't exist"), "KeyError: object 'spots' doesn't exist"),
        (KeyError("Expected a column. Found: none."), "Expected a column. Found: none"),
        (ValueError("7"), "ValueError: 7"),
    ],
)
def test_whatever_is_wrong_with_a_slide_is_told_and_skipped(toy2, monkeypatch, error, found):
    good, bad = (Slide(SectionSpec(name, library_key="library"), toy2) for name in ("good", "bad"))
    failing(monkeypatch, bad, error)
    with pytest.raises(RuntimeError) as caught:
        open_store([good, bad], DataConfig(), SPEC)
    assert f"Cannot read slide 'bad'. Found: {found}. Mend it" in str(caught.value)
    store = open_store([good, bad], DataConfig(on_error="skip"), SPEC)
    assert len(store.sections) == 2
    assert store.manifest().query("not kept")["why"].item().rstrip(".") == f"cannot be read: {found}"


def test_weights_of_encoders_start_from_the_root(tmp_path):
    weights = {"uni": "w/uni.bin", "conch": str(tmp_path / "conch.bin"), "phikon": "random"}
    config = DataConfig(root="elsewhere", encoder_weights=weights)
    assert weights_of(config, "uni") == "elsewhere/w/uni.bin"
    assert weights_of(config, "conch") == str(tmp_path / "conch.bin")
    assert weights_of(config, "phikon") == "random" and weights_of(config, "other") is None


def test_another_vocabulary_file_of_the_same_length_is_surveyed_anew(toy2, tmp_path):
    table = toy2[toy2.obs["library"] == "toy_1"].copy()
    table.var_names = [f"ENSG{i:011d}" for i in range(table.n_vars)]
    table.write_h5ad(tmp_path / "toy.h5ad")
    slides = as_slides([SectionSpec("toy.h5ad", library_key="library")], root=tmp_path)
    config = DataConfig(root=str(tmp_path), store="disk", vocabulary="genes.csv")
    found = []
    for letter in "AB":
        lines = [f"ENSG{i:011d},{letter}{i}" for i in range(300)]
        (tmp_path / "genes.csv").write_text("\n".join(lines))
        store = open_store(slides, config, SPEC, folder=tmp_path / "store")
        found.append({symbol[0] for symbol in store.vocabulary.symbols})
    assert found == [{"A"}, {"B"}]


def test_a_store_is_told_from_one_of_other_counts_positions_and_images(toy2):
    def fingerprint(table):
        return open_store([Slide(SectionSpec("a", library_key="library"), table)], DataConfig(), SPEC).fingerprint()

    before, counts, moved, smaller = fingerprint(toy2), toy2.copy(), toy2.copy(), toy2.copy()
    assert fingerprint(toy2.copy()) == before
    counts.X = sp.csr_matrix(counts.X)
    counts.X.data[0] += 1
    moved.obsm["spatial"] = moved.obsm["spatial"] + np.array([1.0, 0.0])
    images = smaller.uns["spatial"]["toy_1"]["images"]
    images["hires"] = images["hires"][:-1]
    pixel = toy2.copy()
    images = pixel.uns["spatial"]["toy_1"]["images"]
    images["hires"] = images["hires"].copy()
    images["hires"][0, 0, 0] ^= 1  # any pixel, also one that no spot covers
    for other, kind in ((counts, "counts"), (moved, "positions"), (smaller, "image"), (pixel, "image")):
        now = fingerprint(other)
        assert [s[:2] for s in now] == [s[:2] for s in before]
        assert {part for part, value in before[0][2].items() if now[0][2][part] != value} == {kind}
