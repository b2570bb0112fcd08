"""Fixtures of tests of tl: sections with features where `tl.embed` would write them, made without weights."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

import stalign
from stalign._constants import Keys
from stalign.core.expression import normalise
from stalign.core.niches import nearest, niche_graph


def add_features(adata, *, n_components=20, wide=18):
    """Write smoothed principal components of expression where `tl.embed` would write, and return the data."""
    library = adata.obs["library"].to_numpy()
    smooth = np.zeros((adata.n_obs, adata.n_vars), np.float32)
    expression = normalise(adata.X)
    for name in np.unique(library):
        rows = np.flatnonzero(library == name)
        graph = niche_graph(nearest(adata.obsm[Keys.SPATIAL][rows], wide))
        smooth[rows] = (graph @ expression[rows]).toarray()
    scores = PCA(n_components, random_state=0, svd_solver="full").fit_transform(smooth).astype(np.float32)
    adata.obsm[Keys.EMBED] = scores
    rng = np.random.default_rng(0)
    for key in (Keys.EMBED_IMAGE, Keys.EMBED_GENE):
        adata.obsm[key] = scores + rng.normal(0, 0.3 * scores.std(), scores.shape).astype(np.float32)
    return adata


@pytest.fixture(scope="session")
def _embedded():
    return add_features(stalign.datasets.toy())


@pytest.fixture(scope="session")
def _two():
    return add_features(stalign.datasets.toy(24, n_sections=2))


@pytest.fixture
def embedded(_embedded):
    """The toy section with features."""
    return _embedded.copy()


@pytest.fixture
def two(_two):
    """Two toy sections in one table, with features."""
    return _two.copy()
