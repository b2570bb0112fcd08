"""SpaGCN without histology: graph convolution over positions, n clusters by its search of the resolution."""

import random

import numpy as np
import scanpy as sc
import torch
from common import main, normalised


def domains(adata, n, seed):
    import SpaGCN

    adata = normalised(adata, sc)
    adata.X = adata.X.toarray()  # SpaGCN asks SciPy for what it no longer has
    x, y = (adata.obsm["spatial"][:, i].tolist() for i in range(2))
    distances = SpaGCN.calculate_adj_matrix(x=x, y=y, histology=False)
    scale = SpaGCN.search_l(0.5, distances, start=0.01, end=1000, tol=0.01, max_run=100)
    seeds = {"r_seed": seed, "t_seed": seed, "n_seed": seed}
    resolution = SpaGCN.search_res(
        adata, distances, scale, n, start=0.4, step=0.1, tol=5e-3, lr=0.05, max_epochs=20, **seeds
    )
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 which SpaGCN draws from
    model = SpaGCN.SpaGCN()
    model.set_l(scale)
    model.train(adata, distances, init_spa=True, init="louvain", res=resolution, tol=5e-3, lr=0.05, max_epochs=200)
    return model.predict()[0]


main(domains)
