from __future__ import annotations

import gzip

import pytest

from stalign.data import aliases_of, read_aliases, read_orthologs

HGNC = "hgnc_id\tsymbol\tname\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id\n"
ROWS = (
    'HGNC:1\tNHERF1\tx\tApproved\t"EBP50|NHERF|SHARED"\tSLC9A3R1\tENSG00000109062\n'
    "HGNC:2\tBHLHE40\tx\tApproved\tDEC1|TWICE\tBHLHB2\tENSG00000134107\n"
    "HGNC:3\tDELEC1\tx\tApproved\tSHARED\tDEC1|TWICE|ONE\tENSG00000173077\n"
    "HGNC:4\tOTHER\tx\tApproved\tNHERF1\tONE|TWICE\t\n"
    "HGNC:5\tGONE\tx\tEntry Withdrawn\t\tOLD\t\n"
)


def test_hgnc_names(tmp_path, log):
    path = tmp_path / "hgnc_complete_set.txt"
    path.write_text(HGNC + ROWS)
    found = read_aliases(path)
    assert found["SLC9A3R1"] == "NHERF1" and found["EBP50"] == "NHERF1" and found["BHLHB2"] == "BHLHE40"
    assert found["DEC1"] == "DELEC1"  # an earlier symbol goes before an alias
    assert not {"SHARED", "ONE", "TWICE", "NHERF1", "OLD"} & set(found)
    assert "1 of the alias_symbol stand for more than one gene" in log.text
    assert "2 of the prev_symbol stand for more than one gene" in log.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "old_symbol\tnew_symbol\nSEPT7\tSEPTIN7\n"),
        ("a.csv", "\ufeffalias,symbol,note\nSEPT7,SEPTIN7,x\n"),
        ("b.csv", "one;two\nSEPT7;SEPTIN7\n"),
    ],
)
def test_tables_of_two_columns(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert aliases_of(str(tmp_path / name)) == {"SEPT7": "SEPTIN7"}


def test_what_is_no_such_table(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a table of other names of genes"):
        read_aliases(tmp_path / "none.tsv")
    (tmp_path / "three.csv").write_text("a,b,c\n1,2,3\n")
    with pytest.raises(ValueError, match="Name them `alias` and `symbol`"):
        read_aliases(tmp_path / "three.csv")
    (tmp_path / "dates.csv").write_text("alias,symbol\nAXOT,1-Mar\n")
    with pytest.raises(ValueError, match="1 dates, such as 1-Mar"):
        read_aliases(tmp_path / "dates.csv")


def test_orthologs_gzipped(tmp_path):
    with gzip.open(tmp_path / "o.tsv.gz", "wt") as file:
        file.write("human_symbol\tmouse_symbol\nNA\tNa\nSNAP25\tSnap25\n")
    assert read_orthologs(tmp_path / "o.tsv.gz") == {"Na": "NA", "Snap25": "SNAP25"}
