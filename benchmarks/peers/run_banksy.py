"""BANKSY: neighbourhood-augmented expression, principal components, mixture of n (lambda .2, as for domains .8)."""

import numpy as np
import scanpy as sc
from common import main, normalised
from sklearn.mixture import GaussianMixture


def domains(adata, n, seed):
    from banksy.embed_banksy import generate_banksy_matrix
    from banksy.initialize_banksy import initialize_banksy

    adata = normalised(adata, sc)
    if adata.n_vars > 2000:
        sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        adata = adata[:, adata.var["highly_variable"]].copy()
    adata.obs["x"], adata.obs["y"] = adata.obsm["spatial"].T
    keys = ("x", "y", "spatial")
    made = initialize_banksy(
        adata,
        keys,
        18,
        nbr_weight_decay="scaled_gaussian",
        max_m=1,
        plt_edge_hist=False,
        plt_nbr_weights=False,
        plt_theta=False,
    )
    _, matrix = generate_banksy_matrix(adata, made, [0.8], 1)
    values = np.nan_to_num(np.asarray(matrix.X, dtype=np.float32))
    scores = sc.pp.pca(values, n_comps=20, random_state=seed)
    return GaussianMixture(n, covariance_type="tied", n_init=10, random_state=seed).fit_predict(scores)


main(domains)
