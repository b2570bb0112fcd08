import numpy as np
import pytest
from scipy import sparse

from stalign.core.pathways import Pathways, draw

SYMBOLS = [f"G{i}" for i in range(12)]
SETS = {
    "a": ["G0", "G1", "g2", "G2", "ELSEWHERE"],  # three genes of the vocabulary
    "b": ["G3", "G4", "G5", "G6", "G7"],
    "one": ["G8"],
    "all": SYMBOLS,
}


@pytest.fixture
def sets():
    return Pathways.of(SETS, SYMBOLS, min_genes=2, max_genes=6)


def test_sets_of_other_sizes_are_left_out(sets):
    assert (sets.names, len(sets)) == (("a", "b"), 2)
    genes, starts = sets.lists()
    assert (genes.tolist(), starts.tolist()) == ([0, 1, 2, 3, 4, 5, 6, 7], [0, 3])


def test_overlaps_of_hand_made_sets(sets):
    sentences = np.array([[0, 1, 3, 9, 10], [4, 3, -1, -1, -1], [-1] * 5, [0, 1, 2, 3, 4]])
    want = [[2 / 3, 1 / 5], [0, 1], [0, 0], [1, 2 / 5]]
    np.testing.assert_allclose(sets.overlaps(sentences).toarray(), want)


def test_the_threshold_itself_is_no_overlap(sets):
    sentences = np.array([[0, 1, 3, 9, 10], [3, 4, 0, 9, 10]])
    np.testing.assert_allclose(sets.overlaps(sentences, above=0.2).toarray(), [[2 / 3, 0], [1 / 3, 2 / 5]])
    np.testing.assert_allclose(sets.overlaps(sentences, above=0.4).toarray(), [[2 / 3, 0], [0, 0]])


def test_the_largest_overlaps_of_each_spot(sets):
    sentences = np.array([[0, 3, 4, 9, 10], [3, 9, 10, 11, 8], [-1] * 5])
    got = sets.overlaps(sentences, largest=1)
    np.testing.assert_allclose(got.toarray(), [[0, 2 / 5], [0, 1 / 5], [0, 0]])
    assert got.nnz == 2


def test_blocks_make_no_difference(sets, monkeypatch):
    sentences = np.random.default_rng(0).integers(-1, 12, (9, 1))
    want = sets.overlaps(sentences).toarray()
    monkeypatch.setattr("stalign.core.pathways._BLOCK", 2)
    np.testing.assert_array_equal(sets.overlaps(sentences).toarray(), want)
    assert sets.overlaps(sentences[:0]).shape == (0, 2)


def test_sets_of_another_species_are_refused():
    with pytest.raises(ValueError, match=r"10 to 500 genes.*2 sets, with 0 to 1 of them.*'Mbp'.*'G0'"):
        Pathways.of({"x": ["Mbp"], "y": ["G3"]}, SYMBOLS)
    with pytest.raises(ValueError, match="no sets"):
        Pathways.of({}, SYMBOLS)


def test_negatives_have_no_overlap_and_positives_come_first():
    positives = sparse.csr_matrix([[0, 0.5, 0, 0.25, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    ids, overlap = draw(positives, 2, np.random.default_rng(0))
    assert ids.shape == overlap.shape == (3, 7)
    assert (ids[0, :2].tolist(), overlap[0, :3].tolist()) == ([1, 3], [0.5, 0.25, 0])
    assert set(ids[0, 5:]) <= {0, 2, 4} and len(set(ids[0, 5:])) == 2
    assert set(ids[1].tolist()) - {-1} <= set(range(5)) and (ids[1] >= 0).sum() == 2
    assert (ids[2].tolist(), overlap[2].tolist()) == ([0, 1, 2, 3, 4, -1, -1], [1] * 5 + [0, 0])
    again, _ = draw(positives, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(ids, again)
    assert draw(positives, 99, np.random.default_rng(0))[0].shape == (3, 10)
