"""The CLIP baseline of STimage-1K4M: an image encoder fine-tuned against expression with two linear heads.

python -m stalign.train.clip config.toml [--resume] [key=value ...]
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from stalign._files import move
from stalign._settings import logger
from stalign._validate import message
from stalign.encoders.clip_pair import CONFIG, WEIGHTS, ClipPair
from stalign.encoders.loading import locate
from stalign.encoders.registry import get
from stalign.encoders.runtime import pick_device
from stalign.encoders.vision import ImageEncoder, build, load_network
from stalign.models.run_files import CHECKPOINTS, found
from stalign.models.schema import Bool, Float, Int, configuration, key
from stalign.models.schema import build as build_config
from stalign.train._history import history
from stalign.train.clip_data import PairData, PairOrders, PairStep, PairSteps, read_pairs
from stalign.train.files import write_text
from stalign.train.loop import train
from stalign.train.options import OptimConfig, RunConfig
from stalign.train.placement import on_device, place
from stalign.train.recipes import override, read_toml
from stalign.train.steps import TrainingModule, grouped
from stalign.train.trainer import Run, own_randomness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@configuration
class ClipConfig:
    """How to fine-tune; the defaults are those of STimage-1K4M (Chen et al. 2024)."""

    encoder: Annotated[str, key("registered image encoder to start from, such as `clip-vit-b32` or `plip`")] = (
        "clip-vit-b32"
    )
    weights: Annotated[str, key('its weights: a path, "" for the published ones, or `random`')] = ""
    sections: Annotated[tuple[str, ...], key("h5ad files to train on, for the command line", "paths")] = ()
    out: Annotated[str, key("folder to write", "path")] = "clip-tuned"
    genes: Annotated[
        Literal["overlap", "hvg"],
        key(
            "`overlap`: the variable genes among those of all sections; `hvg`: each section's own, in the order "
            "of their rank, so that a column is another gene in each section"
        ),
    ] = "overlap"
    n_genes: Annotated[Int, key("how many; 0 for the published 100 (`overlap`) or 128 (`hvg`)", "genes")] = 0
    level: Annotated[Literal["spot", "niche"], key("patch of the `spot` or of its `niche`")] = "spot"
    library_key: Annotated[str, key('column of obs that tells sections apart, "" for none')] = ""
    layer: Annotated[str, key('layer of the raw counts, "" for X')] = ""
    width: Annotated[Int, key("length of the shared embedding")] = 32
    train_tower: Annotated[Bool, key("whether the image encoder is trained, or its heads alone")] = True
    epochs: Annotated[Int, key("passes over all spots")] = 15
    batch_size: Annotated[Int, key("spots in a step; the negatives of a spot are the others", "spots")] = 1024
    lr: Annotated[Float, key("of Adam")] = 5e-5
    beta1: Annotated[Float, key("of Adam")] = 0.9
    beta2: Annotated[Float, key("of Adam")] = 0.98
    eps: Annotated[Float, key("of Adam")] = 1e-6
    weight_decay: Annotated[Float, key("of Adam")] = 0.2
    temperature: Annotated[Float, key("where the learnable temperature starts")] = 0.07
    precision: Annotated[Literal["fp32", "bf16"], key("precision of the image encoder")] = "fp32"
    device: Annotated[str, key('torch device, "" for the best there is')] = ""
    seed: Annotated[Int, key("of the heads and of the order of spots")] = 0


def fit_clip(
    data: Sequence[AnnData | SpatialData],
    config: ClipConfig | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Path:
    """Fine-tune an image encoder against expression.

    Parameters
    ----------
    data
        Sections with images and raw counts.
    config
        How; the published recipe by default.
    changes
        Arguments of the image network that differ from the card's, for weights of another size.
    resume
        Go on from the last sound checkpoint in `config.out`, where there is one.

    Returns
    -------
    The folder, which `tl.encode(data, "clip-tuned", weights=folder)` takes; `train.history` reads its losses.

    Raises
    ------
    FileExistsError
        If `config.out` holds checkpoints and `resume` is False.
    FloatingPointError
        If the loss is not finite any more; the last checkpoint is from before.
    KeyboardInterrupt
        After Ctrl-C; `resume` goes on from the last checkpoint.
    ValueError
        If there are no spots with image and counts, or too few genes in common.
    FileNotFoundError, PermissionError, ConnectionError
        If the encoder's weights can't be had.

    Examples
    --------
    >>> import stalign
    >>> from stalign.train.clip import ClipConfig
    >>> ClipConfig(encoder="plip", genes="hvg").epochs
    15
    """
    config = config or ClipConfig()
    folder = Path(config.out).expanduser()
    if found(folder / CHECKPOINTS) and not resume:
        hint = "Pass `resume=True`, or name another `out`"
        raise FileExistsError(message(f"Expected no run in {str(folder)!r}", found="checkpoints", hint=hint))
    card = get(config.encoder)
    pairs = read_pairs(
        data, genes=config.genes, n_genes=config.n_genes, level=config.level, library_key=config.library_key or None,
        layer=config.layer or None, size=card.input_px,
    )  # fmt: skip
    precision = {"fp32": "32-true", "bf16": "bf16-mixed"}[config.precision]
    options = RunConfig(
        log_every=1, tensorboard=False, precision=precision, **on_device(str(pick_device(config.device or None)))
    )
    extra = dict(changes or {})
    path = locate(card, config.weights or None)
    orders = PairOrders(len(pairs), config.batch_size, config.seed)
    steps = config.epochs * orders.steps_per_epoch
    same = {key: value for key, value in asdict(config).items() if key not in ("out", "device", "sections")}
    content = hashlib.sha256(pairs.expression.tobytes() + pairs.windows.tobytes()).hexdigest()

    def assemble() -> _Run:
        torch.manual_seed(config.seed)
        tower = build(card, **extra) if path is None else load_network(card, path, **extra)
        with torch.inference_mode():
            dim = tower.eval()(torch.zeros(1, 3, card.input_px, card.input_px)).shape[1]
        pair = ClipPair(tower, dim, pairs.n_genes, width=config.width, temperature=config.temperature)
        encoder = ImageEncoder(card, tower, device=torch.device("cpu"), precision="fp32")
        pair.train().requires_grad_(requires_grad=True).tower.requires_grad_(requires_grad=config.train_tower)
        module = _Tuning(pair, config, steps, {"config": same, "genes": pairs.genes, "spots": content})
        data = PairData(PairSteps(pairs, encoder), orders, steps)
        return _Run(module, data, options, place(options), orders.steps_per_epoch, pair=pair)

    with own_randomness():
        pair = (train(assemble, folder, resume=resume) if steps else assemble()).pair
    losses = []
    if steps:
        log = history(folder)
        losses = log.groupby(log["step"] // orders.steps_per_epoch)["loss/total"].mean().tolist()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        state = {name: value.detach().cpu().contiguous() for name, value in pair.state_dict().items()}
        save_file(state, Path(temporary) / WEIGHTS)
        move(Path(temporary) / WEIGHTS, folder / WEIGHTS)
    record = {
        "config": asdict(config), "options": dict(card.options), "changes": extra, "dim": pair.image_head.in_features,
        "genes": pairs.genes, "licence": card.licence, "n_spots": len(pairs), "loss": losses,
    }  # fmt: skip
    write_text(folder / CONFIG, json.dumps(record, indent=1))
    logger.info("Fine-tuned %s on %d spots: wrote %s.", card.name, len(pairs), folder)
    return folder


@dataclass
class _Run(Run):
    """A run, with the pair that it trains."""

    pair: ClipPair = field(kw_only=True)


class _Tuning(TrainingModule):
    """Trains a pair with Adam, as published: one rate, and decay of all weights."""

    def __init__(self, pair: ClipPair, config: ClipConfig, steps: int, fingerprint: dict[str, Any]) -> None:
        optim = OptimConfig(
            lr=config.lr, lr_batch=config.batch_size, min_lr=config.lr, betas=(config.beta1, config.beta2),
            eps=config.eps, weight_decay=config.weight_decay, weight_decay_end=config.weight_decay,
        )  # fmt: skip
        super().__init__(
            optim, steps=steps, warmup=0, batch_size=config.batch_size, seed=config.seed, fingerprint=fingerprint
        )
        self.pair = pair

    def terms(self, batch: PairStep) -> dict[str, Tensor]:
        return {"total": self.pair.loss(batch.images, batch.genes)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = grouped((parameter, True, 1.0) for parameter in trained)
        return torch.optim.Adam(groups, lr=self.optim.lr, betas=self.optim.betas, eps=self.optim.eps)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> ClipConfig:
    """Read a configuration from TOML.

    Parameters
    ----------
    path
        The file, with the fields of `ClipConfig`.
    overrides
        `key=value` each.

    Returns
    -------
    The configuration.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a key is unknown or a value has the wrong type.
    """
    return build_config(ClipConfig, override(read_toml(Path(path)), overrides))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line.

    Parameters
    ----------
    argv
        The configuration file, `--resume` and overrides.
    """
    from stalign.io import read_h5ad

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        raise SystemExit(__doc__)
    resume = "--resume" in arguments
    path, *overrides = (argument for argument in arguments if argument != "--resume")
    config = read_config(path, overrides)
    if not config.sections:
        raise ValueError(message("Expected `sections` to name h5ad files", found="none"))
    fit_clip([read_h5ad(section) for section in config.sections], config, resume=resume)


if __name__ == "__main__":
    main()
