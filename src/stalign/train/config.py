"""Configuration of a training run: frozen dataclasses with their defaults."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from stalign._validate import message

_LEAST = {
    "data.min_spots": 1,
    "data.max_genes": 1,
    "data.workers": 0,
    "sampler.batch_size": 2,
    "sampler.sections_per_batch": 1,
    "sampler.spots_per_section": 0,
    "sampler.repeat_images": 1,
    "augment.stain": 0,
    "optim.lr_batch": 1,
    "optim.min_lr": 0,
    "optim.warmup_epochs": 0,
    "optim.eps": 0,
    "optim.weight_decay": 0,
    "optim.weight_decay_end": 0,
    "optim.anchor": 0,
    "optim.grad_clip": 0,
    "run.epochs": 0,
    "run.steps": 0,
    "run.num_nodes": 1,
    "run.keep": 1,
    "run.checkpoint_every": 1,
    "run.log_every": 1,
}


@dataclass(frozen=True)
class SectionSpec:
    """Where one table or slide folder is, and how it is read.

    Parameters
    ----------
    path
        An h5ad file, a SpatialData store (`.zarr`), a Space Ranger folder, or the root of an STimage-1K4M or HEST copy.
    format
        How the path is read; `auto` tells an h5ad file, a zarr store and a Space Ranger folder apart.
    slide
        Name of the slide in an STimage-1K4M or HEST copy.
    donor, study
        Who the slide is from, for `exclude` and `validation`.
    donor_key
        obs column with the donor of each spot, for tables of several donors.
    library_key
        obs column that tells the sections of one table apart; None for a single section.
    table_key, image_key
        Table and image of a SpatialData store, or image of an h5ad file, where there are several.
    include, exclude
        Patterns of section names to take and to leave out (`fnmatch`); an empty `include` takes all.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with the total count of each spot, for tables of selected genes.
    gene_key
        var column with the gene names; None for the index.
    orthologs
        Table of orthologs (TSV or CSV, gzipped or not) with columns of gene symbols named `mouse` or as
        `ortholog_columns` says; None for human sections.
    ortholog_columns
        Columns of the other species' symbol and of the human one; empty to take those whose names contain `mouse`
        and `human` and, where there are several, `symbol`.
    mpp
        µm per px of the coordinate frame, where the spot pitch does not tell it.
    image, genes
        Whether to use the image and the counts.
    features
        Frozen features given as arrays: the branch (`spot_image`, `niche_image`, `spot_gene`, `niche_gene`) and a
        `.npy` file, (n_obs, d), in the order of the table, or `obsm:KEY`.
    """

    path: str
    format: Literal["auto", "h5ad", "spatialdata", "visium", "stimage", "hest"] = "auto"
    slide: str | None = None
    donor: str | None = None
    study: str | None = None
    donor_key: str | None = None
    library_key: str | None = None
    table_key: str | None = None
    image_key: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    layer: str | None = None
    total_counts: str | None = None
    gene_key: str | None = None
    orthologs: str | None = None
    ortholog_columns: tuple[str, ...] = ()
    mpp: float | None = None
    image: bool = True
    genes: bool = True
    features: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """What is trained on.

    Parameters
    ----------
    root
        Folder that relative paths of `sections` start from; itself relative to the configuration file.
    sections
        The tables.
    manifest
        CSV written by `stalign.train.curate_stimage` or `curate_hest`, whose kept slides are added to `sections`.
    exclude
        Patterns of section, slide, file, donor or study names that no run may see.
    validation
        Patterns of section, slide, donor or study names that are left out of training and whose loss is logged. Each
        must fit something. No donor, and no section that holds the same counts, may be on both sides.
    min_spots
        Sections with fewer usable spots are dropped.
    max_genes
        Size of the vocabulary: the genes found in most sections, ties broken by detection and name.
    vocabulary
        File of further gene symbols (one a line, or the first column of a CSV or TSV) that the vocabulary must hold.
    encoders
        Frozen encoders of branches whose features are computed once per section and cached: the branch and a name of
        `stalign.encoders.list()`. Only for branches of kind `features`; features that are given go first.
    encoder_weights
        File or folder of the weights of an encoder, by its name, relative to `root`; without, the published ones.
    features
        `features` of sections that do not name their own. `{slide}` in a file name stands for the slide's name, as in
        `{ niche_image = "uni/{slide}.npy" }`.
    store
        `memory` keeps the sections in RAM; `disk` writes pixels, counts and scores of each to the folder of the run
        once, and maps them from there in all processes.
    on_error
        `stop` at a section that cannot be read, or `skip` it with its reason in the manifest.
    workers
        Processes that cut patches ahead of the training loop; 0 cuts them in the main process.
    """

    root: str = "."
    sections: tuple[SectionSpec, ...] = ()
    manifest: str | None = None
    exclude: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    min_spots: int = 50
    max_genes: int = 20_000
    vocabulary: str | None = None
    encoders: dict[str, str] = field(default_factory=dict)
    encoder_weights: dict[str, str] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    store: Literal["memory", "disk"] = "memory"
    on_error: Literal["stop", "skip"] = "stop"
    workers: int = 0


@dataclass(frozen=True)
class SamplerConfig:
    """How batches are drawn.

    Parameters
    ----------
    batch_size
        Spots a batch and process.
    sections_per_batch
        How many sections a batch mixes; 1 keeps every batch within one section.
    spots_per_section
        At most this many spots of a section are drawn in an epoch; 0 draws all.
    repeat_images
        How often the spots of sections with an image are drawn in an epoch, where most sections have none.
    mask_shared_niches
        Whether spots whose niches have a spot in common are left out of each other's negatives. Neither paper does.
    """

    batch_size: int = 256
    sections_per_batch: int = 4
    spots_per_section: int = 0
    repeat_images: int = 1
    mask_shared_niches: bool = False


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation, every part of which can be switched off.

    Parameters
    ----------
    flips
        Mirror the patches of a spot and its niche, together, with probability one half.
    turns
        Turn the patches of a spot and its niche, together, by a random multiple of 90 degrees.
    stain
        Spread of the random gain of each optical density channel and of its offset; 0 switches it off.
    thinning
        Range of the share of counts that is kept, drawn once for each section of a batch; [1, 1] switches it off.
    """

    flips: bool = True
    turns: bool = True
    stain: float = 0.1
    thinning: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser and its schedules.

    Parameters
    ----------
    lr
        Peak learning rate for `lr_batch` samples a step; scaled linearly with the batch over all processes.
    lr_batch
        The batch that `lr` is meant for.
    min_lr
        Learning rate at the end.
    warmup_epochs
        Epochs of linear warm-up from 0.
    betas, eps
        Of AdamW.
    weight_decay, weight_decay_end
        Weight decay at the start and at the end of its cosine.
    decay_gene_table
        Whether the table of gene vectors is decayed as well. Biases, norms and other 1-D parameters never are.
    anchor
        Learning rate of all but the image encoders, as a share of `lr`. Below 1 the gene space, which starts close to
        an isometry, is an anchor that images are drawn to; at 1 the losses bend it to the training sections.
    grad_clip
        Largest norm of the gradient; 0 does not clip.
    """

    lr: float = 5e-4
    lr_batch: int = 256
    min_lr: float = 1e-6
    warmup_epochs: float = 2.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.04
    weight_decay_end: float = 0.4
    decay_gene_table: bool = False
    anchor: float = 1.0
    grad_clip: float = 0.0


@dataclass(frozen=True)
class RunConfig:
    """How the loop runs; `accelerator`, `devices`, `num_nodes`, `strategy` and `precision` go to Lightning's `Trainer`.

    Parameters
    ----------
    epochs
        Passes over the training spots.
    steps
        Optimiser steps instead of `epochs`; 0 follows `epochs`.
    precision
        `auto` is bf16 on CUDA and on CPUs with matrix units for it (AMX), fp32 elsewhere. Otherwise a name of
        Lightning's, such as `32-true` or `bf16-mixed`.
    channels_last
        Keep images with the channels last in memory, which convolutions on CUDA and on bf16 CPUs are faster with.
    sync_batchnorm
        Share the statistics of batch norms between processes; torch can on GPUs only.
    log_every
        Steps between log entries.
    checkpoint_every
        Steps between checkpoints.
    keep
        How many checkpoints are kept.
    validate_every
        Epochs between validations.
    tensorboard
        Log to TensorBoard beside the CSV.
    """

    epochs: float = 100.0
    steps: int = 0
    accelerator: str = "auto"
    devices: int | str = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    channels_last: bool = True
    sync_batchnorm: bool = True
    log_every: int = 10
    checkpoint_every: int = 200
    keep: int = 2
    validate_every: float = 1.0
    tensorboard: bool = True


@dataclass(frozen=True)
class CardConfig:
    """What the exported weights say about themselves.

    Parameters
    ----------
    licence
        Licence of the weights.
    description
        One sentence.
    """

    licence: str = "not stated"
    description: str = ""


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Parameters
    ----------
    name
        Name of the weights.
    out
        Folder of the run: logs, checkpoints, manifest and, at the end, `weights`. Relative to the working directory;
        `~` is the user's home, here as in all paths.
    seed
        Seed of everything random.
    model
        `base` names a model size (`stalign-mini`, `st-align`); further keys replace fields of its configuration.
    loss
        Fields of `stalign.models.config.LossConfig` to replace.
    data, sampler, augment, optim, run, card
        See the classes.
    """

    name: str = "stalign-custom"
    out: str = "runs/stalign-custom"
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    card: CardConfig = field(default_factory=CardConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", str(Path(self.out).expanduser()))
        for key, least in _LEAST.items():
            part, name = key.split(".")
            value = getattr(getattr(self, part), name)
            _check(isinstance(value, int | float), key, "a number", value)
            _check(value >= least, key, f"at least {least}", value)
        _check(self.seed >= 0, "seed", "0 or more", self.seed)
        for key in ("run.epochs", "run.validate_every", "optim.lr", "optim.warmup_epochs"):
            part, name = key.split(".")
            value = getattr(getattr(self, part), name)
            _check(math.isfinite(value), key, "finite", value)
        _check(all(0 <= beta < 1 for beta in self.optim.betas), "optim.betas", "within [0, 1)", self.optim.betas)
        low, high = self.augment.thinning
        _check(0 < low <= high <= 1, "augment.thinning", "two shares, 0 < low <= high <= 1", self.augment.thinning)
        _check(self.optim.anchor <= 1, "optim.anchor", "a share, 0 to 1", self.optim.anchor)
        _check(self.optim.lr > 0, "optim.lr", "above 0", self.optim.lr)
        _check(self.run.validate_every > 0, "run.validate_every", "above 0", self.run.validate_every)
        _check(self.run.epochs > 0 or self.run.steps > 0, "run.epochs", "above 0", self.run.epochs)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain values that JSON can hold."""
        return json.loads(json.dumps(asdict(self)))


def resolve(root: str | Path, path: str | Path) -> Path:
    """Return a path that is relative to `root`, with `~` for the user's home.

    Parameters
    ----------
    root
        A folder.
    path
        A path.
    """
    return Path(root).expanduser() / Path(path).expanduser()


def _check(right: bool, key: str, expected: str, found: object) -> None:  # noqa: FBT001 (a condition, not an option)
    if not right:
        raise ValueError(message(f"Expected `{key}` to be {expected}", found=repr(found)))
