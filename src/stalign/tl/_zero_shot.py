"""How well clusters of an embedding agree with labels, section by section, without any training on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._threads import few_threads
from stalign._validate import message, whole
from stalign.core.clustering import KMeans
from stalign.core.labels import NO_LABEL
from stalign.core.refine import neighbour_vote
from stalign.core.scores import agreement
from stalign.data import open_sections, table_of
from stalign.tl._domains import features_of
from stalign.tl._score import labels_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData
    from spatialdata import SpatialData

MEAN = "mean"


@few_threads
def zero_shot(
    data: AnnData | SpatialData,
    truth: str = "layer",
    *,
    use_rep: str = Keys.EMBED_IMAGE,
    n_domains: int | str = 7,
    n_init: int = 50,
    max_iter: int = 500,
    n_neighbors: int = 5,
    ignore: Collection[str] = NO_LABEL,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
) -> pd.DataFrame:
    """Cluster an embedding of each section by itself and compare with labels, by the protocol of HiBio-ST (C.2.1).

    Rows are scaled to unit length and cut by k-means. Then each spot takes the label that most of its nearest spots
    hold, itself left out, in one pass. All spots with an embedding are clustered, and those with a label are scored.

    Parameters
    ----------
    data
        One or more sections. It is not changed.
    truth
        The obs column of labels, such as a pathologist's.
    use_rep
        The obsm key, by default that of images that `tl.embed` writes.
    n_domains
        k; `"labels"` takes the number of labels in each section.
    n_init, max_iter
        Starts of k-means, and steps of each at most.
    n_neighbors
        Spots that vote; where two labels have most votes, a spot keeps its own.
    ignore
        Labels that mean "not labelled", as in `tl.score`.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.
    random_state
        Seed; None for `settings.seed`.

    Returns
    -------
    A row per section with labels, and one called "mean": library, n_spots, n_scored, n_domains, n_truth, ARI and NMI
    without the vote, ARI_smoothed and NMI_smoothed with it.

    Raises
    ------
    KeyError
        If the embedding or a column is missing.
    ValueError
        If no section has labelled spots with an embedding, or a section has fewer spots than clusters.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> found = stalign.tl.zero_shot(adata, "domain", n_domains="labels", n_init=3)
    >>> list(found["library"]), found["n_domains"].tolist()
    (['toy', 'mean'], [5.0, 5.0])
    """
    for name, number in (("n_init", n_init), ("max_iter", max_iter), ("n_neighbors", n_neighbors)):
        whole(number, name=name)
    if n_domains != "labels":
        whole(n_domains, name="n_domains")
    table = table_of(data, table_key)
    labels = labels_of(table, truth, name="truth", ignore=ignore, hint="Pass `truth=`")
    features, seed = features_of(table, use_rep), seed_of(random_state)
    rows: list[dict[str, Any]] = []
    for section in open_sections(data, table_key=table_key, library_key=library_key, image=False):
        values = np.asarray(features[section.rows], dtype=np.float64)
        used = np.flatnonzero(np.isfinite(values).all(axis=1))
        known = labels[section.rows][used]
        scored = np.array([label is not None for label in known], dtype=bool)
        if not scored.any():
            logger.warning("Section %r has no labelled spot with an embedding and is left out.", section.name)
            continue
        n_truth = len(set(known[scored]))
        k = n_truth if n_domains == "labels" else int(n_domains)
        units = values[used] / np.maximum(np.linalg.norm(values[used], axis=1, keepdims=True), 1e-12)
        found = KMeans(k, n_init=n_init, max_iter=max_iter, random_state=seed).fit(units)[0]
        smooth = neighbour_vote(found, section.positions[used], n_neighbors)
        raw, voted = (agreement(known[scored].astype(str), part[scored]) for part in (found, smooth))
        rows.append(
            {
                "library": section.name,
                "n_spots": len(section),
                "n_scored": int(scored.sum()),
                "n_domains": k,
                "n_truth": n_truth,
                **{name: raw[name] for name in ("ARI", "NMI")},
                **{f"{name}_smoothed": voted[name] for name in ("ARI", "NMI")},
            }
        )
    if not rows:
        found_text = f"none with both obs[{truth!r}] and obsm[{use_rep!r}]"
        raise ValueError(message("Expected labelled spots with an embedding", found=found_text))
    result = pd.DataFrame(rows)
    return pd.concat([result, pd.DataFrame([{"library": MEAN, **result.mean(numeric_only=True)}])], ignore_index=True)
