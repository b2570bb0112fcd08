"""Clusterers: Gaussian mixtures, k-means and Leiden, each an object that can be passed to `tl.domains`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from stalign._threads import in_parallel
from stalign._validate import message, one_of
from stalign.core.leiden import FitPredict, Leiden
from stalign.core.mixture import Mixture

__all__ = ["GMM", "KMeans", "Leiden"]

CHOICES = ("agreement", "likelihood")


def _check_features(features: np.ndarray, n_domains: int) -> np.ndarray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(message("Expected finite features (n, d)", found=f"shape {features.shape}"))
    if n_domains < 1:
        raise ValueError(message("Expected at least one domain", found=str(n_domains)))
    if len(features) < n_domains:
        raise ValueError(
            message(
                f"Expected at least {n_domains} spots for {n_domains} domains", found=f"{len(features)} usable spots"
            )
        )
    if n_domains > 1:
        distinct = len(np.unique(features, axis=0))
        if distinct < n_domains:
            raise ValueError(
                message(
                    f"Expected spots that differ, for {n_domains} domains",
                    found=f"{distinct} distinct rows of features",
                )
            )
    return features


@dataclass(frozen=True)
class KMeans(FitPredict):
    """Cut the features with k-means (scikit-learn).

    Parameters
    ----------
    n_domains
        How many domains.
    n_init
        How many starts; the one with the smallest sum of squares is kept.
    max_iter
        Steps of a start at most.
    random_state
        Seed; None takes that of the caller, 0 if there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.clustering import KMeans
    >>> labels = KMeans(2).fit_predict(np.array([[0.0], [0.1], [9.0], [9.1]]))
    >>> bool(labels[0] == labels[1] != labels[2] == labels[3])
    True
    """

    n_domains: int
    n_init: int = 10
    max_iter: int = 300
    random_state: int | None = None
    kind: str = field(default="kmeans", init=False)

    def fit(
        self, features: np.ndarray, graph: sparse.csr_matrix | None = None, *, random_state: int = 0
    ) -> tuple[np.ndarray, Mixture]:
        """Cluster, and keep what is needed to assign further spots.

        Parameters
        ----------
        features
            Features, (n, d), finite.
        graph
            Not used.
        random_state
            Seed where the object has none.

        Returns
        -------
        Labels, (n,) intp from 0, and the rule that assigns a spot to the nearest centre.

        Raises
        ------
        ValueError
            If there are fewer (distinct) spots than domains or features are not finite.
        """
        from sklearn.cluster import KMeans as SklearnKMeans

        features = _check_features(features, self.n_domains)
        seed = random_state if self.random_state is None else self.random_state
        options = {"n_init": self.n_init, "max_iter": self.max_iter, "random_state": seed}
        model = SklearnKMeans(self.n_domains, **options).fit(features)
        return model.labels_.astype(np.intp), Mixture.nearest(model.cluster_centers_)


@dataclass(frozen=True)
class GMM(FitPredict):
    """Cut the features with a mixture of Gaussians that share one covariance (the EEE model of mclust).

    A fit by EM depends on its start, and of many starts the likeliest is often among the worst: likelihood is also
    gained by giving a component to a handful of outliers. So every start begins from a k-means of its own (the best of
    three), and the one is kept whose labels agree most with those of all the others (the largest mean adjusted Rand
    index).

    Parameters
    ----------
    n_domains
        How many domains.
    n_init
        How many starts.
    choose
        Which start is kept: `agreement` as above, or `likelihood`, the highest of all.
    random_state
        Seed; None takes that of the caller, 0 if there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.clustering import GMM
    >>> labels = GMM(2).fit_predict(np.array([[0.0], [0.1], [0.2], [9.0], [9.1], [9.2]]))
    >>> bool(labels[0] == labels[2] != labels[3] == labels[5])
    True
    """

    n_domains: int
    n_init: int = 20
    choose: str = "agreement"
    random_state: int | None = None
    kind: str = field(default="gmm", init=False)

    def __post_init__(self) -> None:
        one_of(self.choose, CHOICES, name="choose")

    def fit(
        self, features: np.ndarray, graph: sparse.csr_matrix | None = None, *, random_state: int = 0
    ) -> tuple[np.ndarray, Mixture]:
        """Cluster, and keep what is needed to assign further spots.

        Parameters
        ----------
        features
            Features, (n, d), finite.
        graph
            Not used.
        random_state
            Seed where the object has none.

        Returns
        -------
        Labels, (n,) intp from 0, and the mixture.

        Raises
        ------
        ValueError
            If there are fewer (distinct) spots than domains or features are not finite.
        """
        features = _check_features(features, self.n_domains)
        if len(features) == 1:
            return np.zeros(1, dtype=np.intp), Mixture.nearest(features)
        seed = random_state if self.random_state is None else self.random_state
        # a covariance needs a least variance that follows the scale of the features
        least = 1e-6 * float(features.var(axis=0).mean()) or 1e-6
        seeds = np.random.SeedSequence(seed).generate_state(self.n_init).tolist()
        starts = in_parallel(lambda start: self._start(features, seed=start, least=least), seeds, len(features))
        labels = [mixture.predict(features) for mixture, _ in starts]
        best = _choose(labels, [bound for _, bound in starts], by=self.choose)
        return labels[best], starts[best][0]

    def _start(self, features: np.ndarray, *, seed: int, least: float) -> tuple[Mixture, float]:
        """Fit a mixture from a k-means of its own."""
        from sklearn.cluster import KMeans as SklearnKMeans

        found = SklearnKMeans(self.n_domains, n_init=3, random_state=seed).fit(features)
        return Mixture.tied(features, found.labels_, least=least)


def _choose(labels: list[np.ndarray], bounds: list[float], *, by: str) -> int:
    """Pick a start by its likelihood, or by its agreement with the others."""
    order = [int(start) for start in np.argsort(bounds)[::-1]]
    if by == "likelihood":
        return order[0]
    agreement = rand_indices(np.stack([labels[start] for start in order])).sum(axis=1)
    return order[int(np.round(agreement, 9).argmax())]  # of equals the likeliest


def rand_indices(labels: np.ndarray) -> np.ndarray:
    """Adjusted Rand index of each pair of labellings (m, n) of int from 0, (m, m)."""
    m, n = labels.shape
    k = int(labels.max()) + 1
    cells = (np.arange(m)[:, None] * k + labels).T.ravel()  # (n * m,), which label of which labelling a spot has
    member = sparse.csr_matrix((np.ones(n * m), cells, np.arange(0, n * m + 1, m)), shape=(n, m * k))
    shared = np.asarray((member.T @ member).todense()).reshape(m, k, m, k)  # (m, k, m, k) spots
    pairs = (shared * (shared - 1) / 2).sum(axis=(1, 3))  # (m, m)
    alone = np.diag(pairs)  # pairs of spots with one label
    chance = np.outer(alone, alone) / (n * (n - 1) / 2)
    most = (alone[:, None] + alone) / 2
    out = np.ones((m, m))
    np.divide(pairs - chance, most - chance, out=out, where=most != chance)
    return out
