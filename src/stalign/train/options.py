"""Parts of the configuration of a training run: batches, augmentation, optimiser, loop and card."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from stalign._validate import message
from stalign.models.schema import Bool, Float, Int, configuration, key

_CODE, _OURS, _ALL = "code", "ours", "all three"
_NONE = "ours (code: none)"
Beta = Annotated[Float, key("of AdamW", ge=0, lt=1)]


def _shares(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise ValueError("two shares, 0 < low <= high <= 1")
    return value


@configuration
class SamplerConfig:
    """How batches are drawn."""

    batch_size: Annotated[Int, key("of a batch", "spots a process", "ours (code: 64, as in `st-align.toml`)", ge=2)] = (
        256
    )
    sections_per_batch: Annotated[Int, key("how many a batch mixes; 1 keeps to one", "sections", _OURS, ge=1)] = 4
    spots_per_section: Annotated[Int, key("cap of a section in an epoch; 0 for none", "spots", _OURS, ge=0)] = 0
    repeat_images: Annotated[
        Int,
        key(
            "how often spots of sections with an image are drawn, where most sections have none",
            "times an epoch",
            _OURS,
            ge=1,
        ),
    ] = 1
    mask_shared_niches: Annotated[
        Bool, key("leave spots whose niches overlap out of each other's negatives; neither paper does", "", _OURS)
    ] = False


@configuration
class AugmentConfig:
    """Augmentation, every part of which can be switched off."""

    flips: Annotated[Bool, key("mirror spot and niche together, with probability one half", "", _NONE)] = True
    turns: Annotated[Bool, key("turn spot and niche together", "90°", _NONE)] = True
    stain: Annotated[
        Float,
        key(
            "spread of the gain of each stain, and a fifth of it of the offset; 0 for none",
            "share of the optical density",
            _NONE,
            ge=0,
        ),
    ] = 0.1
    thinning: Annotated[
        tuple[Float, Float],
        AfterValidator(_shares),
        key(
            "range of what is kept, drawn for each section of a batch; `[1, 1]` for all. Scores on a basis are thinned "
            "(`model.input.rank` above 0), expression gene by gene, as AE-Gene reads it, is not",
            "share of the counts",
            _NONE,
        ),
    ] = (0.5, 1.0)


@configuration
class OptimConfig:
    """The optimiser and its schedules."""

    lr: Annotated[Float, key("peak learning rate", "a step of `lr_batch` spots", _ALL, gt=0)] = 5e-4
    lr_batch: Annotated[
        Int, key("the batch that `lr` is meant for; scaled linearly with that of all processes", "spots", _CODE, ge=1)
    ] = 256
    min_lr: Annotated[Float, key("learning rate of the last step; not scaled", "a step", _CODE, ge=0)] = 1e-6
    warmup_epochs: Annotated[Float, key("linear warm-up from 0", "epochs", _CODE, ge=0)] = 2.0
    betas: Annotated[tuple[Beta, Beta], key("of AdamW", "", "arXiv")] = (0.9, 0.999)
    eps: Annotated[Float, key("of AdamW", "", "arXiv", ge=0)] = 1e-8
    weight_decay: Annotated[Float, key("at the start of its cosine", "", _ALL, ge=0)] = 0.04
    weight_decay_end: Annotated[Float, key("at its end", "", _ALL, ge=0)] = 0.4
    decay_gene_table: Annotated[
        Bool, key("decay the gene table as well; biases, norms and other 1-D parameters never", "", _OURS)
    ] = False
    anchor: Annotated[
        Float,
        key(
            "rate of all but the image encoders. Below 1 the gene space, close to an isometry at first, is an anchor "
            "that images are drawn to; at 1 the losses bend it to the training sections",
            "share of `lr`",
            _OURS,
            ge=0,
            le=1,
        ),
    ] = 1.0
    grad_clip: Annotated[Float, key("largest gradient; 0 for none", "norm", "code (none)", ge=0)] = 0.0


@configuration
class RunConfig:
    """How the loop runs. `accelerator`, `devices`, `num_nodes`, `strategy` and `precision` are those of Lightning."""

    epochs: Annotated[Float, key("length of the run", "epochs", _CODE, ge=0)] = 100.0
    steps: Annotated[Int, key("length instead of `epochs`; 0 follows `epochs`", "steps", _OURS, ge=0)] = 0
    accelerator: Annotated[str, key("of Lightning")] = "auto"
    devices: Annotated[Int | str, key("of Lightning; under `torchrun` all there are", "processes a node")] = "auto"
    num_nodes: Annotated[Int, key("of Lightning", "nodes", ge=1)] = 1
    strategy: Annotated[str, key("of Lightning")] = "auto"
    precision: Annotated[
        str,
        key(
            "`auto` is bf16 where the hardware multiplies matrices in it (CUDA, AMX), else fp32; or a name of "
            "Lightning's, such as `32-true`. Losses are always fp32",
            "",
            "ours (code: fp32)",
        ),
    ] = "auto"
    channels_last: Annotated[
        Bool, key("keep images with the channels last, which is faster on CUDA and bf16 CPUs", "", _OURS)
    ] = True
    sync_batchnorm: Annotated[Bool, key("batch norms over the spots of all processes", "", "arXiv, code")] = True
    log_every: Annotated[Int, key("between entries of the log", "steps", _OURS, ge=1)] = 10
    checkpoint_every: Annotated[Int, key("between checkpoints", "steps", _OURS, ge=1)] = 200
    keep: Annotated[Int, key("how many are kept", "checkpoints", _OURS, ge=1)] = 2
    validate_every: Annotated[Float, key("between validations", "epochs", _OURS, gt=0)] = 1.0
    keep_best: Annotated[
        Bool,
        key(
            "keep the checkpoint with the lowest validation loss too, and export its weights; one is then written at "
            "each validation. Needs `data.validation`",
            "",
            _OURS,
        ),
    ] = False
    patience: Annotated[
        Int,
        key(
            "end after so many without a lower loss; 0 goes to the end. Needs `data.validation`",
            "validations",
            _OURS,
            ge=0,
        ),
    ] = 0
    tensorboard: Annotated[Bool, key("log there too, beside the CSV", "", _OURS)] = True

    def __post_init__(self) -> None:
        if not (self.epochs or self.steps):
            raise ValueError(message("Expected `run.epochs` to be above 0", found=repr(self.epochs)))


@configuration
class CardConfig:
    """What the exported weights say about themselves."""

    licence: Annotated[str, key("licence of the weights")] = "not stated"
    description: Annotated[str, key("one sentence")] = ""
