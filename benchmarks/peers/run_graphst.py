"""GraphST on the CPU; its embedding is cut by a tied mixture, as R's mclust is not a Python package."""

from common import main
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture


def domains(adata, n, seed):
    import torch
    from GraphST import GraphST

    model = GraphST.GraphST(adata, device=torch.device("cpu"), random_seed=seed)
    found = model.train()
    scores = PCA(20, random_state=seed).fit_transform(found.obsm["emb"])
    return GaussianMixture(n, covariance_type="tied", n_init=10, random_state=seed).fit_predict(scores)


main(domains)
