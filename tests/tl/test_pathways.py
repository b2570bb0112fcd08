import gzip

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import stalign


@pytest.fixture
def adata():
    return stalign.datasets.toy(12)


@pytest.fixture
def file(adata, tmp_path):
    names = list(adata.var_names)
    lines = ["first\tof genes\t" + "\t".join(names[:20]), "", "last\t\t" + "\t".join(names[-20:]), "tiny\t\tMBP"]
    path = tmp_path / "sets.gmt.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_overlaps_are_those_of_the_sentences(adata, file):
    stalign.tl.pathways(adata, file, overlap=0.05, length=40)
    found = adata.obsm["pathway_overlap"]
    assert sparse.issparse(found) and found.dtype == np.float32
    assert list(adata.uns["pathway_overlap"]["names"]) == ["first", "last"]
    texts = stalign.tl.sentences(adata, length=40)["sentence"].str.split()
    sets = [set(adata.var_names[:20]), set(adata.var_names[-20:])]
    want = np.array([[len(s & set(t)) / min(len(s), len(t)) for s in sets] for t in texts])
    np.testing.assert_allclose(found.toarray(), np.where(want > 0.05, want, 0), rtol=1e-6)


def test_what_is_written_can_be_read_back(adata, file, tmp_path):
    other = stalign.tl.pathways(adata, file, largest=1, key_added="sets", copy=True)
    assert "sets" not in adata.obsm
    other.write_h5ad(tmp_path / "x.h5ad")
    back = ad.read_h5ad(tmp_path / "x.h5ad")
    np.testing.assert_array_equal(back.obsm["sets"].toarray(), other.obsm["sets"].toarray())
    assert back.uns["sets"]["params"]["largest"] == 1
    assert (np.diff(other.obsm["sets"].indptr) <= 1).all()


def test_a_warning_says_that_few_spots_overlap(adata, file, caplog):
    with caplog.at_level("INFO", logger="stalign"):
        stalign.tl.pathways(adata, file, overlap=0.9)
    record = next(r for r in caplog.records if "gene sets" in r.message)
    assert record.levelname == "WARNING"
    assert "2 of 3 gene sets have 10 to 500 genes" in record.message and "0 % of the spots" in record.message


def test_sets_without_genes_of_the_data_are_refused(adata):
    with pytest.raises(ValueError, match="10 to 500 genes of the vocabulary"):
        stalign.tl.pathways(adata, {"x": ["nothing"] * 20})
    assert "pathway_overlap" not in adata.obsm
