"""Embed spots and niches with trained weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from stalign._constants import VISIUM_SPOT_UM, Keys
from stalign._settings import logger, seed_of
from stalign._several import each
from stalign._threads import few_threads
from stalign._validate import message, positive, warn, whole

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.models.checkpoint import Checkpoint
    from stalign.models.config import InputSpec


@partial(few_threads, sklearn=False)  # whose import would take a second
@each
def embed(
    data: AnnData | SpatialData,
    weights: str | Path | Checkpoint = "stalign-mini",
    *,
    image: bool = True,
    genes: bool = True,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    aliases: Mapping[str, str] | str | Path | None = None,
    orthologs: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_diameter: float | None = None,
    spot_window: float | None = None,
    niche_window: float | None = None,
    niche_sigma: float | None = None,
    image_step: float | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    batch_size: int = 256,
    device: str | None = None,
    precision: str = "fp32",
    random_state: int | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Embed each spot, with its niche, from its image and its counts.

    Parameters
    ----------
    data
        One or more sections, with raw counts, coordinates and an H&E image, in one object or a list of several. A
        section without an image is embedded from its genes, a section without counts from its image.
    weights
        Name of packaged weights, folder of a checkpoint, `hf://organisation/name`, or weights that were loaded or
        fine-tuned.
    image, genes
        Whether to use the image and the counts.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for a table that holds only some of the genes.
    gene_key
        var column of gene symbols or Ensembl ids; None for the index of var.
    aliases
        Other names of genes, each with the symbol or Ensembl id that it stands for, or the file of such a table (TSV or
        CSV), such as HGNC's (`datasets.gene_aliases`). They go before those that the package knows (SLC9A3R1 is NHERF1,
        SEPT7 is SEPTIN7, MARCH1 is MARCHF1, in either direction).
    orthologs
        Human symbol of each gene of another species, as `datasets.orthologs` reads them. Without it, genes match
        without regard to case.
    features
        For weights with branches that take features of a frozen encoder: the obsm key of each branch's features, as in
        ``{"niche_image": "X_uni_niche", "spot_gene": "X_scgpt_spot"}``, as `tl.encode` writes them.
    mpp
        µm per px of the full-resolution image, one for all sections or one per section; None takes what is stated, or
        derives it from the pitch of the spots.
    spot_diameter
        Diameter of a spot, or of a cell, in µm; None takes that of the technology.
    spot_window, niche_window
        Side of a square window of the image around each spot, and for each niche, in µm. None takes what was given to
        `pp.patches`; else, for bins and cells smaller than the spots that the weights were trained on, the sizes that
        they saw (55 and 200 µm for `stalign-mini`); else the spot's diameter, and what the niche's spots cover.
    niche_sigma
        Standard deviation in µm of the Gaussian by which the spots of a niche count in its expression, for weights that
        have one. None takes theirs (for `stalign-mini` 80, and 40 around bins and cells).
    image_step
        Distance in µm between the places of which the image of niches is encoded. Between them, what the image encoder
        made of the four around a spot is interpolated; it makes bins much smaller than the step much faster, and is
        not exact. It needs niche windows of one size, as bins and cells have them. None encodes the image of each spot.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object; one image key
        for all sections or one per section.
    batch_size
        Spots in memory at once. It does not change the result.
    device
        Torch device; None for `settings.device`, or CUDA where there is one and the CPU elsewhere.
    precision
        `fp32`, or `bf16` for encoders of images in bfloat16: twice as fast on a CPU with AVX512-BF16, slower where it
        is emulated, of which the log warns. What is embedded from counts alone does not change, image embeddings agree
        to a cosine of about 0.999.
    random_state
        Seed of the first vectors of the gene basis, and of the subsample that it is fitted to in a section of more than
        20,000 spots; None for `settings.seed`.
    copy
        Return a changed copy instead of writing in place.

    Returns
    -------
    None, or the changed copy, or a list of copies.

    Reads
    -----
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image
    - `uns["spatial"]`: image and scale factors of each section
    - `uns["stalign"]["patches"]`: `mpp`, `spot_diameter`, `spot_window` and `niche_window` as they were given to
      `pp.patches`, while the windows still lie where the spots are
    - `obsm[features[...]]`, (n_obs, d) float: features of frozen encoders

    Writes
    ------
    - `obsm["X_stalign"]`, (n_obs, width) float32: the niche's expression, turned into the space of the weights' genes
      with all distances kept, for domains and annotation; without counts, or with weights that read expression gene by
      gene or as features, the fused embedding
    - `obsm["X_stalign_fused"]`, (n_obs, width) float32: fused embedding of the niche, where there are image and counts
    - `obsm["X_stalign_image"]`, (n_obs, width) float32: embedding of the niche's image, where there is one
    - `obsm["X_stalign_gene"]`, (n_obs, width) float32: embedding of the niche's genes, where there are counts; what an
      earlier call wrote for a modality that is now left out is removed
    - `obs["stalign_valid"]`, (n_obs,) bool: whether the spot could be embedded; rows of others are NaN
    - `uns["stalign"]["embed"]`: params, with weights, their sha256, version and seed; sections, a DataFrame with the
      modality and gene coverage of each section; `missing_genes`, those of the weights that the table lacks, and
      `unknown_genes`, those of the table that the weights do not know
    - niches as the weights know them and windows, with their records, as `pp.niches` and `pp.patches` write them; where
      others are there, the log says that they are replaced

    Raises
    ------
    KeyError
        If a layer, column, table, image or the features do not exist.
    ValueError
        If counts are negative, no gene is known, coordinates lie outside the image, the weights are unknown, damaged or
        need features that are not given, the device is not there, the precision is unknown, or a section has neither an
        image nor counts.
    FileNotFoundError
        If the weights' folder, or the file of `aliases`, does not exist.
    TypeError
        If `data` is neither AnnData nor SpatialData, or `batch_size` or `random_state` is not a whole number.

    Warns
    -----
    UserWarning
        If spots could not be embedded or are smaller than those that the weights were trained on, counts are not whole
        numbers, few genes are known, or names of genes are dates.

    Notes
    -----
    Everything a section is compared with is its own: colours are standardised by the section's mean and spread, and
    genes are taken as deviations from the section's mean. So sections can be embedded together or one by one. An image
    coarser than the weights can use (8 µm per px for `stalign-mini`) is left out, which a logged warning says.

    The niche's window is that of the paper, a spot and its nearest neighbours; around bins and cells it is a square.
    Its expression is what the weights were trained on: `stalign-mini` takes a mean over the spots around, weighed by a
    Gaussian of 80 µm, which on arrays of 100 µm is the ring around a spot. Bins and cells smaller than the spots that
    the weights were trained on have more around them, so the Gaussian is one of 40 µm there; and their means are scaled
    to one sum over the genes, as in them the log of normalised counts grows with the counts.

    Memory grows with the number of spots by their counts and by what is written, and not with their square. An image of
    up to 2 GB is kept while its section is embedded; of a larger dask or zarr array, the tiles that were read last are.

    Where a `dask.distributed.Client` is open, batches are embedded by its workers, which read a dask image themselves
    and get any other with the weights. The workers need stalign, access to the image's store and a device of the same
    kind; the embeddings are those of this process.

    The arguments are many because counts, image, scale and section can each lie elsewhere in a container; they have the
    same names in all calls, and all have defaults.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.tl.embed(adata)
    >>> adata.obsm["X_stalign"].shape[0] == adata.n_obs
    True
    """
    from stalign.data import (
        CountKeys,
        Vocabulary,
        aliases_of,
        check_writable,
        log_changes,
        merged,
        niche_slots,
        open_sections,
        result_record,
        section_table,
        table_of,
        warn_small_spots,
        window_slots,
        write,
    )  # fmt: skip
    from stalign.data.spots import niche_for, read_section
    from stalign.encoders.runtime import check_precision, pick_device
    from stalign.models.weights import load_weights, of_kind
    from stalign.tl._embedding import Embedding
    from stalign.tl._modality import check_features, described, facts_of, features_by_branch, gene_lists

    if not image and not genes:
        raise ValueError(message("Expected at least one of `image` and `genes` to be True", found="both False"))
    whole(batch_size, name="batch_size")
    on = pick_device(device)
    check_precision(precision, on.type)
    seed = seed_of(random_state)
    table = table_of(data, table_key)
    if table.n_obs == 0:
        raise ValueError(message("Expected at least one spot", found="an empty table"))
    check_writable(table, Keys.UNS, Keys.UNS_NICHES)
    read_weights = partial(load_weights, weights, device=on)
    checkpoint = of_kind(read_weights(images=bool(features) or (image and _holds_images(data, table))), "st-align")
    spec = _with_sigma(checkpoint.config.input, niche_sigma)
    check_features(checkpoint.config, features or {}, image=image, genes=genes)
    arrays = features_by_branch(table, features or {})
    vocabulary = Vocabulary(checkpoint.vocabulary, checkpoint.ensembl)
    keys = CountKeys(layer, total_counts, gene_key, orthologs, aliases_of(aliases))
    sections = open_sections(
        data,
        table_key=table_key,
        library_key=library_key,
        image=image,
        image_key=image_key,
        mpp=mpp,
        spot_diameter=spot_diameter,
        spot_window=spot_window,
        niche_window=niche_window,
        want_mpp=VISIUM_SPOT_UM / spec.spot_px,
    )
    warn_small_spots(sections, checkpoint.config.name)
    niche = niche_for(spec)
    slots = niche_slots(sections, niche, library_key)
    if any(section.image is not None for section in sections):
        slots = merged(slots, window_slots(sections, niche, spot_um=spec.spot_um, niche_um=spec.niche_um))
    log_changes(table, slots)
    embedding = Embedding(checkpoint, table.n_obs, batch_size, read_weights, precision)
    facts = []
    lists: dict[str, Any] = {}
    while sections:  # one by one, so that one image is in memory at a time
        section = sections.pop(0)
        own = {branch: values[section.rows] for branch, values in arrays.items()}
        reader = read_section(
            section,
            spec,
            vocabulary,
            keys=keys,
            image=image,
            genes=genes,
            features=own,
            image_step=image_step,
            random_state=seed,
        ).without_counts()
        rows = section.rows
        del section  # and its counts
        embedding.add(reader, rows)
        facts.append(facts_of(reader))
        lists = lists or gene_lists(reader)
    params = {
        "weights": checkpoint.config.name,
        "sha256": checkpoint.sha256,
        "version": version("stalign"),
        "precision": precision,
        "random_state": seed,
        "image_step": None if image_step is None else float(image_step),
        "niche_sigma": None if niche_sigma is None else float(niche_sigma),
    }
    found: dict[str, dict[str, Any]] = {
        "obsm": embedding.arrays(),
        "obs": {Keys.VALID: embedding.valid},
        "uns": {Keys.UNS: {"embed": result_record(params, sections=section_table(facts), **lists)}},
    }
    missing = int((~embedding.valid).sum())
    if missing:
        warn(
            f"{missing} of {table.n_obs} spots could not be embedded (no position, or neither image nor counts); "
            f"their rows are NaN and obs[{Keys.VALID!r}] is False."
        )
    changed = write(data, merged(slots, found), copy=copy, table_key=table_key)
    written = table_of(data if changed is None else changed, table_key)
    for key in (Keys.EMBED_FUSED, Keys.EMBED_IMAGE, Keys.EMBED_GENE):
        if key not in found["obsm"]:
            written.obsm.pop(key, None)
    logger.info("Embedded %d spots (%s): added obsm[%r].", table.n_obs - missing, described(facts), Keys.EMBED)
    return changed


def _holds_images(data: AnnData | SpatialData, table: AnnData) -> bool:
    """Tell at a glance whether there is an image, so that weights are read once; the sections decide."""
    entries = table.uns.get(Keys.UNS_SPATIAL)
    entries = entries.values() if isinstance(entries, Mapping) else ()
    held = (entry.get("images") for entry in entries if isinstance(entry, Mapping))
    return bool(getattr(data, "images", None)) or any(isinstance(images, Mapping) and len(images) for images in held)


def _with_sigma(spec: InputSpec, niche_sigma: float | None) -> InputSpec:
    """Put the user's Gaussian in place of that of the weights, in µm."""
    if niche_sigma is None:
        return spec
    if not spec.niche_sigma > 0:
        expected = "Expected no `niche_sigma` for weights that take the plain mean over a niche"
        raise ValueError(message(expected, found=repr(niche_sigma), hint="Leave it out"))
    sigma = positive(niche_sigma, name="niche_sigma", unit="µm")
    return replace(spec, niche_sigma=sigma, small_sigma=sigma)
