"""CellCharter on principal components: neighbours aggregated over three rings, Gaussian mixture of n."""

import cellcharter as cc
import scanpy as sc
import squidpy as sq
from common import main, normalised


def domains(adata, n, seed):
    adata = normalised(adata, sc)
    sc.pp.pca(adata, random_state=seed)
    sq.gr.spatial_neighbors(adata, coord_type="generic", n_neighs=6)
    cc.gr.aggregate_neighbors(adata, n_layers=3, use_rep="X_pca", out_key="X_cellcharter")
    model = cc.tl.Cluster(n_clusters=n, random_state=seed, trainer_params={"accelerator": "cpu"})
    model.fit(adata, use_rep="X_cellcharter")
    return model.predict(adata, use_rep="X_cellcharter")


main(domains)
