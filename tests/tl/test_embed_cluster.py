"""tl.embed on a dask cluster: the same embeddings, made on its workers."""

from __future__ import annotations

import pickle
import sys
import threading
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import pandas as pd
import pytest

import stalign
from stalign._constants import Keys
from stalign.data.spots import SpotReader
from stalign.models import Features
from stalign.tl import _cluster
from stalign.tl._cluster import cluster, portable

distributed = pytest.importorskip("distributed")
ALL = (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE)
ROUNDING = 2e-6  # of values around 1; equal bit for bit alone, 5e-7 apart after other tests on AVX2, cause unknown


@pytest.fixture(scope="module")
def weights(small_weights):
    return small_weights()


@pytest.fixture(scope="module")
def slide():
    adata = stalign.datasets.toy(n_rows=12)
    adata.X = adata.X.multiply(np.arange(adata.n_obs)[:, None] != 3).tocsr()  # a spot without counts
    return adata


@contextmanager
def _client(**options):
    options = {"n_workers": 2, "threads_per_worker": 2, "processes": False, "dashboard_address": None, **options}
    with distributed.LocalCluster(**options) as local, distributed.Client(local) as client:
        yield client


@pytest.fixture(scope="module")
def _running():
    with _client() as client:
        yield client


@pytest.fixture
def client(_running):
    with _running.as_current():
        yield _running


@pytest.fixture
def threads(monkeypatch):
    """Names of the threads that read batches."""
    names = set()
    batch = SpotReader.batch

    def read(self, *args, **options):
        names.add(threading.current_thread().name)
        return batch(self, *args, **options)

    monkeypatch.setattr(SpotReader, "batch", read)
    return names


def lazy(adata):
    """The section as SpatialData whose image has two levels of small dask chunks."""
    from spatialdata.models import Image2DModel

    sdata = stalign.datasets.toy(n_rows=12, spatialdata=True)
    sdata.tables["table"].X = adata.X.copy()
    name, image = next(iter(sdata.images.items()))
    full = image if isinstance(image.dims, tuple) else next(iter(image["scale0"].values()))
    from spatialdata.transformations import get_transformation

    system = get_transformation(image, get_all=True)
    sdata.images[name] = Image2DModel.parse(
        full.data, dims=("c", "y", "x"), scale_factors=[2], chunks=(3, 64, 64), transformations=system
    )
    return sdata


@pytest.mark.parametrize("container", ["anndata", "spatialdata", "large image"])
def test_the_cluster_gives_the_same_embeddings(slide, weights, client, threads, monkeypatch, container):
    data = slide.copy() if container == "anndata" else lazy(slide)
    if container == "large image":
        monkeypatch.setattr(_cluster, "_KEEP", 1000)
        monkeypatch.setattr("stalign.data.images._IN_MEMORY", 1000)
    monkeypatch.setattr(_cluster, "_TOGETHER", 2)
    with monkeypatch.context() as patch:
        patch.setattr("stalign.tl._embedding.cluster", lambda: None)
        here = stalign.tl.embed(data, weights, batch_size=16, copy=True)
    assert {threading.main_thread().name} == threads
    threads.clear()
    there = stalign.tl.embed(data, weights, batch_size=16, copy=True)
    assert threads
    assert not any(name == threading.main_thread().name for name in threads)
    here, there = (stalign.data.table_of(result) for result in (here, there))
    for key in ALL:
        np.testing.assert_allclose(here.obsm[key], there.obsm[key], rtol=0, atol=ROUNDING, err_msg=key)
    assert here.obs[Keys.VALID].equals(there.obs[Keys.VALID])
    first, second = (dict(result.uns[Keys.UNS]["embed"]) for result in (here, there))
    pd.testing.assert_frame_equal(first.pop("sections"), second.pop("sections"))
    for genes in ("missing_genes", "unknown_genes"):
        assert list(first.pop(genes)) == list(second.pop(genes))
    assert first == second


def test_a_reader_that_travels_gives_the_same_batches_and_leaves_the_counts_at_home(slide, weights, monkeypatch):
    readers = []
    monkeypatch.setattr(
        "stalign.tl._embedding.Embedding.add", lambda self, reader, rows: readers.append(reader) or _stop()
    )
    for data in (slide.copy(), lazy(slide)):
        with pytest.raises(StopIteration):
            stalign.tl.embed(data, weights)
    for reader in readers:
        there = pickle.loads(pickle.dumps(portable(reader)))
        rows = np.arange(7)
        ours, theirs = reader.batch(rows), there.batch(rows)
        for name in ("spot_image", "niche_image", "spot_gene", "niche_gene", "image_mean", "basis"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert there.expression.counts is None
    assert hasattr(portable(readers[1]).image.source, "array")  # is read there


def _stop():
    raise StopIteration


def test_features_and_expression_gene_by_gene_travel_too(slide, client, small_weights, monkeypatch):
    weights = small_weights(rank=0, model={"niche_image": Features(8)})
    slide = slide.copy()
    slide.obsm["X_frozen"] = np.random.default_rng(0).normal(size=(slide.n_obs, 8)).astype(np.float32)
    options = {"features": {"niche_image": "X_frozen"}, "batch_size": 50}
    there = stalign.tl.embed(slide, weights, copy=True, **options)
    monkeypatch.setattr("stalign.tl._embedding.cluster", lambda: None)
    here = stalign.tl.embed(slide, weights, copy=True, **options)
    for key in ALL:
        np.testing.assert_array_equal(here.obsm[key], there.obsm[key], err_msg=key)


def test_an_error_on_a_worker_leaves_the_data_alone(slide, weights, client, monkeypatch, snapshot):
    def fail(*args, **options):
        raise RuntimeError("the worker broke")

    data = slide.copy()
    before = deepcopy(snapshot(data))
    monkeypatch.setattr(SpotReader, "batch", fail)
    with pytest.raises(RuntimeError, match="the worker broke"):
        stalign.tl.embed(data, weights)
    assert snapshot(data) == before


def test_no_cluster_no_client_and_no_cluster_within_a_task(client, monkeypatch):
    assert cluster() is client
    assert client.submit(lambda: cluster() is None, pure=False).result()
    monkeypatch.setattr(distributed, "get_client", _nobody)
    assert cluster() is None
    monkeypatch.delitem(sys.modules, "distributed")
    assert cluster() is None


def _nobody():
    raise ValueError("No global client found and no address provided")
