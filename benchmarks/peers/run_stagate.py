"""STAGATE (PyTorch Geometric); its embedding is cut by a tied mixture, as R's mclust is not a Python package."""

import scanpy as sc
from common import main, normalised
from sklearn.mixture import GaussianMixture


def domains(adata, n, seed):
    import STAGATE_pyG

    adata = normalised(adata, sc)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(3000, adata.n_vars))
    STAGATE_pyG.Cal_Spatial_Net(adata, model="KNN", k_cutoff=6)
    adata = STAGATE_pyG.train_STAGATE(adata, random_seed=seed)
    fit = GaussianMixture(n, covariance_type="tied", n_init=10, random_state=seed)
    return fit.fit_predict(adata.obsm["STAGATE"])


main(domains)
