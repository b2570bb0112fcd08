"""scanpy: variable genes, scaled, principal components, neighbours, Leiden at a resolution that gives n clusters.

For 0 clusters, Leiden at a resolution of 1.
"""

import scanpy as sc
from common import at_resolution, main, normalised


def domains(adata, n, seed):
    adata = normalised(adata, sc)
    if adata.n_vars > 2000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        adata = adata[:, adata.var["highly_variable"]].copy()
    sc.pp.scale(adata, max_value=10)
    sc.pp.pca(adata, random_state=seed)
    # exact, as scanpy 1.11 cannot read what pynndescent 0.7 gives
    sc.pp.neighbors(adata, random_state=seed, transformer="sklearn")

    def cluster(resolution):
        sc.tl.leiden(adata, resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
        return adata.obs["leiden"].astype(str)

    return at_resolution(cluster, n) if n else cluster(1.0)


main(domains)
