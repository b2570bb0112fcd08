import tracemalloc

import numpy as np
import pytest

from stalign.core import regions as module
from stalign.core.regions import fused_graph, regions


def blob(rng, n, centre, spread=1.0):
    return rng.normal(size=(n, len(centre))) * spread + np.asarray(centre)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def agree(labels, truth):
    return all(len(set(labels[truth == t])) == 1 for t in set(truth)) and len(set(labels)) == len(set(truth))


def test_equal_features_are_split_by_space(rng):
    coords = np.concatenate([blob(rng, 30, (0, 0)), blob(rng, 30, (100, 0))])
    labels = regions(coords, [np.ones((60, 3)), np.ones((60, 3))], resolution=0.1)
    assert agree(labels, np.repeat([0, 1], 30))


def test_spots_in_one_place_are_split_by_features(rng):
    features = np.concatenate([blob(rng, 30, (9, 0, 0), 0.1), blob(rng, 30, (0, 9, 0), 0.1)])
    coords = rng.normal(size=(60, 2))
    labels = regions(coords, [features, features], resolution=0.1, alpha=0.01, beta=1.0)
    assert agree(labels, np.repeat([0, 1], 30))
    same = regions(np.zeros((60, 2)), [features], resolution=0.1)  # no range of distances
    assert agree(same, np.repeat([0, 1], 30))


def test_the_graph_against_all_pairs(rng):
    coords, units = rng.normal(size=(40, 2)), rng.normal(size=(40, 4)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    space = np.linalg.norm(coords[:, None] - coords, axis=2)
    cosine = 1 - units @ units.T
    off = ~np.eye(40, dtype=bool)
    scaled = [(part - part[off].min()) / (part[off].max() - part[off].min()) for part in (space, cosine)]
    distance = 0.5 * scaled[0] + 0.5 * scaled[1]
    np.fill_diagonal(distance, np.inf)
    want = np.zeros((40, 40))
    for i in range(40):
        near = np.argsort(distance[i])[:5]
        want[i, near] = np.exp(-distance[i, near])
    np.testing.assert_allclose(fused_graph(coords, units, 5, 0.5, 0.5).toarray(), np.maximum(want, want.T), atol=1e-5)


def test_a_seed_gives_one_result_whatever_the_order_of_rows(rng):
    coords, image, gene = rng.normal(size=(90, 2)), rng.normal(size=(90, 4)), rng.normal(size=(90, 4))
    want = regions(coords, [image, gene], seed=3)
    assert want.max() > 0
    order = rng.permutation(90)
    np.testing.assert_array_equal(regions(coords[order], [image[order], gene[order]], seed=3), want[order])


def test_spots_that_lack_something(rng):
    coords, image, gene = rng.normal(size=(50, 2)), rng.normal(size=(50, 4)), rng.normal(size=(50, 4))
    coords[0] = np.nan
    image[1:3] = np.nan
    gene[2:4] = np.nan
    labels = regions(coords, [image, gene])
    assert np.flatnonzero(labels < 0).tolist() == [0, 2]
    assert regions(coords[:1], [image[:1]]).tolist() == [-1]
    assert regions(coords[4:5], [image[4:5]]).tolist() == [0]
    with pytest.raises(ValueError, match="features of 50 spots"):
        regions(coords, [image[1:]])


def test_candidates_find_the_nearest(rng, monkeypatch):
    coords, units = rng.normal(size=(300, 2)), rng.normal(size=(300, 4)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    whole = fused_graph(coords, units, 5, 0.5, 0.5)
    monkeypatch.setattr(module, "EXACT", 100)
    monkeypatch.setattr(module, "_SAMPLE", 300)
    part = fused_graph(coords, units, 5, 0.5, 0.5)
    shared = ((whole > 0).multiply(part > 0)).sum()
    assert shared > 0.98 * whole.nnz
    assert (part.diagonal() == 0).all()


def test_large_sections_need_no_matrix_of_all_pairs(rng):
    n = 30_000
    coords = np.stack(np.meshgrid(np.arange(200.0), np.arange(150.0)), axis=-1).reshape(-1, 2)
    units = rng.normal(size=(n, 8)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    tracemalloc.start()
    graph = fused_graph(coords, units, 15, 0.5, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert graph.shape == (n, n) and graph.nnz < 31 * n
    assert peak < 0.15 * n * n * 4  # bytes of one matrix in float32
