"""An image encoder fine-tuned against expression: the image side of `stalign.train.fit_clip`."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from stalign._validate import message, one_of
from stalign.encoders.registry import get
from stalign.encoders.runtime import PRECISIONS, pick_device
from stalign.encoders.state import assign, read_state
from stalign.encoders.vision import ImageEncoder, build

if TYPE_CHECKING:
    from pathlib import Path

    from stalign.encoders.card import Card

CONFIG = "clip.json"
WEIGHTS = "model.safetensors"
_LARGEST_SCALE = math.log(100)  # as in CLIP


class ClipPair(nn.Module):
    """An image tower and counts, each projected linearly to a few dimensions (STimage-1K4M, Chen et al. 2024).

    Parameters
    ----------
    tower
        Takes (B, 3, H, W) and returns (B, dim).
    dim
        Length of what the tower returns.
    n_genes
        Genes of the other side.
    width
        Length of the shared embedding.
    temperature
        Where the learnable temperature starts.
    """

    def __init__(self, tower: nn.Module, dim: int, n_genes: int, *, width: int = 32, temperature: float = 0.07) -> None:
        super().__init__()
        self.tower = tower
        self.image_head = nn.Linear(dim, width)
        self.gene_head = nn.Linear(n_genes, width)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        for head in (self.image_head, self.gene_head):
            nn.init.xavier_uniform_(head.weight)
            nn.init.zeros_(head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed images.

        Parameters
        ----------
        images
            Normalised images, (B, 3, H, W).

        Returns
        -------
        Unit vectors, (B, width).
        """
        return F.normalize(self.image_head(self.tower(images)), dim=1)

    def loss(self, images: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        """Symmetric cross-entropy of matching images and genes in a batch (Radford et al. 2021, figure 3).

        Parameters
        ----------
        images
            Normalised images, (B, 3, H, W).
        genes
            Expression, (B, n_genes).

        Returns
        -------
        The loss, a scalar.
        """
        profiles = F.normalize(self.gene_head(genes), dim=1)
        logits = self(images) @ profiles.T * self.logit_scale.clamp(max=_LARGEST_SCALE).exp()  # (B, B)
        target = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def load(
    card: Card, path: Path | None, *, device: str | None = None, precision: str = "fp32", seed: int = 0
) -> ImageEncoder:
    """Load what `stalign.train.fit_clip` wrote.

    Parameters
    ----------
    card
        The card `clip-tuned`.
    path
        The folder, or the weights file in it.
    device
        Torch device.
    precision
        `fp32` or `bf16`.
    seed
        Not used.

    Returns
    -------
    The encoder, with the input of the tower that was fine-tuned.

    Raises
    ------
    FileNotFoundError
        If the folder is not of `stalign.train.fit_clip`.
    ValueError
        If there is no path, or the weights do not fit.
    """
    del seed
    one_of(precision, PRECISIONS, name="precision")
    if path is None:
        raise ValueError(message("Expected a folder that `stalign.train.fit_clip` wrote", found="'random'"))
    folder = path if path.is_dir() else path.parent
    if not (folder / CONFIG).is_file():
        hint = "Pass the folder that `stalign.train.fit_clip` returned"
        raise FileNotFoundError(message(f"Expected {CONFIG} in the folder", found=folder, hint=hint))
    found: dict[str, Any] = json.loads((folder / CONFIG).read_text())
    base = get(found["config"]["encoder"], **found["options"])
    with torch.device("meta"):
        pair = ClipPair(build(base, **found["changes"]), found["dim"], len(found["genes"]), width=card.width)
    assign(pair, read_state(folder / WEIGHTS), name=card.name)
    return ImageEncoder(base, pair, device=pick_device(device), precision=precision)
