"""The CLIP baseline of STimage-1K4M: an image encoder fine-tuned against expression with two linear heads.

python -m stalign.train.clip config.toml [key=value ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file

from stalign._files import move
from stalign._settings import logger, progress
from stalign._validate import message
from stalign.encoders.clip_pair import CONFIG, WEIGHTS, ClipPair
from stalign.encoders.loading import locate
from stalign.encoders.registry import get
from stalign.encoders.runtime import autocast, pick_device
from stalign.encoders.vision import ImageEncoder, build, load_network
from stalign.models.schema import Bool, Float, Int, configuration, key
from stalign.models.schema import build as build_config
from stalign.train.clip_data import Pairs, read_pairs
from stalign.train.files import write_text
from stalign.train.recipes import override, read_toml

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
    data: Sequence[AnnData | SpatialData], config: ClipConfig | None = None, *, changes: Mapping[str, Any] | None = None
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

    Returns
    -------
    The folder, which `tl.encode(data, "clip-tuned", weights=folder)` takes.

    Raises
    ------
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
    card = get(config.encoder)
    pairs = read_pairs(
        data, genes=config.genes, n_genes=config.n_genes, level=config.level, library_key=config.library_key or None,
        layer=config.layer or None, size=card.input_px,
    )  # fmt: skip
    device = pick_device(config.device or None)
    extra = dict(changes or {})
    path = locate(card, config.weights or None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        tower = build(card, **extra) if path is None else load_network(card, path, **extra)
        with torch.inference_mode():
            dim = tower.eval()(torch.zeros(1, 3, card.input_px, card.input_px)).shape[1]
        pair = ClipPair(tower, dim, pairs.n_genes, width=config.width, temperature=config.temperature).to(device)
        losses = _train(pair, pairs, ImageEncoder(card, tower, device=device, precision="fp32"), config)
    folder = Path(config.out).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as temporary:
        state = {name: value.detach().cpu().contiguous() for name, value in pair.state_dict().items()}
        save_file(state, Path(temporary) / WEIGHTS)
        move(Path(temporary) / WEIGHTS, folder / WEIGHTS)
    record = {
        "config": asdict(config), "options": dict(card.options), "changes": extra, "dim": int(dim),
        "genes": pairs.genes, "licence": card.licence, "n_spots": len(pairs), "loss": losses,
    }  # fmt: skip
    write_text(folder / CONFIG, json.dumps(record, indent=1))
    logger.info("Fine-tuned %s on %d spots: wrote %s.", card.name, len(pairs), folder)
    return folder


def _train(pair: ClipPair, pairs: Pairs, encoder: ImageEncoder, config: ClipConfig) -> list[float]:
    """Train in place; return the mean loss of each epoch."""
    pair.requires_grad_(requires_grad=True)
    pair.tower.requires_grad_(requires_grad=config.train_tower)
    optimiser = torch.optim.Adam(
        [parameter for parameter in pair.parameters() if parameter.requires_grad],
        lr=config.lr, betas=(config.beta1, config.beta2), eps=config.eps, weight_decay=config.weight_decay,
    )  # fmt: skip
    rng = np.random.default_rng(config.seed)
    losses = []
    for epoch in range(config.epochs):
        order = rng.permutation(len(pairs))
        steps = range(0, len(order) - 1, config.batch_size)
        total = 0.0
        pair.train()
        for start in progress(steps, desc=f"Epoch {epoch + 1} of {config.epochs}"):
            rows = order[start : start + config.batch_size]
            if len(rows) < 2:  # nothing to tell apart
                continue
            images = encoder.prepare(pairs.patches(rows))
            genes = torch.from_numpy(pairs.expression[rows]).to(encoder.device)
            with autocast(encoder.device, config.precision):
                loss = pair.loss(images, genes)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(rows)
        losses.append(total / len(order))
        logger.info("Epoch %d of %d: loss %.4f.", epoch + 1, config.epochs, losses[-1])
    return losses


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
        The configuration file and overrides.
    """
    from stalign.io import read_h5ad

    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        raise SystemExit(__doc__)
    config = read_config(arguments[0], arguments[1:])
    if not config.sections:
        raise ValueError(message("Expected `sections` to name h5ad files", found="none"))
    fit_clip([read_h5ad(section) for section in config.sections], config)


if __name__ == "__main__":
    main()
