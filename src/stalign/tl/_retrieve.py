"""Match images with expression profiles, in the space both were aligned to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign._threads import few_threads
from stalign._validate import message, one_of, whole
from stalign.data.table import library_column, table_of
from stalign.tl._domains import features_of
from stalign.tl._modality import check_modality

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

DIRECTIONS = {
    "image_to_gene": (Keys.EMBED_IMAGE, Keys.EMBED_GENE),
    "gene_to_image": (Keys.EMBED_GENE, Keys.EMBED_IMAGE),
}
RECALL = (0.01, 0.05, 0.10)  # of the candidates, as HiBio-ST reports
ROUNDING = 1e-6  # of a cosine in float32: products of equal rows differ by it, as the processor sums them in blocks
CHUNK = 16_000_000  # similarities in memory at once, 64 MB


@few_threads
def retrieve(
    query: AnnData | SpatialData,
    reference: AnnData | SpatialData | None = None,
    *,
    direction: str = "image_to_gene",
    n: int = 10,
    use_rep: tuple[str, str] | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Find the expression profiles that match an image best, or the images that match a profile.

    Similarity is the cosine between the aligned embeddings of both sides. Spots whose embedding has NaN neither ask nor
    answer.

    Parameters
    ----------
    query
        Spots that ask.
    reference
        Spots that answer; None for those of `query`, whose pairs are known, so that recall can be told.
    direction
        `image_to_gene` asks with images for profiles, `gene_to_image` the other way round.
    n
        Matches of each spot, fewer where there are fewer candidates.
    use_rep
        The obsm keys of the asking and the answering side, of equal width, instead of those that `tl.embed` writes.
    library_key
        obs column of sections: each spot is matched within its own, as HiBio-ST does. None matches all with all.
    table_key
        Table of SpatialData objects.

    Returns
    -------
    A row per match: query (name in obs), rank from 1, match (name in obs of the reference) and similarity; section by
    section where `library_key` is given. In `attrs`: direction, n_query, n_reference and, where `reference` is None,

    - recall, the share of spots whose own partner is among the best 1, 5 and 10 per cent of the candidates (rounded up
      to whole candidates), such as ``{"1%": 0.04}``, the mean over sections with `library_key`;
    - chance, what recall is where embeddings say nothing: these cut-offs over the number of candidates;
    - pool, `all` or `section`: what the candidates are.

    Reads
    -----
    - `obsm["X_stalign_image"]` and `obsm["X_stalign_gene"]`, (n_obs, width) float

    Raises
    ------
    KeyError
        If an embedding or the column of sections is missing.
    ValueError
        If the direction is unknown, `library_key` comes with a `reference`, widths differ, `n` is below 1, or one side
        has no usable spot.

    Notes
    -----
    Similarities are made in chunks of 16 million, so memory does not grow with the product of both sides.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> matches = stalign.tl.retrieve(adata, n=3)
    >>> list(matches.columns)
    ['query', 'rank', 'match', 'similarity']
    """
    one_of(direction, DIRECTIONS, name="direction")
    whole(n, name="n")
    asks, answers = DIRECTIONS[direction] if use_rep is None else use_rep
    asking = table_of(query, table_key)
    answering = asking if reference is None else table_of(reference, table_key)
    rows, left = _unit(asking, asks)
    columns, right = _unit(answering, answers)
    if left.shape[1] != right.shape[1]:
        found = f"{left.shape[1]} in obsm[{asks!r}], {right.shape[1]} in obsm[{answers!r}]"
        raise ValueError(
            message("Expected embeddings of one width", found=found, hint="Use one set of weights for both")
        )
    if library_key is not None and reference is not None:
        hint = "Leave one of them out"
        raise ValueError(message("Expected `library_key` or `reference`", found="both", hint=hint))
    pools = [np.arange(asking.n_obs)]
    if library_key is not None:
        names, codes = library_column(asking, library_key)
        pools = [np.flatnonzero(codes == index) for index in range(len(names))]
    parts, recalls, chances = [], [], []
    for pool in pools:
        ask = np.flatnonzero(np.isin(rows, pool)) if library_key is not None else np.arange(len(rows))
        answer = np.flatnonzero(np.isin(columns, pool)) if library_key is not None else np.arange(len(columns))
        if len(ask) == 0 or len(answer) == 0:
            continue
        partner = None
        if reference is None:
            partner = np.full(asking.n_obs, -1)
            partner[columns[answer]] = np.arange(len(answer))
            partner = partner[rows[ask]]
        best, similarity, rank = _search(left[ask], right[answer], min(n, len(answer)), partner)
        parts.append(
            pd.DataFrame(
                {
                    "query": np.repeat(asking.obs_names.to_numpy()[rows[ask]], best.shape[1]),
                    "rank": np.tile(np.arange(1, best.shape[1] + 1), len(ask)),
                    "match": answering.obs_names.to_numpy()[columns[answer[best.ravel()]]],
                    "similarity": similarity.ravel(),
                }
            )
        )
        if partner is not None and (partner >= 0).any():
            recalls.append(_recall(rank[partner >= 0], len(answer)))
            chances.append({name: size / len(answer) for name, size in _cut(len(answer)).items()})
    if not parts:
        expected = "Expected a section with embeddings of both sides"
        raise ValueError(message(expected, found=f"NaN in obsm[{asks!r}] or obsm[{answers!r}] of each"))
    result = pd.concat(parts, ignore_index=True)
    result.attrs = {"direction": direction, "n_query": len(rows), "n_reference": len(columns)}
    if reference is None:
        result.attrs |= {"recall": _mean(recalls), "chance": _mean(chances)}
        result.attrs["pool"] = "all" if library_key is None else "section"
    logger.info("Matched %d spots with %d (%s).", len(rows), len(columns), direction)
    return result


def _unit(table: AnnData, use_rep: str) -> tuple[np.ndarray, np.ndarray]:
    """Get the usable rows and their embeddings at unit length."""
    check_modality(table, use_rep)
    values = features_of(table, use_rep)
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(rows) == 0:
        raise ValueError(message(f"Expected a spot with an embedding in obsm[{use_rep!r}]", found="NaN in every row"))
    values = values[rows].astype(np.float32)
    return rows, values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _search(
    left: np.ndarray, right: np.ndarray, n: int, partner: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the n best of `right` for each row of `left`, and how many beat the partner (a tie by half), or -1."""
    best = np.empty((len(left), n), dtype=np.intp)
    similarity = np.empty((len(left), n), dtype=np.float32)
    rank = np.full(len(left), -1.0)
    step = max(1, CHUNK // len(right))
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        cosine = left[part] @ right.T
        if n < len(right):
            top = np.argpartition(-cosine, n - 1, axis=1)[:, :n]
        else:
            top = np.broadcast_to(np.arange(n), cosine.shape)
        values = np.take_along_axis(cosine, top, axis=1)
        order = np.lexsort((top, -values), axis=1)
        best[part] = np.take_along_axis(top, order, axis=1)
        similarity[part] = np.take_along_axis(values, order, axis=1)
        if partner is not None:
            has = partner[part] >= 0
            own = cosine[np.flatnonzero(has), partner[part][has]][:, None]
            ties = (np.abs(cosine[has] - own) <= ROUNDING).sum(axis=1) - 1
            rank[part][has] = (cosine[has] > own + ROUNDING).sum(axis=1) + ties / 2
    return best, similarity, rank


def _cut(n_candidates: int) -> dict[str, int]:
    """How many of the candidates count as the best, by share."""
    return {f"{share:.0%}": int(np.ceil(share * n_candidates - 1e-9)) for share in RECALL}


def _recall(rank: np.ndarray, n_candidates: int) -> dict[str, float]:
    """Share of spots with fewer better candidates than the cut-off allows."""
    return {name: float((rank < size).mean()) for name, size in _cut(n_candidates).items()}


def _mean(parts: list[dict[str, float]]) -> dict[str, float]:
    """Mean over sections; NaN where there are none."""
    return {name: float(np.mean([part[name] for part in parts])) if parts else float("nan") for name in _cut(1)}
