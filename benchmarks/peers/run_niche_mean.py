"""The baseline without a network: components of the mean over a spot and its neighbours, one tied mixture."""

from common import main
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from stalign.core.expression import normalise
from stalign.core.niches import nearest, niche_graph


def domains(adata, n, seed):
    means = niche_graph(nearest(adata.obsm["spatial"], 3)) @ normalise(adata.X, adata.obs.get("total_counts"))
    scores = PCA(15, svd_solver="arpack", random_state=seed).fit_transform(means)
    return GaussianMixture(n, covariance_type="tied", random_state=seed).fit_predict(scores)


main(domains)
