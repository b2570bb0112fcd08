"""Counts of spots and niches through a gene encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger, progress
from stalign._validate import message
from stalign.core.genes import match
from stalign.core.niches import niche_mean
from stalign.data.genes import gene_ids
from stalign.data.sections import groups
from stalign.data.table import read_counts
from stalign.tl._encode_run import niche_graph_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.tl._encode_run import Run

_CHUNK = 512  # spots to a cached file


def encode_genes(
    run: Run,
    data: AnnData | SpatialData,
    table: AnnData,
    *,
    level: str,
    layer: str | None,
    total_counts: str | None,
    gene_key: str | None,
    aliases: Mapping[str, str] | None,
    orthologs: Mapping[str, str] | None,
    **where: Any,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Encode the counts of a table's spots.

    Parameters
    ----------
    run
        The encoder and its cache.
    data
        AnnData or SpatialData.
    table
        Its table; it is not changed.
    level
        `spot` or `niche`.
    layer, total_counts, gene_key, aliases, orthologs
        As for `tl.encode`.
    where
        `library_key` and `table_key`.

    Returns
    -------
    Features, (n_obs, dim) float32, NaN where there are no counts, and a record of the genes.
    """
    counts, totals = read_counts(table, layer=layer, total_counts=total_counts)
    encoder = run.encoder
    record: dict[str, Any] = {"n_genes": int(counts.shape[1])}
    if encoder.vocabulary:
        ids, _ = gene_ids(table, gene_key=gene_key)
        found = match(ids, encoder.vocabulary, aliases=aliases, orthologs=orthologs)
        logger.info("%s: %s.", run.card.name, found.summary())
        counts = (counts @ found.collapse).tocsr()
        record |= {"n_genes": found.n_matched, "gene_coverage": float(found.coverage), "matched_by": found.kind}
    if level == "niche":
        graph = niche_graph_of(data, table, **where)
        counts = niche_mean(graph, counts)
        totals = None if totals is None else niche_mean(graph, totals[:, None])[:, 0].astype(np.float64)
    else:
        groups(data, **where)  # the same complaints about sections at both levels
    counts.sort_indices()
    if not getattr(encoder, "normalises", False):
        if totals is not None:
            logger.info("%s does not normalise by totals: obs[%r] makes no difference.", run.card.name, total_counts)
        totals = None
    return _encode(run, counts, list(table.obs_names), totals), record


def _encode(
    run: Run, counts: sp.csr_matrix, names: list[str], totals: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    step = max(len(names), 1) if getattr(run.encoder, "whole", False) else _CHUNK
    features = np.full((len(names), run.card.dim), np.nan, dtype=np.float32)
    starts = range(0, len(names), step)
    for start in progress(starts, desc=f"Encoding with {run.card.name}", unit="chunk"):
        rows = slice(start, start + step)
        part, labels = counts[rows], names[rows]
        extra = {} if totals is None else {"totals": totals[rows]}
        key = run.cache.key(part.indptr, part.indices, part.data, "\x1f".join(labels).encode(), *extra.values())
        shape = (len(labels), run.card.dim)
        found = run.cache.get(key, shape)
        if found is None:
            found = run.encoder.encode(part, labels, **extra)
            if found.shape != shape:
                raise ValueError(message(f"Expected {run.card.name!r} to return {shape}", found=found.shape))
            found = np.asarray(found, dtype=np.float32)
            run.cache.put(key, found)
        features[rows] = found
    return features
