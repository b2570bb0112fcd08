"""The counts of a section in the genes that weights know."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from scipy.spatial import KDTree

from stalign._settings import logger
from stalign._validate import message, warn
from stalign.core.expression import LowRank, fit_low_rank, normalise
from stalign.core.gaussian import GaussianMean, gaussian_mean, spread

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from stalign.data.counts import Counts
    from stalign.data.section import Section
    from stalign.models.config import InputSpec

_CHUNK = 4096  # spots whose scores are computed at one time
_FIT_SPOTS = 20_000  # spots that the gene basis of a section is fitted to at most
_FIT_PLACES = 100  # places that they are taken from in a section of more
_FIT_NICHES = 2000  # niches that it is fitted to where each has hundreds of spots, as of bins and cells
_FIT_PAIRS = 20_000_000  # spots in those niches at most
_DRAWN = 64  # spots that stand for such a niche where its counts are thinned
_LEAST_SPREAD = 0.7  # of the wanted standard deviation; niches of less are worth a warning


@dataclass(frozen=True)
class Expression:
    """The counts of a section in the genes of a vocabulary, with a basis of low rank.

    Parameters
    ----------
    counts
        Raw counts, CSR (n, n_genes) float32.
    totals
        Total counts of each spot for the normalisation, (n,).
    graph
        Weights of the spots in the mean expression of each niche, CSR (n, n) float32, or a `GaussianMean` where a niche
        has hundreds of spots. Rows sum to 1, and are empty where no spot of the niche has counts.
    has_niche
        Whether a spot of the niche has counts, (n,).
    niche_sd_um
        Standard deviation of the weights about their spot, along one axis, in µm; NaN where they are no Gaussian.
    low_rank
        Mean, basis (rank, n_genes) and scale fitted to the section's niches.
    scores
        Scores of the spots on that basis, (n, rank) float32; 0 for a spot without counts.
    niche_scores
        Scores of the niches, (n, rank) float32. Means commute with the scores, as these are affine and the weights sum
        to 1.
    niche_sum
        Sum over the genes that the mean expression of each niche is scaled to; 0 where it is left as it is.
    target
        Counts per spot after normalisation; 0 where they are left as they are.
    log1p
        Whether log(1 + x) is taken after that.
    centred
        Whether expression that goes to the network gene by gene is taken as deviations from the section's mean.
    coverage
        Share of the section's genes that the vocabulary knows.
    n_matched
        How many of the section's genes the vocabulary knows.
    missing, unknown
        Genes of the vocabulary that the section does not have, and genes of the section that the vocabulary does not
        know.
    """

    counts: sp.csr_matrix
    totals: NDArray[np.float64]
    graph: sp.csr_matrix | GaussianMean
    has_niche: NDArray[np.bool_]
    niche_sd_um: float
    low_rank: LowRank
    scores: NDArray[np.float32]
    niche_scores: NDArray[np.float32]
    niche_sum: float
    target: float
    log1p: bool
    centred: bool
    coverage: float
    n_matched: int
    missing: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def values(self) -> sp.csr_matrix:
        """Normalised expression of all spots, CSR (n, n_genes) float32; computed at each call."""
        return self._normalised(self.counts, self.totals)

    def niches(self, rows: NDArray[np.intp], rng: np.random.Generator | None = None) -> sp.csr_matrix:
        """Weights of the spots in some niches.

        Parameters
        ----------
        rows
            Positions of the niches' spots, (b,).
        rng
            Source of randomness; with one, a niche of hundreds of spots is stood for by 64 of them, drawn by weight.

        Returns
        -------
        CSR (b, n) float32.
        """
        if not isinstance(self.graph, GaussianMean):
            return self.graph[rows]
        return self.graph.rows(rows) if rng is None else self.graph.draw(rows, _DRAWN, rng)

    def dense(self, members: NDArray[np.intp], local: sp.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Normalised expression of some spots and niches, gene by gene.

        Parameters
        ----------
        members
            Positions of the spots, (m,).
        local
            Weights of these spots in the niches, CSR (b, m).

        Returns
        -------
        Expression of the spots, (m, n_genes) float32, and of the niches, (b, n_genes) float32, as deviations from the
        section's mean where the weights expect that; 0 for spots without counts.
        """
        values = self._normalised(self.counts[members], self.totals[members]).toarray()
        sums = local @ values.sum(axis=1)
        mean = self.low_rank.mean * np.float32(self.centred)
        values -= mean * (self.totals[members] > 0)[:, None].astype(np.float32)
        return values, rescaled(local @ values, sums, self.niche_sum, mean)

    def thinned(
        self, members: NDArray[np.intp], local: sp.csr_matrix, keep: float, rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores of spots and niches after binomial thinning of the counts.

        Parameters
        ----------
        members
            Positions of the spots, (m,).
        local
            Weights of these spots in the niches, CSR (b, m).
        keep
            Probability that a count is kept.
        rng
            Source of randomness.

        Returns
        -------
        Scores of the spots, (m, rank) float32, and of the niches, (b, rank) float32; 0 for spots without counts.
        """
        counts = self.counts[members].copy()
        counts.data = rng.binomial(np.round(counts.data).astype(np.int64), keep).astype(np.float32)
        values = self._normalised(counts, self.totals[members] * keep)
        scores = self.low_rank.scores(values)
        scores[self.totals[members] == 0] = 0
        sums = local @ np.asarray(values.sum(axis=1)).ravel()
        return scores, rescaled(local @ scores, sums, self.niche_sum, self.low_rank.origin)

    def _normalised(self, counts: sp.csr_matrix, totals: NDArray[np.float64]) -> sp.csr_matrix:
        return _normalised(counts, totals, self.target, log1p=self.log1p)


def read_expression(
    counts: Counts,
    section: Section,
    graph: sp.csr_matrix,
    valid: NDArray[np.bool_],
    spec: InputSpec,
    *,
    random_state: int = 0,
) -> Expression:
    """Take a section's counts and fit its low-rank basis.

    Parameters
    ----------
    counts
        Counts of the section.
    section
        The section.
    graph
        Niches of the section, CSR (n, n), rows sum to 1.
    valid
        Whether a spot has a position, (n,).
    spec
        What the weights expect of their input.
    random_state
        Seed of the subsample that the basis is fitted to, drawn by position, so that the order of the spots does not
        matter.

    Returns
    -------
    The expression. Mean and components are those of the niches' mean expression over their spots with counts.

    Raises
    ------
    ValueError
        If no spot with a position has counts.
    """
    matrix, totals = counts.matrix, counts.totals
    usable = np.flatnonzero(valid & (totals > 0))
    if len(usable) == 0:
        msg = message(
            f"Expected at least one spot with counts in section {section.name!r}", found="only spots without counts"
        )
        raise ValueError(msg)
    normal = partial(_normalised, target=spec.gene_target_sum, log1p=spec.log1p)
    small = section.smaller_than(spec.spot_um)
    sigma = min(spec.niche_sigma, spec.small_sigma) if small else spec.niche_sigma
    niches, width = _niches(section, graph, valid, totals, sigma)
    rank = min(spec.rank, max(len(usable) // 5, 1))
    has_niche = niches.has_members if isinstance(niches, GaussianMean) else np.diff(niches.indptr) > 0
    chunks = [usable[start : start + _CHUNK] for start in range(0, len(usable), _CHUNK)]
    sums, niche_sum = np.ones(len(totals)), 0.0
    if np.isfinite(width) and small:
        own = np.zeros((len(totals), 1))
        for part in chunks:
            own[part] = normal(matrix[part], totals[part]).sum(axis=1, dtype=np.float64)
        sums = np.asarray(niches @ own)[:, 0]
        niche_sum = float(np.median(sums[has_niche]))
    factor = np.divide(niche_sum or 1.0, sums, out=np.ones(len(sums)), where=sums > 0)
    if isinstance(niches, GaussianMean):
        means = _means_to_fit(niches, usable, section.coords, matrix, totals, normal, factor, random_state)
        low_rank = fit_low_rank(means, rank=rank, seed=random_state)
    else:
        some = _sample(usable, section.coords, random_state)
        weights = sp.csr_matrix(sp.diags_array(factor[some]) @ niches[some]).astype(np.float32)
        members = np.unique(weights.indices)
        values = normal(matrix[members], totals[members])
        low_rank = fit_low_rank(values, rank=rank, weights=weights[:, members], seed=random_state)
    if spec.centre == "none":
        low_rank = replace(low_rank, mean=np.zeros_like(low_rank.mean))
    scores = np.zeros((matrix.shape[0], len(low_rank.basis)), np.float32)
    for part in chunks:
        scores[part] = low_rank.scores(normal(matrix[part], totals[part]))
    return Expression(
        matrix,
        totals,
        niches,
        has_niche,
        width,
        low_rank,
        scores,
        rescaled(niches @ scores, sums, niche_sum, low_rank.origin),
        niche_sum,
        spec.gene_target_sum,
        spec.log1p,
        spec.centre == "section",
        counts.coverage,
        counts.n_matched,
        counts.missing,
        counts.unknown,
    )


def rescaled(
    means: NDArray[np.floating], sums: NDArray[np.floating], wanted: float, origin: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Scale the mean expression of niches to one sum over the genes.

    The log of normalised counts still grows with the counts where these are a handful, as of small bins: a niche of
    bins with many counts has more of every gene. Left in, that is the largest component.

    Parameters
    ----------
    means
        (b, d) means of values, or of scores that are linear in them, less `origin`.
    sums
        (b,) sums over the genes of the mean values.
    wanted
        The sum to scale to; 0 leaves the means as they are.
    origin
        (d,) what was subtracted.

    Returns
    -------
    (b, d) float32, less `origin` as well. A niche without counts stays as it is.
    """
    means = np.asarray(means, dtype=np.float32)
    if not wanted > 0:
        return means
    factor = np.divide(wanted, sums, out=np.ones(len(means)), where=np.asarray(sums) > 0).astype(np.float32)
    return np.asarray(means * factor[:, None] + np.outer(factor - 1, origin))


def _niches(
    section: Section, graph: sp.csr_matrix, valid: NDArray[np.bool_], totals: NDArray[np.float64], sigma: float
) -> tuple[sp.csr_matrix | GaussianMean, float]:
    """Niches by a Gaussian, where that is wanted and there is a scale, or as given; and the Gaussian's spread in µm."""
    if not sigma > 0:
        return _with_counts(graph, totals), float("nan")
    if not np.isfinite(section.coord_mpp):
        logger.warning(
            "Section %r has no physical scale: the expression of its niches is a plain mean. Pass `mpp=` to weigh it.",
            section.name,
        )
        return _with_counts(graph, totals), float("nan")
    coords = np.where(valid[:, None], section.coords_um, np.nan)
    niches = gaussian_mean(coords, sigma, members=totals > 0)
    width = spread(niches, coords)
    if width < _LEAST_SPREAD * sigma and not section.pitch_um > sigma:  # on arrays of such a pitch it cannot be wider
        expected = f"Expected niches of section {section.name!r} to average expression by a Gaussian of {sigma:g} µm"
        found = f"{width:.0f} µm in effect, as too few spots with counts are around most"
        warn(message(expected, found=found, hint="Use larger bins, or check the scale"))
    return niches, width


def _means_to_fit(
    niches: GaussianMean,
    usable: NDArray[np.intp],
    coords: NDArray[np.float64],
    matrix: sp.csr_matrix,
    totals: NDArray[np.float64],
    normal: Callable[[sp.csr_matrix, NDArray[np.float64]], sp.csr_matrix],
    factor: NDArray[np.float64],
    seed: int,
) -> NDArray[np.float32]:
    """Mean expression of niches from all over the section, times a factor each, (m, n_genes), most of it not 0."""
    rng, placed = np.random.default_rng(seed), usable[np.lexsort(coords[usable].T)]
    some = rng.choice(placed, min(len(placed), _FIT_NICHES), replace=False)
    pairs = niches.count(some)
    some = some[: max(1, int(np.searchsorted(np.cumsum(pairs), _FIT_PAIRS)))]
    some = some[np.lexsort(coords[some].T)]  # niches side by side share spots
    means = []
    for rows in np.array_split(some, max(1, len(some) // 50)):
        weights = niches.rows(rows)
        members = np.unique(weights.indices)
        weights.data *= np.repeat(factor[rows], np.diff(weights.indptr)).astype(np.float32)
        values = normal(matrix[members], totals[members])
        means.append((values.T @ weights[:, members].toarray().T).T)  # less work than a sparse product
    return np.concatenate(means)


def _sample(usable: NDArray[np.intp], coords: NDArray[np.float64], seed: int) -> NDArray[np.intp]:
    """Spots to fit to: all, or those around some, so that few spots are in the niches of many."""
    if len(usable) <= _FIT_SPOTS:
        return usable
    placed = usable[np.lexsort(coords[usable].T)]
    centres = np.random.default_rng(seed).choice(placed, _FIT_PLACES, replace=False)
    _, around = KDTree(coords[placed]).query(coords[centres], k=max(_FIT_SPOTS // _FIT_PLACES, 1))
    return np.unique(placed[around])


def _with_counts(graph: sp.csr_matrix, totals: NDArray[np.float64]) -> sp.csr_matrix:
    """Niches (n, n) without the spots that have no counts; rows sum to 1 again, or are empty where none is left."""
    if (totals > 0).all():
        return sp.csr_matrix(graph)
    kept = graph.multiply((totals > 0).astype(np.float32)).tocsr()
    kept.eliminate_zeros()
    whole = np.asarray(kept.sum(axis=1)).ravel()
    kept.data /= np.repeat(whole, np.diff(kept.indptr))
    return kept


def _normalised(counts: sp.csr_matrix, totals: NDArray[np.float64], target: float, *, log1p: bool) -> sp.csr_matrix:
    """Normalise as the weights expect it: to a total per spot unless that is 0, then log1p unless switched off."""
    if target > 0 and log1p:
        return normalise(counts, totals, target=target)
    values = counts.astype(np.float32)
    if target > 0:
        factors = np.divide(target, totals, out=np.zeros_like(totals), where=totals > 0)
        values.data *= np.repeat(factors, np.diff(values.indptr)).astype(np.float32)
    if log1p:
        np.log1p(values.data, out=values.data)
    return values
