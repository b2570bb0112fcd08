"""Features that labels are read from: an embedding and expression, of each spot and of the spots around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from stalign.core.domain_model import Projection
from stalign.core.expression import fit_low_rank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

N_COMPONENTS = 50
FEW_COMPONENTS = 15
_LEAST = 1e-6  # share of the largest variance that a component of the embedding has at least
N_GENES = 2000  # genes of the expression features, those that vary most within sections


@dataclass(frozen=True)
class Part:
    """Some components of one source, averaged over the ring of spots around each spot.

    Parameters
    ----------
    source
        `rep` for the embedding, `spot` or `niche` for expression by the components of spots, or of rings of spots.
    passes
        How often the mean over a spot and its ring is taken.
    n_components
        How many components, the first.
    """

    source: str
    passes: int
    n_components: int


View = tuple[Part, ...]
PLAIN: View = (Part("rep", 0, N_COMPONENTS),)
_OF_REP: tuple[View, ...] = (
    (Part("rep", 1, N_COMPONENTS),),
    (Part("rep", 2, FEW_COMPONENTS),),
    tuple(Part("rep", passes, FEW_COMPONENTS) for passes in (0, 1, 2)),
    tuple(Part("rep", passes, N_COMPONENTS) for passes in (0, 1, 2)),
    (Part("rep", 0, FEW_COMPONENTS),),
)
_OF_GENES: tuple[View, ...] = (
    (Part("spot", 0, FEW_COMPONENTS), Part("niche", 1, FEW_COMPONENTS), Part("niche", 2, FEW_COMPONENTS)),
    (Part("spot", 0, N_COMPONENTS), Part("niche", 1, N_COMPONENTS), Part("niche", 2, N_COMPONENTS)),
    (Part("spot", 0, FEW_COMPONENTS),),
    (Part("spot", 0, N_COMPONENTS),),
    (Part("rep", 0, N_COMPONENTS), Part("spot", 0, N_COMPONENTS), Part("niche", 2, N_COMPONENTS)),
)
_BROAD = (PLAIN, *_OF_REP[:3], _OF_GENES[0])  # averaged unless labels say better


@dataclass(frozen=True)
class SectionData:
    """What is known of the spots of one section.

    Parameters
    ----------
    rep
        The embedding, (n, d); rows with NaN are spots without.
    ring
        Neighbours, CSR (n, n) bool, symmetric.
    labels
        Position of each spot's label in the classes, (n,) intp; -1 where there is none.
    expression
        log1p of counts per 10,000, CSR (n, g), or None.
    coords
        Centres, (n, 2) in any unit; NaN where unknown.
    """

    rep: np.ndarray
    ring: sparse.csr_matrix
    labels: np.ndarray
    expression: sparse.csr_matrix | None
    coords: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Spots with an embedding, (n,) bool."""
        return np.asarray(np.isfinite(self.rep).all(axis=1))

    @property
    def near(self) -> sparse.csr_matrix:
        """Spots within two rings that have an embedding, CSR (n, n) bool, symmetric, without the diagonal."""
        use = sparse.diags(self.usable.astype(np.float32), dtype=np.float32)
        links = use @ self.ring.astype(np.float32) @ use
        links = sparse.csr_matrix(links + links @ links, dtype=bool)
        links.setdiag(0)
        links.eliminate_zeros()
        return links

    @property
    def mean(self) -> sparse.csr_matrix:
        """Weights of the mean over each spot and its ring, CSR (n, n); spots without an embedding count for nothing."""
        use = sparse.diags(self.usable.astype(np.float64))
        links = use @ (self.ring.astype(np.float64) + sparse.identity(len(self.rep), format="csr")) @ use
        sums = np.asarray(links.sum(axis=1)).ravel()
        return sparse.csr_matrix(sparse.diags(np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0)) @ links)


def most_variable(sections: Sequence[SectionData], n_genes: int = N_GENES) -> np.ndarray:
    """Find the genes that vary most within sections: their columns, ascending."""
    parts = [section.expression for section in sections if section.expression is not None]
    total = np.zeros(parts[0].shape[1])
    for values in parts:
        mean = np.asarray(values.mean(axis=0, dtype=np.float64)).ravel()
        total += np.asarray(values.multiply(values).mean(axis=0, dtype=np.float64)).ravel() - mean**2
    return np.sort(np.argsort(-total, kind="stable")[:n_genes])


def fit_bases(sections: Sequence[SectionData], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Fit principal components of each source to sections: (r, d) or (r, g) by source.

    Components are those of deviations from the section's mean. Directions of the embedding along which nothing varies
    are left out: there other sections would differ from these by rounding alone.
    """
    rep = np.concatenate([part.rep[part.usable] - part.rep[part.usable].mean(axis=0) for part in sections])
    axes = Projection.fit(rep, min(N_COMPONENTS, rep.shape[1])).components
    spread = np.array([np.square(rep @ axis).mean() for axis in axes])
    bases = {"rep": axes[spread > _LEAST * spread.max(initial=0)] if spread.any() else axes[:1]}
    if any(part.expression is None for part in sections):
        return bases
    values = sparse.csr_matrix(sparse.vstack([part.expression for part in sections]))
    weights = sparse.csr_matrix(sparse.block_diag([part.mean for part in sections]))
    bases["spot"] = fit_low_rank(values, N_COMPONENTS, seed=seed).basis.astype(np.float64)
    bases["niche"] = fit_low_rank(values, N_COMPONENTS, weights=weights, seed=seed).basis.astype(np.float64)
    return bases


def views_of(bases: Mapping[str, np.ndarray]) -> list[View]:
    """List the views that the sources allow, the plain one first and none twice."""
    return _within(bases, (PLAIN, *_OF_REP, *_OF_GENES))


def broad_views(bases: Mapping[str, np.ndarray]) -> list[View]:
    """List the views that are averaged where the labels do not tell which are best."""
    return _within(bases, _BROAD)


def _within(bases: Mapping[str, np.ndarray], views: Sequence[View]) -> list[View]:
    """Keep views whose sources there are, with no more components than these have, and none twice."""
    known: dict[View, None] = {}
    for view in views:
        if all(part.source in bases for part in view):
            parts = (replace(part, n_components=min(part.n_components, len(bases[part.source]))) for part in view)
            known.setdefault(tuple(parts))
    return list(known)


def view_features(section: SectionData, bases: Mapping[str, np.ndarray], views: Sequence[View]) -> dict[View, Any]:
    """Features of a section in each view, (n, f) float64 by view; 0 on average over the section."""
    mean, usable, scores = section.mean, section.usable, {}
    for source, passes in sorted({(part.source, part.passes) for view in views for part in view}):
        if (source, passes) in scores:
            continue
        values = np.where(usable[:, None], section.rep, 0) if source == "rep" else section.expression
        start = np.asarray(values @ bases[source].T)
        for _ in range(passes):
            start = mean @ start
        scores[source, passes] = start - start[usable].mean(axis=0) if usable.any() else start
    return {
        view: np.concatenate([scores[p.source, p.passes][:, : p.n_components] for p in view], axis=1) for view in views
    }
