"""Counts of spots and niches through a gene encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger, progress
from stalign._threads import threads_for
from stalign._validate import message
from stalign.core.genes import match
from stalign.core.niches import niche_mean
from stalign.data import gene_ids, niche_of, niche_slots, read_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.data import CountKeys, Section
    from stalign.tl._encoding import Encoding

_CHUNK = 512  # spots to a cached file


def encode_genes(
    encoding: Encoding,
    sections: Sequence[Section],
    keys: CountKeys,
    *,
    level: str,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Encode the counts of a table's spots.

    Parameters
    ----------
    encoding
        The encoder and its cache.
    sections
        All sections of the table.
    keys
        Where its counts are.
    level
        `spot` or `niche`.

    Returns
    -------
    Features, (n_obs, dim) float32, NaN where there are no counts, and a record of the genes.
    """
    table = sections[0].table
    counts, totals = read_counts(table, layer=keys.layer, total_counts=keys.total_counts)
    encoder = encoding.encoder
    noted: dict[str, Any] = {"n_genes": int(counts.shape[1])}
    if encoder.vocabulary:
        ids, _ = gene_ids(table, gene_key=keys.gene_key)
        found = match(ids, encoder.vocabulary, aliases=keys.aliases, orthologs=keys.orthologs)
        logger.info("%s: %s.", encoding.card.name, found.summary())
        counts = (counts @ found.collapse).tocsr()
        noted |= {"n_genes": found.n_matched, "gene_coverage": float(found.coverage), "matched_by": found.kind}
    if level == "niche":
        graph = niche_slots(sections, niche_of(table))["obsp"][Keys.NICHE_GRAPH]
        counts = niche_mean(graph, counts)
        totals = None if totals is None else niche_mean(graph, totals[:, None])[:, 0].astype(np.float64)
    counts.sort_indices()
    if not getattr(encoder, "normalises", False):
        if totals is not None:
            unused = "%s does not normalise by totals: obs[%r] makes no difference."
            logger.info(unused, encoding.card.name, keys.total_counts)
        totals = None
    return _encode(encoding, counts, list(table.obs_names), totals), noted


def _encode(
    encoding: Encoding, counts: sp.csr_matrix, names: list[str], totals: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    step = max(len(names), 1) if getattr(encoding.encoder, "whole", False) else _CHUNK
    features = np.full((len(names), encoding.card.dim), np.nan, dtype=np.float32)
    starts = range(0, len(names), step)
    for start in progress(starts, desc=f"Encoding with {encoding.card.name}", unit="chunk"):
        rows = slice(start, start + step)
        part, labels = counts[rows], names[rows]
        extra = {} if totals is None else {"totals": totals[rows]}
        key = encoding.cache.key(part.indptr, part.indices, part.data, "\x1f".join(labels).encode(), *extra.values())
        shape = (len(labels), encoding.card.dim)
        found = encoding.cache.get(key, shape)
        if found is None:
            with threads_for(len(names), images=True, sklearn=False):  # a network reads each spot, as it does an image
                found = encoding.encoder.encode(part, labels, **extra)
            if found.shape != shape:
                raise ValueError(message(f"Expected {encoding.card.name!r} to return {shape}", found=found.shape))
            found = np.asarray(found, dtype=np.float32)
            encoding.cache.put(key, found)
        features[rows] = found
    return features
