"""squidpy: `gr.calculate_niche` as CellCharter does it, on a spatial graph of six neighbours."""

import scanpy as sc
import squidpy as sq
from common import main, normalised


def domains(adata, n, seed):
    adata = normalised(adata, sc)
    sc.pp.pca(adata, random_state=seed)
    sc.pp.neighbors(adata, random_state=seed)
    sc.tl.leiden(adata, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    sq.gr.spatial_neighbors(adata, coord_type="generic", n_neighs=6)
    sq.gr.calculate_niche(
        adata, flavor="cellcharter", distance=3, aggregation="mean", n_components=n, random_state=seed
    )
    column = next(name for name in adata.obs if name.startswith("cellcharter_niche"))
    return adata.obs[column].astype(str)


main(domains)
