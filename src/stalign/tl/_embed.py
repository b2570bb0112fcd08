"""Embed spots and niches with trained weights."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stalign._constants import VISIUM_SPOT_UM, Keys
from stalign._settings import logger, progress, settings
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data.sections import SectionView
    from stalign.data.spots import SpotReader
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
    mpp: float | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | None = None,
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
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    batch_size
        Spots in memory at once. It does not change the result.
    device
        Torch device; None for `settings.device`.
    random_state
        Seed of the subsample that the gene basis of a section of more than 20,000 spots is fitted to; None for
        `settings.seed`.
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
    - `obsp["niche_connectivities"]`, and `obsm["spot_window"]`, `obsm["niche_window"]`: made where absent

    Writes
    ------
    - `obsm["X_stalign"]`, (n_obs, width) float32: fused embedding of the niche
    - `obsm["X_stalign_image"]`, (n_obs, width) float32: embedding of the niche's image, where there is one
    - `obsm["X_stalign_gene"]`, (n_obs, width) float32: embedding of the niche's genes, where there are counts
    - `obs["stalign_valid"]`, (n_obs,) bool: whether the spot could be embedded; rows of others are NaN
    - `uns["stalign"]["embed"]`: weights, their sha256, versions, seed, and per section the modality and gene coverage

    Raises
    ------
    KeyError
        If a layer, column, table or image does not exist.
    ValueError
        If counts are negative, no gene is known, coordinates lie outside the image, the weights do not fit, or a
        section has neither an image nor counts.
    FileNotFoundError
        If the weights' folder does not exist.

    Notes
    -----
    Everything a section is compared with is its own: colours are standardised by the section's mean and spread, and
    genes are taken as deviations from the section's mean.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.tl.embed(adata)
    >>> adata.obsm["X_stalign"].shape[0] == adata.n_obs
    True
    """
    from stalign.data.expression import Vocabulary
    from stalign.data.sections import sections
    from stalign.data.slots import write
    from stalign.data.spots import read_section
    from stalign.data.table import table_of
    from stalign.models.weights import load_weights
    from stalign.pp._niches import niche_slots
    from stalign.pp._patches import window_slots

    if not image and not genes:
        raise ValueError(message("Expected at least one of `image` and `genes` to be True", found="both False"))
    if batch_size < 1:
        raise ValueError(message("Expected `batch_size` to be at least 1", found=batch_size))
    device = device or settings.device or _default_device()
    checkpoint = load_weights(weights, device=device)
    spec = checkpoint.config.input
    vocabulary = Vocabulary(checkpoint.vocabulary, checkpoint.ensembl)
    seed = settings.seed if random_state is None else random_state
    common: dict[str, Any] = {"library_key": library_key, "table_key": table_key}
    table = table_of(data, table_key)
    want_mpp = VISIUM_SPOT_UM / spec.spot_px
    views = sections(data, image_key=image_key, mpp=mpp, image=image, want_mpp=want_mpp, **common)
    slots: dict[str, dict[str, Any]] = {"obs": {}, "obsm": {}, "obsp": {}, "uns": {}}
    graph = table.obsp.get(Keys.NICHE_GRAPH)
    if graph is None or not _niches_hold(graph, views):
        graph = niche_slots(
            table,
            views,
            spec.n_neighbors,
            include_self=spec.include_self,
            library_key=library_key,
            into=slots,
        )
    windows = None
    if any(view.image is not None for view in views):
        if Keys.NICHE_GRAPH in slots["obsp"] or not _windows_hold(table, views):
            windows = window_slots(table, views, graph, into=slots)
        else:
            windows = (table.obsm[Keys.SPOT_WINDOW], table.obsm[Keys.NICHE_WINDOW])
    readers = [
        read_section(
            table,
            view,
            spec,
            vocabulary,
            graph=graph,
            windows=windows,
            image=image,
            genes=genes,
            layer=layer,
            total_counts=total_counts,
            gene_key=gene_key,
            orthologs=orthologs,
            features=features,
            random_state=seed,
        )
        for view in views
    ]
    outputs, valid = _run(checkpoint, readers, table.n_obs, batch_size=batch_size, device=device)
    slots["obsm"] |= outputs
    slots["obs"][Keys.VALID] = valid
    slots["uns"][Keys.UNS] = {**slots["uns"].get(Keys.UNS, {}), "embed": _record(checkpoint, readers, seed)}
    missing = int((~valid).sum())
    if missing:
        warnings.warn(
            f"{missing} of {table.n_obs} spots could not be embedded (no position or no counts); "
            f"their rows are NaN and obs[{Keys.VALID!r}] is False.",
            UserWarning,
            stacklevel=2,
        )
    logger.info("Embedded %d spots: added obsm[%r].", int(valid.sum()), Keys.EMBED)
    return write(data, slots, copy=copy, table_key=table_key)


def _niches_hold(graph: sp.csr_matrix, views: list[SectionView]) -> bool:
    """Whether a graph that is there still describes whole niches within these sections."""
    graph = sp.csr_matrix(graph)
    library = np.full(graph.shape[0], -1)
    whole = np.asarray(graph.sum(axis=1)).ravel()
    for index, view in enumerate(views):
        library[view.rows] = index
        if not np.allclose(whole[view.rows][view.valid], 1, atol=1e-3):
            logger.warning("The niches in obsp[%r] are not whole (were spots removed?): made again.", Keys.NICHE_GRAPH)
            return False
    edges = graph.tocoo()
    if (library[edges.row] != library[edges.col]).any():
        logger.warning("The niches in obsp[%r] cross sections: made again.", Keys.NICHE_GRAPH)
        return False
    return True


def _windows_hold(table: AnnData, views: list[SectionView]) -> bool:
    """Whether windows that are there were made for the images of these sections."""
    if Keys.SPOT_WINDOW not in table.obsm or Keys.NICHE_WINDOW not in table.obsm:
        return False
    record = table.uns.get(Keys.UNS, {}).get("patches", {}).get("sections", {})
    for view in views:
        if view.image is None:
            continue
        made = record.get(view.library, {})
        if made.get("image_key") != view.image.key or not np.isclose(made.get("scale", 0.0), view.image.scale):
            return False
    return True


def _default_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _run(
    checkpoint: Checkpoint, readers: list[SpotReader], n_obs: int, *, batch_size: int, device: str
) -> tuple[dict[str, NDArray[np.float32]], NDArray[np.bool_]]:
    import torch

    network = checkpoint.network.eval()
    outputs: dict[str, NDArray[np.float32]] = {}
    valid = np.zeros(n_obs, dtype=bool)
    work = [
        (reader, rows[start : start + batch_size])
        for reader in readers
        for rows in [np.flatnonzero(reader.valid)]
        for start in range(0, len(rows), batch_size)
    ]
    with torch.inference_mode():
        for reader, rows in progress(work, desc="Embedding"):
            batch = reader.batch(rows).to(device)
            level = network.embed(batch)
            where = reader.section.rows[rows]
            valid[where] = True
            for key, values in (
                (Keys.EMBED, level.fused),
                (Keys.EMBED_IMAGE, level.image),
                (Keys.EMBED_GENE, level.gene),
            ):
                if values is None:
                    continue
                if key not in outputs:
                    outputs[key] = np.full((n_obs, values.shape[1]), np.nan, np.float32)
                outputs[key][where] = values.float().cpu().numpy()
            if batch.gene_valid is not None and Keys.EMBED_GENE in outputs:
                outputs[Keys.EMBED_GENE][where[~batch.gene_valid.cpu().numpy()]] = np.nan
    return outputs, valid


def _record(checkpoint: Checkpoint, readers: list[SpotReader], seed: int) -> dict[str, Any]:
    return {
        "weights": checkpoint.config.name,
        "sha256": checkpoint.sha256,
        "version": version("stalign"),
        "random_state": seed,
        "sections": {reader.section.library: _section_record(reader) for reader in readers},
    }


def _section_record(reader: SpotReader) -> dict[str, Any]:
    record: dict[str, Any] = {"modality": reader.modality, "n_valid": int(reader.valid.sum())}
    if reader.section.image is not None:
        record["image_key"] = reader.section.image.key
        record["image_mpp"] = float(reader.section.image.mpp)
    if reader.expression is not None:
        record["gene_coverage"] = float(reader.expression.coverage)
        record["n_genes"] = int(reader.expression.n_matched)
    return record
