"""The plain baselines: what a model has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.decomposition import PCA

from stalign.core.expression import normalise
from stalign.core.gaussian import gaussian_graph
from stalign.core.niches import nearest, niche_graph
from stalign.data import open_sections as sections
from stalign.data.table import read_counts
from stalign.models.config import MINI

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray


def log_counts(adata: AnnData, total_counts: str | None = None) -> NDArray[np.float32]:
    """Return log1p of counts per 10,000, (n_obs, n_vars), dense."""
    counts, totals = read_counts(adata, total_counts=total_counts)
    return normalise(counts, totals).toarray()


def pca(adata: AnnData, *, total_counts: str | None = None, n: int = 15, seed: int = 0) -> NDArray[np.float32]:
    """PCA of single spots, (n_obs, n)."""
    return PCA(n, random_state=seed).fit_transform(log_counts(adata, total_counts))


def niche_mean(adata: AnnData, *, total_counts: str | None = None, n: int = 15, seed: int = 0) -> NDArray[np.float32]:
    """PCA of the mean over each spot and its three nearest neighbours, (n_obs, n): the floor."""
    graph = niche_graph(nearest(adata.obsm["spatial"], 3))
    return PCA(n, random_state=seed).fit_transform(graph @ log_counts(adata, total_counts))


def gaussian_mean(
    adata: AnnData, *, total_counts: str | None = None, n: int = 15, seed: int = 0
) -> NDArray[np.float32]:
    """PCA of the mean over the spots around, weighed as the weights' input spec says, without a network, (n_obs, n)."""
    graph = gaussian_graph(sections(adata, image=False)[0].coords_um, MINI.input.niche_sigma)
    return PCA(n, random_state=seed).fit_transform(graph @ log_counts(adata, total_counts))


def leiden(adata: AnnData, n_domains: int, *, total_counts: str | None = None, seed: int = 0) -> NDArray[np.str_]:
    """Scanpy's pipeline up to Leiden, at a resolution that gives the asked number of domains, (n_obs,)."""
    import scanpy as sc
    from anndata import AnnData

    work = AnnData(log_counts(adata, total_counts))
    n_genes = min(2000, adata.n_vars)
    if n_genes < adata.n_vars:
        sc.pp.highly_variable_genes(work, n_top_genes=n_genes)
        work = work[:, work.var["highly_variable"]].copy()
    sc.pp.scale(work, max_value=10)
    sc.pp.pca(work, n_comps=min(50, work.n_obs - 1, work.n_vars - 1), random_state=seed)
    sc.pp.neighbors(work, random_state=seed)
    low, high = 0.01, 4.0
    labels = None
    for _ in range(20):
        resolution = (low + high) / 2
        sc.tl.leiden(work, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
        labels = work.obs["leiden"].to_numpy().astype(str)
        found = len(set(labels))
        if found == n_domains:
            break
        low, high = (resolution, high) if found < n_domains else (low, resolution)
    return labels
