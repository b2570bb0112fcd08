import gzip

import pytest

import stalign

TEXT = "\ufeffA\tdescription\tMBP\tPLP1\t\tMBP\r\nB\t\tGFAP,1.0\tAQP4,0.5\r\n\r\nEMPTY\tno genes\r\nA\tagain\tMAG\r\n"


@pytest.mark.parametrize("packed", [False, True])
def test_sets_with_descriptions_blanks_weights_and_repeats(tmp_path, packed):
    path = tmp_path / "sets.gmt"
    path.write_bytes(gzip.compress(TEXT.encode(), mtime=0) if packed else TEXT.encode())
    assert stalign.io.read_gmt(path) == {"A": ("MBP", "PLP1", "MAG"), "B": ("GFAP", "AQP4")}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"gene,value\nMBP,3\n", "a GMT file.*of 2 lines"),
        (b"", "a GMT file"),
        (b"\xff\xfe\x00\x01", "a GMT file.*utf-8"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-20], "a GMT file"),
    ],
)
def test_other_files_are_refused(tmp_path, content, match):
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
        stalign.io.read_gmt(path)
    with pytest.raises(FileNotFoundError, match="a GMT file"):
        stalign.io.read_gmt(tmp_path / "none.gmt")


def test_the_files_of_reactome_and_go(shared_data):
    folder = shared_data / "gene-sets"
    assert len(stalign.io.read_gmt(folder / "ReactomePathways.gmt")) > 1400
    assert len(stalign.io.read_gmt(folder / "GO_Biological_Process_2021.gmt.gz")) > 3800
    assert len(stalign.io.read_gmt(folder / "h.all.v7.0.symbols.gmt")) == 50
