"""Overlaps of spots' gene sentences with gene sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign.core.pathways import Pathways
from stalign.data import CountKeys, check_writable, result_record, table_of, write
from stalign.data.gene_sets import read_gmt
from stalign.tl._sentences import read_sentences

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.models import Checkpoint


def pathways(
    data: AnnData | SpatialData,
    gmt: str | os.PathLike[str] | Mapping[str, Iterable[str]],
    *,
    weights: str | os.PathLike[str] | Checkpoint | None = None,
    overlap: float = 0.1,
    largest: int | None = None,
    min_genes: int = 10,
    max_genes: int = 500,
    length: int | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Tell how far the genes that stand out in each spot overlap with gene sets (HiBio-ST, eq. 5).

    An overlap is the number of genes that the sentence of a spot shares with a set, over the size of the smaller of
    both.

    Parameters
    ----------
    data
        One or more sections with raw counts.
    gmt
        A GMT file, as from MSigDB, Reactome or Enrichr, gzipped or not; or gene symbols by name of the set.
    weights
        Weights of HiBio-ST, whose vocabulary and document frequencies make the sentences; None for those of `data`.
    overlap
        Threshold: overlaps up to it, itself included, become 0.
    largest
        Keep this many of the largest overlaps of each spot; None keeps all.
    min_genes, max_genes
        Sets with fewer or more genes of the vocabulary are left out.
    length
        Genes in a sentence; None for that of the weights, or 250.
    layer
        Layer of the raw counts; None for X.
    gene_key
        Column of var with gene symbols; None for the names of var.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.
    key_added
        The key of obsm and uns; None for `pathway_overlap`.
    copy
        Whether to return a changed copy and leave `data` alone.

    Returns
    -------
    None, or the changed copy where `copy` is True.

    Reads
    -----
    - `X` or `layers[layer]`: raw counts

    Writes
    ------
    - `obsm["pathway_overlap"]`, (n_obs, sets) CSR float32
    - `uns["pathway_overlap"]`: `names` of the sets and `params`

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    KeyError
        If a layer or column does not exist.
    ValueError
        If the file holds no sets, or none of the sizes asked for in the genes of the data.

    Notes
    -----
    The arguments are many because sentences, sets and slots have some each.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> sets = {"first ten": adata.var_names[:10], "last ten": adata.var_names[-10:]}
    >>> stalign.tl.pathways(adata, sets, overlap=0.0)
    >>> adata.obsm["pathway_overlap"].shape, list(adata.uns["pathway_overlap"]["names"])
    ((247, 2), ['first ten', 'last ten'])
    """
    key = Keys.PATHWAYS if key_added is None else key_added
    check_writable(table_of(data, table_key), key)
    sets = {str(name): tuple(genes) for name, genes in gmt.items()} if isinstance(gmt, Mapping) else read_gmt(gmt)
    read = read_sentences(
        data,
        weights,
        {"length": length},
        CountKeys(layer, None, gene_key),
        library_key=library_key,
        table_key=table_key,
    )
    chosen = Pathways.of(sets, read.vocabulary.symbols, min_genes=min_genes, max_genes=max_genes)
    found = chosen.overlaps(read.genes, above=overlap, largest=largest).astype(np.float32)
    share = float((np.diff(found.indptr) > 0).mean())
    level = logger.warning if share < 0.5 else logger.info
    level(
        "%d of %d gene sets have %d to %d genes of these data; %.0f %% of the spots overlap with one above %g: "
        "added obsm[%r].",
        *(len(chosen), len(sets), min_genes, max_genes, 100 * share, overlap, key),
    )
    sizes = {"min_genes": min_genes, "max_genes": max_genes, "largest": largest}
    params = {**read.options, "overlap": overlap, **sizes}
    slots = {"obsm": {key: found}, "uns": {key: result_record(params, names=list(chosen.names))}}
    return write(data, slots, copy=copy, table_key=table_key)
