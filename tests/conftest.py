"""Fixtures of all tests."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import stalign
from stalign._constants import Keys

os.environ.setdefault("MPLBACKEND", "Agg")  # before matplotlib is imported: figures open no windows

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _quiet(tmp_path_factory):
    """Show no progress bars, cache nothing for the user, and leave the other cores to other workers of pytest-xdist."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(1)
        threadpool_limits(1)
    with stalign.settings.override(show_progress=False, cache_dir=tmp_path_factory.mktemp("cache")):
        yield


@pytest.fixture(scope="session")
def _toy():
    return stalign.datasets.toy()


@pytest.fixture
def toy(_toy):
    """A fresh copy of the toy section."""
    return _toy.copy()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real sections; the test is skipped where it is absent."""
    folder = Path(os.environ.get("STALIGN_TEST_DATA", _ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real sections at {folder}; set STALIGN_TEST_DATA to their folder")
    return folder


@pytest.fixture
def log(caplog):
    """What stalign logs, from level info on."""
    from stalign._settings import logger

    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO, logger="stalign")
    yield caplog
    logger.removeHandler(caplog.handler)


def _frozen(value):
    """A value as nested tuples and bytes, equal for two values only if nothing differs, dtypes and order included."""
    if sparse.issparse(value):
        kind = type(value).__name__
        if not hasattr(value, "indptr"):
            value = value.tocoo()
            return kind, value.shape, *map(_frozen, (value.row, value.col, value.data))
        return kind, value.shape, *map(_frozen, (value.data, value.indices, value.indptr))
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist() if value.dtype == object else value.tobytes()
    if isinstance(value, pd.DataFrame):
        return _frozen(value.index), tuple((str(name), _frozen(value[name])) for name in value)
    if isinstance(value, pd.Series | pd.Index):
        if isinstance(value.dtype, pd.CategoricalDtype):
            codes = value.codes if isinstance(value, pd.Index) else value.cat.codes.to_numpy()
            return "category", tuple(value.dtype.categories), value.dtype.ordered, tuple(codes)
        return str(value.dtype), tuple(map(repr, value))
    if hasattr(value, "items"):
        return tuple((str(key), _frozen(item)) for key, item in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return type(value).__name__, repr(value)


@pytest.fixture(scope="session")
def snapshot():
    """Make a deep snapshot of an AnnData, or of the table and the names of the elements of a SpatialData."""
    slots = ("X", "obs", "var", "obsm", "varm", "obsp", "layers", "uns")

    def make(data):
        if not hasattr(data, "tables"):
            return {slot: _frozen(getattr(data, slot)) for slot in slots}
        names = {kind: sorted(getattr(data, kind)) for kind in ("images", "labels", "points", "shapes")}
        return {**names, **{name: make(table) for name, table in data.tables.items()}}

    return make


@pytest.fixture(scope="session")
def small_weights():
    """Build small untrained weights like `stalign-mini`, of the toy's genes; keywords change the input."""
    import torch

    from stalign.datasets._toy_genes import symbols
    from stalign.models import MINI, Checkpoint, ConvEncoder, GeneTable, Head, STAlign

    def make(*, genes=None, ensembl=(), seed=0, model=None, **spec):
        conv, table = ConvEncoder(channels=(8, 8, 8, 8)), GeneTable(width=16, layers=1, hidden=8)
        config = replace(
            MINI,
            name="small",
            spot_image=conv,
            niche_image=replace(conv, stem="strided"),
            spot_gene=table,
            niche_gene=table,
            head=Head(hidden=6, out=16),
            n_tokens=2,
            token_dim=8,
            n_heads=2,
            head_dim=4,
            fusion_hidden=5,
            input=replace(MINI.input, **{"spot_px": 8, "niche_px": 16, "rank": 8, **spec}),
        )
        config = replace(config, **(model or {}))
        genes = tuple(symbols() if genes is None else genes)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = STAlign(config, len(genes)).eval()
            with torch.no_grad():
                for parameter in network.parameters():  # layers that start at zero, too
                    parameter.add_(0.1 * torch.randn_like(parameter))
        return Checkpoint(network, genes, tuple(ensembl), sha256=f"small-{seed}")

    return make


@pytest.fixture(scope="session")
def packaged():
    """The packaged weights; the test is skipped while they are not in this checkout."""
    from stalign.models import load_weights

    try:
        return load_weights("stalign-mini")
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def embeddings():
    """Collect the embeddings of a table, or of some of its rows."""

    def collect(adata, rows=slice(None)):
        return {
            key: adata.obsm[key][rows] for key in (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE) if key in adata.obsm
        }

    return collect
