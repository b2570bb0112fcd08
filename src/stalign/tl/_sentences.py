"""The genes of each spot that stand out, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from stalign._settings import logger
from stalign.core.genes import clean
from stalign.core.sentences import DocumentFrequencies
from stalign.data import CountKeys, Vocabulary, gene_ids, open_sections, table_of
from stalign.data.sentences import level_counts, section_sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import Section
    from stalign.models import Checkpoint

LENGTH = 250  # genes in a sentence (HiBio-ST)


def sentences(
    data: AnnData | SpatialData,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    *,
    length: int | None = None,
    mode: str | None = None,
    min_count: float | None = None,
    level: str | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    orthologs: Mapping[str, str] | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """List the genes of each spot that stand out from a corpus, the one that does most first (HiBio-ST, eq. 1 to 4).

    Genes are ranked by log1p of their count times their inverse document frequency, ln((1 + spots) / (1 + spots with
    the gene)); of equal ones the rarer, then the one whose symbol comes first. A gene that every spot has is never
    listed.

    Parameters
    ----------
    data
        One or more sections with raw counts. It is not changed.
    weights
        Weights of HiBio-ST: a name, the path of a folder, or a checkpoint. Their vocabulary, document frequencies and
        defaults are used. None takes genes and document frequencies from `data`, so that lists depend on what else it
        holds; the log says so.
    length
        Genes in a list, fewer where a spot has fewer; None for that of the weights, or 250.
    mode
        `tfidf`, `top` (largest counts) or `hvg` (the genes that vary most over the section, in the order of the spot's
        counts); None for that of the weights, or `tfidf`.
    min_count
        Smallest count that a gene needs; None for that of the weights, or 1.
    level
        Counts of the `spot`, or the mean over its `niche`; None for that of the weights, or `spot`.
    layer
        Layer of the raw counts; None for X.
    gene_key
        Column of var with gene symbols; None for the names of var.
    orthologs
        Human symbol of each gene of another species, for weights. Counts of genes with one symbol are summed.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    A row per spot: sentence, the symbols separated by spaces, and n_genes, their number; "" and 0 for a spot without
    counts. In `attrs`: idf (name of the weights, or `"data"`), length, mode, min_count and level.

    Raises
    ------
    KeyError
        If a layer or column does not exist.
    ValueError
        If the weights are not of HiBio-ST, counts are negative, no gene is known to the weights, or mode or level is
        unknown.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> found = stalign.tl.sentences(adata, length=5)
    >>> len(found["sentence"].iloc[0].split())
    5
    """
    asked = {"length": length, "mode": mode, "min_count": min_count, "level": level}
    read = read_sentences(
        data, weights, asked, CountKeys(layer, None, gene_key, orthologs), library_key=library_key, table_key=table_key
    )
    symbols = np.array(read.vocabulary.symbols)
    texts = [" ".join(symbols[row[row >= 0]]) for row in read.genes]
    table = table_of(data, table_key)
    found = pd.DataFrame({"sentence": texts, "n_genes": (read.genes >= 0).sum(axis=1)}, index=table.obs_names)
    found.attrs = read.options
    return found


class Read(NamedTuple):
    """Sentences of all spots of a table, (n, K) positions in a vocabulary, with what they were made by."""

    genes: NDArray[np.int32]
    vocabulary: Vocabulary
    options: dict[str, str | float]


def read_sentences(
    data: AnnData | SpatialData,
    weights: str | os.PathLike[str] | Checkpoint | None,
    asked: Mapping[str, str | float | None],
    keys: CountKeys,
    *,
    library_key: str | None,
    table_key: str | None,
) -> Read:
    """Make the sentences of all spots of a table.

    Parameters
    ----------
    data, weights
        See `sentences`.
    asked
        `length`, `mode`, `min_count` and `level`, or None for the default.
    keys
        Where its counts are.
    library_key, table_key
        See `sentences`.
    """
    from stalign.models.weights import load_weights, of_kind

    options: dict[str, str | float] = {"length": LENGTH, "mode": "tfidf", "min_count": 1, "level": "spot"}
    checkpoint = None if weights is None else of_kind(load_weights(weights), "hibio")
    if checkpoint is not None:
        options |= {name: getattr(checkpoint.config.sentence, name) for name in options}
    options |= {name: value for name, value in asked.items() if value is not None}
    table = table_of(data, table_key)
    sections = open_sections(data, table_key=table_key, library_key=library_key, image=False)
    if checkpoint is None:
        vocabulary = Vocabulary(tuple(dict.fromkeys(name for name in clean(gene_ids(table, keys.gene_key)[0]) if name)))
        idf = _own_frequencies(sections, vocabulary, keys)
    else:
        vocabulary = Vocabulary(checkpoint.vocabulary, checkpoint.ensembl)
        idf = checkpoint.network.idf.detach().cpu().float().numpy()
    genes = np.full((table.n_obs, int(options["length"])), -1, dtype=np.int32)
    for section in sections:
        genes[section.rows] = section_sentences(section, vocabulary, keys, idf, **options)  # type: ignore[arg-type]
    empty = int((genes < 0).all(axis=1).sum())
    logger.info("Made sentences of %d spots%s.", len(genes), f"; {empty} have no genes" if empty else "")
    return Read(genes, vocabulary, {"idf": "data" if checkpoint is None else checkpoint.config.name, **options})


def _own_frequencies(sections: Sequence[Section], vocabulary: Vocabulary, keys: CountKeys) -> NDArray[np.float32]:
    parts = [DocumentFrequencies.of(level_counts(section, vocabulary, keys, "spot")) for section in sections]
    total = parts[0]
    for part in parts[1:]:
        total += part
    logger.warning(
        "No weights were given: document frequencies are those of these %d spots, so the sentence of a spot depends on "
        "them all, and they are no input for weights.",
        total.n_spots,
    )
    return total.idf()
