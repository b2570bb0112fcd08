"""Embed spots and niches with trained weights."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stalign._constants import VISIUM_SPOT_UM, Keys
from stalign._settings import logger, settings
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.models.checkpoint import Checkpoint


def embed(
    data: AnnData | SpatialData,
    weights: str | Path | Checkpoint = "stalign-mini",
    *,
    image: bool = True,
    genes: bool = True,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    orthologs: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    batch_size: int = 256,
    device: str | None = None,
    random_state: int | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Embed each spot, with its niche, from its image and its counts.

    Parameters
    ----------
    data
        One or more sections, with raw counts, coordinates and an H&E image. A section without an image is embedded
        from its genes, a section without counts from its image.
    weights
        Name of packaged weights, folder of a checkpoint, or weights that were loaded or fine-tuned.
    image, genes
        Whether to use the image and the counts.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for a table that holds only some of the genes.
    gene_key
        var column of gene symbols or Ensembl ids; None for the index of var.
    orthologs
        Human symbol of each gene of another species. Without it, genes match without regard to case.
    features
        For weights with branches that take features of a frozen encoder: the obsm key of each branch's features, as in
        ``{"niche_image": "X_uni_niche", "spot_gene": "X_scgpt_spot"}``, as `tl.encode` writes them.
    mpp
        µm per px of the full-resolution image, one for all sections or one per section; None takes what is stated, or
        derives it from the pitch of the spots.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object; one image key
        for all sections or one per section.
    batch_size
        Spots in memory at once. It does not change the result.
    device
        Torch device; None for `settings.device`, or CUDA where there is one and the CPU elsewhere.
    random_state
        Seed of the first vectors of the gene basis, and of the subsample that it is fitted to in a section of more than
        20,000 spots; None for `settings.seed`.
    copy
        Return a changed copy instead of writing in place.

    Returns
    -------
    None, or the changed copy.

    Reads
    -----
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image
    - `uns["spatial"]`: image and scale factors of each section
    - `obsp["niche_connectivities"]`, (n_obs, n_obs) CSR: made where absent, or where spots were removed since
    - `obsm["spot_window"]`, `obsm["niche_window"]`, (n_obs, 4) float: made where absent, or where image, positions,
      scale or niches changed since
    - `obsm[features[...]]`, (n_obs, d) float: features of frozen encoders

    Writes
    ------
    - `obsm["X_stalign"]`, (n_obs, width) float32: fused embedding of the niche
    - `obsm["X_stalign_image"]`, (n_obs, width) float32: embedding of the niche's image, where there is one
    - `obsm["X_stalign_gene"]`, (n_obs, width) float32: embedding of the niche's genes, where there are counts; what an
      earlier call wrote for a modality that is now left out is removed
    - `obs["stalign_valid"]`, (n_obs,) bool: whether the spot could be embedded; rows of others are NaN
    - `uns["stalign"]["embed"]`: weights, their sha256, versions, seed, and per section the modality and gene coverage
    - niches and windows, with their records, where they are made, as `pp.niches` and `pp.patches` do

    Raises
    ------
    KeyError
        If a layer, column, table, image or the features do not exist.
    ValueError
        If counts are negative, no gene is known, coordinates lie outside the image, the weights are unknown, damaged or
        need features that are not given, the device is not there, or a section has neither an image nor counts.
    FileNotFoundError
        If the weights' folder does not exist.
    TypeError
        If `data` is neither AnnData nor SpatialData.

    Warns
    -----
    UserWarning
        If spots could not be embedded, counts are not whole numbers, or few genes are known.

    Notes
    -----
    Everything a section is compared with is its own: colours are standardised by the section's mean and spread, and
    genes are taken as deviations from the section's mean. So sections can be embedded together or one by one. An image
    coarser than the weights can use (8 µm per px for `stalign-mini`) is left out, which a logged warning says.

    The niche's window is that of the paper, a spot and its nearest neighbours. Its expression is what the weights were
    trained on: `stalign-mini` takes a mean over the spots around, weighed by a Gaussian of 80 µm.

    Memory grows with the number of spots by their counts and by what is written, and not with their square. An image of
    up to 2 GB is kept while its section is embedded; of a larger dask or zarr array, the tiles that were read last are.

    Where a `dask.distributed.Client` is open, batches are embedded by its workers, which read a dask image themselves
    and get any other with the weights. The workers need stalign, access to the image's store and a device of the same
    kind; the embeddings are those of this process.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.tl.embed(adata)
    >>> adata.obsm["X_stalign"].shape[0] == adata.n_obs
    True
    """
    from stalign.data.counts import match_counts
    from stalign.data.expression import Vocabulary
    from stalign.data.sections import sections
    from stalign.data.slots import write
    from stalign.data.spots import read_section
    from stalign.data.table import has_counts, table_of
    from stalign.encoders.runtime import pick_device
    from stalign.models.weights import load_weights
    from stalign.pp._niches import niche_slots
    from stalign.pp._patches import window_slots
    from stalign.tl._embed_run import Embedding, check_features, niches_hold, record_of, windows_hold
    from stalign.tl._modality import described

    if not image and not genes:
        raise ValueError(message("Expected at least one of `image` and `genes` to be True", found="both False"))
    if batch_size < 1:
        raise ValueError(message("Expected `batch_size` to be at least 1", found=batch_size))
    table = table_of(data, table_key)
    if table.n_obs == 0:
        raise ValueError(message("Expected at least one spot", found="an empty table"))
    checkpoint = load_weights(weights, device=pick_device(device))
    spec = checkpoint.config.input
    check_features(checkpoint.config, features or {}, image=image, genes=genes)
    vocabulary = Vocabulary(checkpoint.vocabulary, checkpoint.ensembl)
    seed = settings.seed if random_state is None else random_state
    want_mpp = VISIUM_SPOT_UM / spec.spot_px
    views = sections(
        data,
        image_key=image_key,
        mpp=mpp,
        image=image,
        want_mpp=want_mpp,
        library_key=library_key,
        table_key=table_key,
    )
    read: dict[str, Any] = {"layer": layer, "total_counts": total_counts, "gene_key": gene_key, "orthologs": orthologs}
    counts = match_counts(table, vocabulary, **read) if genes and has_counts(table, layer) else None
    slots: dict[str, dict[str, Any]] = {"obs": {}, "obsm": {}, "obsp": {}, "uns": {}}
    graph = table.obsp.get(Keys.NICHE_GRAPH)
    if graph is None or not niches_hold(graph, views):
        graph = niche_slots(
            table, views, spec.n_neighbors, include_self=spec.include_self, library_key=library_key, into=slots
        )
    windows = None
    if any(view.image is not None for view in views):
        if Keys.NICHE_GRAPH in slots["obsp"] or not windows_hold(table, views, given_mpp=mpp is not None):
            windows = window_slots(table, views, graph, into=slots)
        else:
            windows = (table.obsm[Keys.SPOT_WINDOW], table.obsm[Keys.NICHE_WINDOW])
    embedding = Embedding(checkpoint, table.n_obs, batch_size)
    records = {}
    while views:  # one by one, so that one image is in memory at a time
        reader = read_section(
            table,
            views.pop(0),
            spec,
            vocabulary,
            graph=graph,
            windows=windows,
            counts=counts,
            image=image,
            genes=genes,
            layer=layer,
            features=features,
            random_state=seed,
        )
        embedding.add(reader)
        records[reader.section.library] = record_of(reader)
    slots["obsm"] |= embedding.arrays()
    slots["obs"][Keys.VALID] = embedding.valid
    record = {
        "weights": checkpoint.config.name,
        "sha256": checkpoint.sha256,
        "version": version("stalign"),
        "random_state": seed,
        "sections": records,
    }
    slots["uns"][Keys.UNS] = {**slots["uns"].get(Keys.UNS, {}), "embed": record}
    missing = int((~embedding.valid).sum())
    if missing:
        warnings.warn(
            f"{missing} of {table.n_obs} spots could not be embedded (no position, or neither image nor counts); "
            f"their rows are NaN and obs[{Keys.VALID!r}] is False.",
            UserWarning,
            stacklevel=2,
        )
    changed = write(data, slots, copy=copy, table_key=table_key)
    written = table_of(data if changed is None else changed, table_key)
    for key in (Keys.EMBED_IMAGE, Keys.EMBED_GENE):
        if key not in slots["obsm"]:
            written.obsm.pop(key, None)
    logger.info("Embedded %d spots (%s): added obsm[%r].", table.n_obs - missing, described(records), Keys.EMBED)
    return changed
