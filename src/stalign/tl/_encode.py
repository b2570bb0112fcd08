"""Features of frozen encoders for spots and niches."""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import logger
from stalign._several import each
from stalign._threads import few_threads
from stalign._validate import message, one_of, positive, warn, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.encoders import Card

LEVELS = ("spot", "niche", "native")


@few_threads
@each
def encode(
    data: AnnData | SpatialData,
    encoder: str | Card,
    *,
    level: str | float | None = None,
    weights: str | Path | None = None,
    modality: str | None = None,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    aliases: Mapping[str, str] | str | Path | None = None,
    orthologs: Mapping[str, str] | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "fp32",
    cache: bool = True,
    key_added: str | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_diameter: float | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Encode spots or niches with a registered encoder.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table, or a list of several.
    encoder
        Name of an encoder, see `stalign.encoders.list()`, or its card with other options, such as
        `stalign.encoders.get("virchow2", pool="cls")`; or `hibio-mini`, or `hibio` for weights of HiBio-ST of your own.
    level
        `spot`: the spot's own patch, one spot diameter wide, or its own counts; `niche`: the patch that covers the spot
        and its neighbours, or the mean of their counts; `native`: a patch as wide as those that the encoder was
        trained on, around the spot, for image encoders; or a number, for a patch that many µm wide around the spot.
        None is `spot`, and for HiBio-ST what its weights were trained on.
    weights
        File or folder with the encoder's weights; None for the published ones, from the hub's cache or the hub;
        `random` for random ones, which are good for checks of shape and speed only.
    modality
        Of HiBio-ST, whose images and gene sentences share one space: `image` or `gene`; None for images.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for a table that holds only some of the genes.
    gene_key
        var column of gene symbols or Ensembl ids; None for the index of var.
    aliases
        Other names of genes, such as old symbols or Ensembl ids, each with the symbol that it stands for, or the file
        of such a table. They go before those that the package knows, as in `tl.embed`.
    orthologs
        Human symbol of each gene of another species. Without it, genes match without regard to case.
    batch_size
        Patches in the network at once.
    device
        Torch device; None for the one in the settings, CUDA where there is one, else the CPU.
    precision
        `fp32`, or `bf16` for matrix products in bfloat16.
    cache
        Whether to keep features in `settings.cache_dir` and to take them from there. They are found by the content of
        patches or counts, so that a run that was interrupted goes on where it stopped.
    key_added
        Key in obsm; by default `X_<encoder>_<level>`, where a number is followed by `um`, as in `X_uni_112um`.
    mpp
        µm per px of the coordinates, one for all sections or one per section; by default as stated or derived.
    spot_diameter
        Diameter of a spot in µm; by default that of the technology.
    library_key
        Column of obs that tells the sections of an AnnData apart.
    table_key, image_key
        Table and image of a SpatialData, or the image of an AnnData.
    copy
        Whether to return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the changed copy, or a list of copies.

    Reads
    -----
    - `obsm["spatial"]`, (n_obs, 2) float, and `uns["spatial"]` or the images of a SpatialData, by image encoders
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts, by gene encoders
    - `uns["niches"]["params"]`, at level `niche`: what makes a niche; 3 neighbours where it is absent

    Writes
    ------
    - `obsm["X_<encoder>_<level>"]`, (n_obs, dim) float32: features; NaN for spots without position, image or counts
    - `uns["X_<encoder>_<level>"]`: params, with encoder, options, sha256 of the weights and precision; sections, a
      DataFrame with image, scale and window of each section; for gene encoders, how many genes matched

    Raises
    ------
    KeyError
        If encoder, layer, column, image or table do not exist.
    ValueError
        If the level is unknown or not for this kind of encoder, no section has an image, counts are negative, no gene
        is known, or the weights do not fit.
    FileNotFoundError, PermissionError, ConnectionError
        If the weights can't be had; the message says how to get them.
    TypeError
        If `data` is neither AnnData nor SpatialData, or `batch_size` is not a whole number.

    Warns
    -----
    UserWarning
        If spots could not be encoded, or are smaller than those that weights of HiBio-ST were trained on.

    Notes
    -----
    The arguments are many because counts, image, scale and section can each lie elsewhere in a container; they have the
    same names in all calls, and all have defaults.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.tl.encode(adata, "colour", level="niche")
    >>> adata.obsm["X_colour_niche"].shape == (adata.n_obs, 27)
    True
    """
    from stalign.data import (
        CountKeys,
        aliases_of,
        check_key,
        check_writable,
        open_sections,
        result_record,
        table_of,
        warn_small_spots,
        write,
    )
    from stalign.encoders import get
    from stalign.tl._encode_genes import encode_genes
    from stalign.tl._encode_images import encode_images, wanted_mpp
    from stalign.tl._encoding import Encoding

    towers = None
    if isinstance(encoder, str) and encoder.startswith("hibio"):
        from stalign.encoders.hibio import hibio_card  # brings torch, which other encoders do without

        towers = hibio_card(encoder, weights, modality)
    if towers is None and modality is not None:
        found = f"{modality!r} for {encoder if isinstance(encoder, str) else encoder.name!r}"
        raise ValueError(message("Expected `modality` for weights of HiBio-ST only", found=found, hint="Leave it out"))
    card, weights, trained = towers or (get(encoder), weights, "spot")
    level = trained if level is None else level
    if isinstance(level, str):
        one_of(level, LEVELS, name="level", hint="Or pass the width of the patches in µm")
    else:
        positive(level, name="level", unit="µm")
    if level not in {"spot", "niche"} and card.modality == "gene":
        raise ValueError(message("Expected `level` to be `spot` or `niche` for a gene encoder", found=repr(level)))
    whole(batch_size, name="batch_size")
    width = level if isinstance(level, str) else f"{level:g}um"
    key = f"X_{card.name}_{width}".replace("/", "_") if key_added is None else key_added
    check_key(key, name="key_added")
    table = table_of(data, table_key)
    check_writable(table, key)
    sections = open_sections(
        data,
        table_key=table_key,
        library_key=library_key,
        image=card.modality == "image",
        image_key=image_key,
        mpp=mpp,
        spot_diameter=spot_diameter,
        want_mpp=partial(wanted_mpp, card, level),
    )
    if towers is not None:
        warn_small_spots(sections, card.name)
    encoding = Encoding.start(card, weights, device=device, precision=precision, cache=cache, batch_size=batch_size)
    if card.modality == "image":
        features, noted = encode_images(encoding, sections, level=level)
    else:
        keys = CountKeys(layer, total_counts, gene_key, orthologs, aliases_of(aliases))
        features, noted = encode_genes(encoding, sections, keys, level=str(level))
    missing = int((~np.isfinite(features).all(axis=1)).sum())
    if missing:
        warn(f"{missing} of {table.n_obs} spots could not be encoded by {card.name!r}; their rows are NaN.")
    params = {"level": str(level), "version": version("stalign"), **encoding.record()}
    slots: dict[str, dict[str, Any]] = {"obsm": {key: features}, "uns": {key: result_record(params, **noted)}}
    changed = write(data, slots, copy=copy, table_key=table_key)
    logger.info("Encoded %d spots with %s: added obsm[%r].", table.n_obs - missing, card.name, key)
    return changed
