"""Leiden clustering of a neighbour graph, at a resolution or with a search for a number of domains."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from stalign._settings import logger
from stalign._validate import message
from stalign.core.mixture import Mixture

if TYPE_CHECKING:
    from collections.abc import Iterator

    import igraph

N_NEIGHBORS = 15  # of the graph that is built where none is given
N_ITERATIONS = 5  # of the Leiden algorithm; labels rarely change after the third
LOWEST, HIGHEST = 1e-4, 64.0  # resolutions searched
STEPS = 32  # of the search; the last halves an interval of a millionth


class FitPredict(ABC):
    """What a clusterer makes of its `fit`."""

    @abstractmethod
    def fit(
        self, features: np.ndarray, graph: sparse.csr_matrix | None = None, *, random_state: int = 0
    ) -> tuple[np.ndarray, Mixture]:
        """Cluster, and keep what is needed to assign further spots."""

    def fit_predict(self, features: np.ndarray, graph: sparse.csr_matrix | None = None) -> np.ndarray:
        """Cluster: labels, (n,) intp from 0, of features (n, d), with the graph of neighbours where it is used."""
        return self.fit(features, graph)[0]


@dataclass(frozen=True)
class Leiden(FitPredict):
    """Cut a neighbour graph with the Leiden algorithm (Traag et al. 2019) on modularity (igraph).

    Parameters
    ----------
    n_domains
        The number of domains to search a resolution for; None takes `resolution` as it is.
    resolution
        Resolution where no number is asked for; higher means more domains.
    random_state
        Seed; None takes that of the caller, 0 if there is none.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.clustering import Leiden
    >>> features = np.concatenate([np.random.default_rng(0).normal(mean, 0.1, (20, 2)) for mean in (0, 5)])
    >>> int(Leiden(n_domains=2).fit_predict(features).max())
    1
    """

    n_domains: int | None = None
    resolution: float = 1.0
    random_state: int | None = None
    kind: str = field(default="leiden", init=False)

    def __post_init__(self) -> None:
        if self.n_domains is not None and self.n_domains < 1:
            raise ValueError(message("Expected at least one domain", found=str(self.n_domains)))
        if not self.resolution > 0:
            raise ValueError(message("Expected a resolution above 0", found=str(self.resolution)))

    def fit(
        self, features: np.ndarray, graph: sparse.csr_matrix | None = None, *, random_state: int = 0
    ) -> tuple[np.ndarray, Mixture]:
        """Cluster, and keep what is needed to assign further spots.

        Where no resolution gives exactly `n_domains`, a warning is logged with the number that came closest, and that
        one is used.

        Parameters
        ----------
        features
            Features, (n, d), finite.
        graph
            Weighted neighbours, CSR (n, n), symmetric; None joins each spot with its 15 nearest in feature space.
        random_state
            Seed where the object has none.

        Returns
        -------
        Labels, (n,) intp from 0, the largest first, and a linear discriminant between them.

        Raises
        ------
        ValueError
            If there are fewer spots than domains, or the graph is not n by n.
        """
        features = np.asarray(features, dtype=np.float64)
        n = len(features)
        if n < max(self.n_domains or 1, 1):
            raise ValueError(message(f"Expected at least {self.n_domains or 1} spots", found=f"{n} usable spots"))
        graph = nearest_graph(features) if graph is None else sparse.csr_matrix(graph)
        if graph.shape != (n, n):
            raise ValueError(message(f"Expected a graph of {n} by {n} spots", found=str(graph.shape)))
        seed = random_state if self.random_state is None else self.random_state
        if self.n_domains is None:
            labels = partition(to_igraph(graph), self.resolution, seed=seed)
        else:
            labels, _ = search(graph, self.n_domains, seed=seed)
        return labels, Mixture.discriminant(features, labels)


def nearest_graph(features: np.ndarray) -> sparse.csr_matrix:
    """Join each spot with its `N_NEIGHBORS` nearest ones in feature space, fewer where there are fewer spots.

    Neighbours are exact. On 26 real sections and features, Leiden on this graph agreed with the layers as well as on
    scanpy's (mean adjusted Rand index 0.26 and 0.25), which takes long to compile.

    Parameters
    ----------
    features
        Features, (n, d).

    Returns
    -------
    CSR (n, n) float64, symmetric: 1 where both name each other, 0.5 where one does.
    """
    from sklearn.neighbors import kneighbors_graph

    k = min(N_NEIGHBORS, len(features) - 1)
    if k < 1:
        return sparse.csr_matrix((len(features), len(features)))
    graph = kneighbors_graph(features, k)
    return sparse.csr_matrix((graph + graph.T) / 2)


def search(graph: sparse.csr_matrix, n_domains: int, *, seed: int = 0) -> tuple[np.ndarray, float]:
    """Search a resolution that gives a number of domains, by bisection on its logarithm.

    Parameters
    ----------
    graph
        Weighted neighbours, CSR (n, n), symmetric.
    n_domains
        The number asked for.
    seed
        Seed of every run of Leiden.

    Returns
    -------
    Labels, (n,) intp, and the resolution. Where the number cannot be had, those of the nearest number that came up, the
    smaller of two, with a warning in the log.
    """
    network = to_igraph(graph)
    low, high = LOWEST, HIGHEST
    tried: dict[int, tuple[np.ndarray, float]] = {}
    resolution = 1.0
    for _ in range(STEPS):
        labels = partition(network, resolution, seed=seed)
        found = int(labels.max()) + 1
        tried.setdefault(found, (labels, resolution))
        if found == n_domains or high / low < 1 + 1e-6:
            break
        low, high = (resolution, high) if found < n_domains else (low, resolution)
        resolution = float(np.sqrt(low * high))
    best = min(tried, key=lambda number: (abs(number - n_domains), number))
    if best != n_domains:
        logger.warning(
            "Leiden gives %d domains at no resolution from %g to %g; %d came closest, at %.4g. Numbers found: %s.",
            *(n_domains, LOWEST, HIGHEST, best, tried[best][1]),
            ", ".join(str(number) for number in sorted(tried)),
        )
    return tried[best]


def partition(network: igraph.Graph, resolution: float, *, seed: int = 0) -> np.ndarray:
    """Run Leiden once.

    Parameters
    ----------
    network
        The graph, with edge weights.
    resolution
        Resolution of the modularity.
    seed
        Seed.

    Returns
    -------
    Labels, (n,) intp, from the largest domain to the smallest.
    """
    with _seeded(seed):
        found = network.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=N_ITERATIONS
        )
    labels = np.asarray(found.membership, dtype=np.intp)
    order = np.argsort(-np.bincount(labels), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[labels]


def to_igraph(graph: sparse.csr_matrix) -> igraph.Graph:
    """Make what `partition` cuts of weighted neighbours, CSR (n, n), symmetric."""
    import igraph

    upper = sparse.triu(graph, k=1).tocoo()
    network = igraph.Graph(n=graph.shape[0], edges=np.column_stack([upper.row, upper.col]), directed=False)
    network.es["weight"] = upper.data.astype(np.float64)
    return network


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed igraph, which has one generator for the process, and give it back to Python's own."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)
