"""From an embedding and a clusterer to labels in a stable order and a model of the domains."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import numpy as np

from stalign._validate import message, whole
from stalign.core.clustering import GMM, Leiden
from stalign.core.domain_model import DomainModel, Projection, principal_axes
from stalign.core.mixture import Mixture
from stalign.core.palette import palette

MAX_FIT = 50_000  # spots that domains are fitted to
N_DOMAINS = 7  # the six layers of the cortex and the white matter


class Clusterer(Protocol):
    """Anything that labels rows, such as the clusterers of scikit-learn."""

    def fit_predict(self, features: Any, /) -> Any:
        """Give each row of (n, d) a label."""


def resolve(clusterer: Clusterer | int | str | None) -> Clusterer:
    """Turn a shorthand into a clusterer.

    Parameters
    ----------
    clusterer
        A number, "leiden", an object with `fit_predict`, or None for seven domains.

    Returns
    -------
    The clusterer.

    Raises
    ------
    ValueError
        If a string is not "leiden".
    TypeError
        If it is anything else without `fit_predict`.
    """
    if clusterer is None:
        return GMM(N_DOMAINS)
    if isinstance(clusterer, int | np.integer) and not isinstance(clusterer, bool):
        return GMM(int(clusterer))
    if isinstance(clusterer, str):
        if clusterer == "leiden":
            return Leiden()
        hint = "Pass a number, or an object such as `GMM(7)`, `KMeans(7)` or `Leiden(n_domains=7)` of `stalign.tl`"
        raise ValueError(message("Expected a clusterer", found=repr(clusterer), available=["leiden"], hint=hint))
    if isinstance(clusterer, bool) or not hasattr(clusterer, "fit_predict"):
        raise TypeError(message("Expected a number, 'leiden' or an object with `fit_predict`", found=repr(clusterer)))
    return clusterer


def find_domains(
    features: np.ndarray, clusterer: Clusterer, use_rep: str, n_components: int | None, seed: int
) -> tuple[np.ndarray, DomainModel, dict[str, Any]]:
    """Project, cluster and name.

    Parameters
    ----------
    features
        Features, (n, d); rows with NaN are left out.
    clusterer
        The clusterer.
    use_rep
        Where the features come from.
    n_components
        Principal components to cluster, None for the features as they are.
    seed
        Seed of the clusterer and of the sample of 50,000 rows that is clustered where there are more.

    Returns
    -------
    Labels (n,) intp from 0, -1 for rows with NaN; the model; and the parameters as AnnData can write them.

    Raises
    ------
    ValueError
        If there are fewer usable rows than domains or `n_components` is below 1.
    """
    if n_components is not None:
        whole(n_components, name="n_components")
    valid = np.flatnonzero(np.isfinite(features).all(axis=1))
    wanted = getattr(clusterer, "n_domains", None) or 1
    if len(valid) < max(wanted, 1):
        have = f"{len(valid)} of {len(features)} spots with features in obsm[{use_rep!r}]"
        raise ValueError(message(f"Expected at least {wanted} usable spots for {wanted} domains", found=have))
    projection = Projection.fit(features[valid], n_components)
    points = projection(features[valid])
    some = np.arange(len(valid))
    if len(valid) > MAX_FIT:
        some = np.random.default_rng(seed).choice(len(valid), MAX_FIT, replace=False)
    some = some[np.lexsort(points[some].T[::-1])]  # the order of the rows must not matter to the clusterer
    found, mixture = _fit(clusterer, points[some], seed)
    order = _order(points[some], found)
    mixture = mixture.take(order)
    rank = np.empty(order.max() + 1, dtype=np.intp)
    rank[order] = np.arange(len(order))
    labels = np.full(len(features), -1, dtype=np.intp)
    if len(some) < len(valid):
        labels[valid] = mixture.predict(points)
    labels[valid[some]] = rank[found]
    names = tuple(str(position + 1) for position in range(len(order)))
    model = DomainModel(names, tuple(palette(len(order))), use_rep, projection, mixture)
    record = {**_describe(clusterer), "random_state": seed, "n_components": len(projection.components)}
    return labels, model, record


def _fit(clusterer: Clusterer, points: np.ndarray, seed: int) -> tuple[np.ndarray, Mixture]:
    """Cluster with any clusterer: labels (n,) from 0 and the rule for further spots."""
    if hasattr(clusterer, "fit") and hasattr(clusterer, "kind"):
        fitted: tuple[np.ndarray, Mixture] = clusterer.fit(points, random_state=seed)
        return fitted
    labels = np.unique(np.asarray(clusterer.fit_predict(points)), return_inverse=True)[1].astype(np.intp)
    if len(labels) != len(points):
        raise ValueError(message(f"Expected {len(points)} labels from the clusterer", found=str(len(labels))))
    return labels, Mixture.discriminant(points, labels)


def _order(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Order the labels that occur by their mean on the first principal axis."""
    axis = principal_axes(points - points.mean(axis=0), 1)[0]
    present, position = np.unique(labels, return_inverse=True)
    means = np.bincount(position, weights=points @ axis) / np.bincount(position)
    return present[np.argsort(means, kind="stable")]


def _describe(clusterer: Clusterer) -> dict[str, Any]:
    """Name a clusterer and its parameters in what AnnData can write: no None, no tuples."""
    if not is_dataclass(clusterer):
        return {"clusterer": repr(clusterer)}
    values = {field.name: getattr(clusterer, field.name) for field in fields(clusterer)}
    kind = str(values.pop("kind", type(clusterer).__name__))
    for name in ("n_domains", "random_state"):
        values.pop(name, None)
    if kind == "leiden" and getattr(clusterer, "n_domains", None) is not None:
        values.pop("resolution")
    return {"clusterer": kind} | {name: value for name, value in values.items() if value is not None}
