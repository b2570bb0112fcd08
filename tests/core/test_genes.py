from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import sparse

from stalign.core.gene_names import renamed, spoiled
from stalign.core.genes import clean, is_ensembl, match

_SYMBOLS = ["MBP", "SNAP25", "C1orf61", "GFAP", "TUBB4A"]
_ENSEMBL = ["ENSG00000197971", "ENSG00000132639", "", "ENSG00000131095", "ENSG00000104833"]


@pytest.fixture(autouse=True)
def _few_genes():
    """Tests have fewer than 200 genes; the warning about it has a test of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Expected at least 200 genes")
        yield


def places(found):
    return dict(zip(found.columns.tolist(), found.targets.tolist(), strict=True))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (" SNAP25\t", "SNAP25"),
        ("ENSG00000132639.12", "ENSG00000132639"),
        ("ENSMUSG00000027273.8 ", "ENSMUSG00000027273"),
        ("ENSG00000228572.7_PAR_Y", "ENSG00000228572"),
        ("RP11-34P13.7", "RP11-34P13.7"),
        ("AC048382.5", "AC048382.5"),
        ("HLA-DRB1", "HLA-DRB1"),
        (7, "7"),
    ],
)
def test_clean(raw, expected):
    assert clean([raw]) == [expected]


def test_is_ensembl():
    names = ["ENSG00000132639", "ENSMUSG00000027273", "ENSA", "SNAP25", "ENSG0000013263"]
    assert [is_ensembl(name) for name in names] == [True, True, False, False, False]


def test_symbols_match_exactly_then_without_case():
    found = match(["GFAP", "unknown", "Snap25", "C1ORF61", "MBP"], _SYMBOLS)
    assert places(found) == {0: 3, 2: 1, 3: 2, 4: 0}
    assert found.unmatched == ("unknown",)
    assert found.kind == "symbol"
    assert found.n_matched == 4
    assert found.coverage == 4 / 5
    assert found.n_targets == 4
    assert found.vocabulary_coverage == 4 / 5


def test_ensembl_ids_match_with_and_without_version():
    found = match(["ENSG00000131095.9", "ENSG00000132639", "ENSG00000000001", "MBP"], _SYMBOLS, _ENSEMBL)
    assert places(found) == {0: 3, 1: 1, 3: 0}
    assert found.kind == "ensembl"


def test_a_vocabulary_without_some_ensembl_ids_does_not_match_empty_names():
    found = match(["MBP", "", "  "], _SYMBOLS, _ENSEMBL)
    assert places(found) == {0: 0}


def test_aliases_and_orthologs():
    found = match(
        ["Snap25", "Tubb4", "GFAP1", "Mbp", "Zzz"],
        _SYMBOLS,
        _ENSEMBL,
        aliases={"GFAP1": "GFAP"},
        orthologs={"Tubb4 ": "TUBB4A", "Snap25": "ENSG00000132639.1", "Mbp": "not in the vocabulary"},
    )
    assert places(found) == {0: 1, 1: 4, 2: 3}  # the table wins over Mbp's likeness to MBP


def test_an_exact_match_wins_over_the_ortholog_table():
    assert places(match(["GFAP"], _SYMBOLS, orthologs={"GFAP": "MBP"})) == {0: 3}


def test_collapse_sums_genes_that_share_a_target():
    ids = ["MBP", "x", "SNAP25", "MBP", "Gfap", "gfap"]
    found = match(ids, _SYMBOLS)
    counts = sparse.csr_matrix(np.arange(12).reshape(2, 6))
    expected = np.zeros((2, 5))
    expected[:, 0] = [0 + 3, 6 + 9]
    expected[:, 1] = [2, 8]
    expected[:, 3] = [4 + 5, 10 + 11]
    np.testing.assert_array_equal((counts @ found.collapse).toarray(), expected)
    assert found.collapse.shape == (6, 5)
    assert found.collapse.dtype == np.float32
    assert found.n_matched == 5
    assert found.n_targets == 3


def test_a_better_match_keeps_worse_ones_out():
    # As where human and mouse genes stand side by side: the mouse gene is not added to the human one.
    found = match(["Gfap", "GFAP", "MBPalias", "Mbp"], _SYMBOLS, aliases={"MBPalias": "MBP"})
    assert places(found) == {1: 3, 2: 0}
    assert found.unmatched == ("Gfap", "Mbp")


def test_duplicates_in_the_vocabulary_go_to_the_first():
    assert places(match(["A", "b"], ["A", "B", "A", "b"])) == {0: 0, 1: 3}


def test_numpy_and_pandas_names_are_taken():
    pd = pytest.importorskip("pandas")
    assert places(match(pd.Index(["MBP"]), np.array(_SYMBOLS), np.array(_ENSEMBL))) == {0: 0}


@pytest.mark.parametrize(
    ("ids", "ensembl", "hint"),
    [
        (["ENSG00000131095", "ENSG00000132639"], None, "Ensembl ids where symbols are expected"),
        (["ENSMUSG00000027273", "ENSMUSG00000027274"], _ENSEMBL, "another species"),
        (["0", "1", "2"], None, "numbers"),
        (["AT1G01010", "AT1G01020"], None, "right species"),
        ([], None, "no genes"),
    ],
)
def test_no_match_says_why(ids, ensembl, hint):
    with pytest.raises(ValueError, match=hint) as error:
        match(ids, _SYMBOLS, ensembl)
    assert "MBP, SNAP25, C1orf61" in str(error.value)
    assert all(name in str(error.value) for name in ids)


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="one Ensembl id for each of the 5 symbols"):
        match(["MBP"], _SYMBOLS, _ENSEMBL[:3])


def test_low_coverage_warns_with_the_number():
    warnings.resetwarnings()
    many = [f"GENE{i}" for i in range(1000)]
    with pytest.warns(UserWarning, match=r"Found: 3 of 4 \(75%\).*among others, x"):
        match([*many[:3], "x"], many)
    with pytest.warns(UserWarning, match=r"250 of 1000 \(25%\)"):
        match([*many[:250], *(f"x{i}" for i in range(750))], many)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match([*many[:400], *(f"x{i}" for i in range(600))], many)


def test_summary_counts_both_sides():
    assert match(["MBP", "x"], _SYMBOLS).summary() == (
        "1 of 2 genes (50%) match the vocabulary by symbol, filling 1 of its 5 (20%)"
    )


@pytest.mark.parametrize(
    ("data", "vocabulary"),
    [("NHERF1", "SLC9A3R1"), ("SLC9A3R1", "NHERF1"), ("SEPTIN7", "SEPT7"), ("MARCHF1", "MARCH1"), ("DELEC1", "DEC1")],
)
def test_renamed_genes_match_in_both_directions(data, vocabulary):
    assert places(match([data], [vocabulary, "GFAP"])) == {0: 0}
    assert places(match([data.capitalize()], [vocabulary, "GFAP"])) == {0: 0}  # of a mouse
    assert places(match(["X"], [vocabulary, "GFAP"], orthologs={"X": data})) == {0: 0}


def test_a_gene_under_both_names_is_matched_by_the_exact_one():
    assert places(match(["SEPTIN7", "SEPT7"], ["SEPT7", "GFAP"])) == {1: 0}
    assert places(match(["SEPTIN7", "SEPT7"], ["SEPT7", "SEPTIN7"])) == {0: 1, 1: 0}


def test_aliases_work_for_names_of_the_vocabulary_and_go_before_the_packaged_table():
    assert places(match(["NEW", "MBP"], ["OLD", "MBP"], aliases={"OLD": "NEW"})) == {0: 0, 1: 1}
    assert places(match(["DEC1"], ["DELEC1", "BHLHE40"], aliases={"DEC1": "BHLHE40"})) == {0: 1}


def test_a_name_that_fits_two_genes_of_the_vocabulary_is_not_guessed():
    found = match(["NEW", "MBP"], ["OLD1", "OLD2", "MBP"], aliases={"OLD1": "NEW", "OLD2": "NEW"})
    assert found.unmatched == ("NEW",)


def test_renamed_genes_have_one_meaning():
    table = renamed()
    assert not set(table) & set(table.values())
    assert len(set(table.values())) == len(table) > 200
    assert table["MARC1"] == "MTARC1" and table["MARCH1"] == "MARCHF1" and "MLL2" not in table


def test_dates_of_a_spreadsheet_are_told_and_not_guessed():
    with pytest.warns(UserWarning, match="3 that are dates: 1-Mar, 2-Sep, 44256"):
        found = match(["MBP", "1-Mar", "2-Sep", "44256"], [*_SYMBOLS, "MARCHF1", "SEPTIN2"])
    assert found.unmatched == ("1-Mar", "2-Sep", "44256")


def test_numbers_that_are_ids_are_no_dates():
    assert spoiled([str(44000 + i) for i in range(40)]) == []
