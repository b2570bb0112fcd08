import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import stalign
from stalign.models import Checkpoint
from stalign.models.hibio import HiBioST
from stalign.models.hibio_config import HIBIO_MINI


@pytest.fixture
def adata():
    return stalign.datasets.toy(12)


@pytest.fixture
def checkpoint(adata):
    network = HiBioST(HIBIO_MINI, n_genes=adata.n_vars).eval()
    network.idf[:] = 1.0
    network.idf[:5] = 9.0
    return Checkpoint(network, tuple(adata.var_names))


def test_sentences_hold_the_genes_of_the_spot(adata):
    before = adata.copy()
    found = stalign.tl.sentences(adata, length=7)
    assert found.index.equals(adata.obs_names) and (found["n_genes"] == 7).all()
    for spot, text in enumerate(found["sentence"]):
        assert (adata[spot, text.split()].X.toarray() > 0).all()
    assert found.attrs == {"idf": "data", "length": 7, "mode": "tfidf", "min_count": 1, "level": "spot"}
    assert list(adata.obs) == list(before.obs) and list(adata.uns) == list(before.uns)


def test_the_log_says_when_frequencies_are_those_of_the_data(adata, checkpoint, caplog):
    with caplog.at_level("WARNING", logger="stalign"):
        stalign.tl.sentences(adata)
        assert "document frequencies are those of these" in caplog.text
        caplog.clear()
        stalign.tl.sentences(adata, checkpoint)
        assert "document frequencies" not in caplog.text


def test_weights_bring_their_frequencies_to_new_data(adata, checkpoint):
    whole = stalign.tl.sentences(adata, checkpoint, mode="tfidf")
    part = stalign.tl.sentences(adata[:20].copy(), checkpoint, mode="tfidf")
    assert whole["sentence"].iloc[:20].tolist() == part["sentence"].tolist()
    assert whole.attrs["length"] == 64 and whole.attrs["idf"] == "hibio-mini"
    first = set(adata.var_names[:5])
    counts = adata[:, :5].X.toarray()
    for row, text in zip(counts, whole["sentence"], strict=True):
        if (row >= 2).any():
            assert text.split()[0] in first
    turned = adata[:, ::-1].copy()
    assert stalign.tl.sentences(turned, checkpoint, mode="tfidf")["sentence"].tolist() == whole["sentence"].tolist()


def test_genes_of_another_species_with_one_symbol_are_summed(checkpoint):
    symbols = checkpoint.vocabulary
    counts = np.ones((4, len(symbols) + 1), dtype=np.float32)
    names = [f"Mouse{i}" for i in range(len(symbols) + 1)]
    table = ad.AnnData(sparse.csr_matrix(counts), obsm={"spatial": np.arange(8.0).reshape(4, 2)})
    table.var_names = names
    orthologs = dict(zip(names, [*symbols, symbols[7]], strict=True))
    found = stalign.tl.sentences(table, checkpoint, orthologs=orthologs, min_count=2)
    assert found["sentence"].tolist() == [symbols[7]] * 4


def test_a_spot_without_counts_has_no_sentence_and_niches_may(adata):
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = sparse.csr_matrix(counts)
    assert stalign.tl.sentences(adata).iloc[3].tolist() == ["", 0]
    assert stalign.tl.sentences(adata, level="niche")["n_genes"].iloc[3] > 0


def test_weights_of_another_network_are_refused(adata):
    with pytest.raises(ValueError, match=r"weights of HiBio-ST.*'stalign-mini', which are of ST-Align.*tl\.embed"):
        stalign.tl.sentences(adata, "stalign-mini")
    with pytest.raises(ValueError, match="`level`"):
        stalign.tl.sentences(adata, level="region")
    with pytest.raises(ValueError, match="`mode`"):
        stalign.tl.sentences(adata, mode="best")
    with pytest.raises(ValueError, match="genes of the vocabulary"):
        other = adata.copy()
        other.var_names = [f"x{i}" for i in range(adata.n_vars)]
        stalign.tl.sentences(other, Checkpoint(HiBioST(HIBIO_MINI, n_genes=2).eval(), ("A", "B")))
