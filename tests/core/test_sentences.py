import numpy as np
import pytest
from scipy import sparse

from stalign.core.sentences import DocumentFrequencies, sentences, tfidf

V = 40
SYMBOLS = [f"G{i:02d}" for i in range(V)]


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 1.5, V), (60, V))
    counts[:, 3] = 1 + rng.poisson(5, 60)  # detected everywhere
    counts[7] = 0
    counts[7, 3] = 0
    return counts


def dense_weights(counts):
    logs = np.log1p(counts)
    tf = logs / (logs.sum(1, keepdims=True) + 1e-8)
    df = (counts > 0).sum(0)
    idf = np.log((1 + len(counts)) / (1 + df))
    return tf * idf, idf


def of(counts, **more):
    return sentences(
        sparse.csr_matrix(counts), SYMBOLS, DocumentFrequencies.of(sparse.csr_matrix(counts)).idf(), **more
    )


def test_weights_against_a_dense_reference(counts):
    want, idf = dense_weights(counts)
    found = DocumentFrequencies.of(sparse.csr_matrix(counts)).idf()
    np.testing.assert_allclose(found, idf, rtol=1e-6)
    np.testing.assert_allclose(tfidf(sparse.csr_matrix(counts), found).toarray(), want, rtol=1e-6)


def test_the_sentence_is_the_largest_weights_in_order(counts):
    weights, idf = dense_weights(counts)
    for spot, got in enumerate(of(counts, length=8)):
        order = sorted(range(V), key=lambda g: (-round(weights[spot, g], 12), -round(idf[g], 12), SYMBOLS[g]))
        want = [g for g in order if weights[spot, g] > 0][:8]
        assert got.tolist() == want + [-1] * (8 - len(want))


def test_a_gene_that_every_spot_has_is_never_chosen(counts):
    full = np.delete(counts, 7, axis=0)
    assert 3 not in of(full, length=V)
    assert 3 in of(full, length=V, mode="top")


def test_a_spot_without_counts_has_no_genes_and_long_sentences_are_filled_up(counts):
    got = of(counts, length=300)
    assert got.shape == (60, 300)
    assert (got[7] == -1).all()
    assert ((got >= 0).sum(1) <= (counts > 0).sum(1)).all()
    assert (of(counts, length=300, mode="hvg")[7] == -1).all()


@pytest.mark.parametrize("mode", ["tfidf", "top", "hvg"])
def test_the_order_of_rows_columns_and_batches_does_not_matter(counts, mode):
    rng = np.random.default_rng(1)
    idf = DocumentFrequencies.of(sparse.csr_matrix(counts)).idf()
    want = sentences(sparse.csr_matrix(counts), SYMBOLS, idf, length=10, mode=mode)
    columns, rows = rng.permutation(V), rng.permutation(len(counts))
    turned = sparse.csc_matrix(counts[rows][:, columns].astype(np.float32))
    got = sentences(turned, [SYMBOLS[c] for c in columns], idf[columns], length=10, mode=mode)
    np.testing.assert_array_equal(np.where(got >= 0, columns[got], -1), want[rows])
    if mode != "hvg":
        halves = [
            sentences(sparse.csr_matrix(part), SYMBOLS, idf, length=10, mode=mode) for part in np.split(counts, 2)
        ]
        np.testing.assert_array_equal(np.concatenate(halves), want)


def test_blocks_make_no_difference(counts, monkeypatch):
    want = of(counts, length=10)
    monkeypatch.setattr("stalign.core.sentences._BLOCK", 7)
    np.testing.assert_array_equal(of(counts, length=10), want)


def test_unsorted_columns_make_no_difference():
    matrix = sparse.csr_matrix((np.array([1, 1, 1]), np.array([2, 0, 1]), np.array([0, 3])), shape=(1, 3))
    idf = np.ones(3, dtype=np.float32)
    assert sentences(matrix, ["C", "B", "A"], idf, length=3).tolist() == [[2, 1, 0]]  # ties by symbol
    assert sentences(matrix, ["C", "B", "A"], np.float32([2, 2, 1]), length=3, mode="top").tolist() == [[1, 0, 2]]


def test_min_count_leaves_singletons_out(counts):
    got = of(counts, length=V, min_count=2)
    for spot, genes in enumerate(got):
        assert (counts[spot, genes[genes >= 0]] >= 2).all()


def test_hvg_takes_the_same_genes_everywhere_in_the_order_of_the_spot(counts):
    got = np.delete(of(counts, length=6, mode="hvg"), 7, axis=0)
    variance = np.log1p(counts).var(0)
    want = set(np.argsort(-variance)[:6].tolist())
    assert all(set(row) == want for row in got.tolist())
    ordered = np.take_along_axis(np.delete(counts, 7, axis=0), got, axis=1)
    assert (np.diff(ordered, axis=1) <= 0).all()


def test_frequencies_of_sections_add_up_and_genes_not_measured_can_be_left_out(counts):
    first, second = counts[:20], counts[20:].copy()
    second[:, :5] = 0
    there = np.arange(V) >= 5
    both = DocumentFrequencies.of(sparse.csr_matrix(first)) + DocumentFrequencies.of(sparse.csr_matrix(second), there)
    whole = DocumentFrequencies.of(sparse.csr_matrix(np.concatenate([first, second])))
    np.testing.assert_array_equal(both.idf(), whole.idf())
    alone = DocumentFrequencies.of(sparse.csr_matrix(first)).idf()
    np.testing.assert_array_equal(both.idf("measured")[:5], alone[:5])
    np.testing.assert_array_equal(both.idf("measured")[5:], whole.idf()[5:])
    with pytest.raises(ValueError, match="idf"):
        both.idf("all")


def test_wrong_input_is_refused(counts):
    idf = np.ones(V, dtype=np.float32)
    with pytest.raises(ValueError, match="mode"):
        sentences(sparse.csr_matrix(counts), SYMBOLS, idf, mode="bm25")
    with pytest.raises(ValueError, match="one number of genes"):
        sentences(sparse.csr_matrix(counts), SYMBOLS[1:], idf)
