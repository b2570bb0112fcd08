"""Image encoders: networks of timm or plain torch, and what turns uint8 patches into embeddings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stalign._optional import require
from stalign._validate import message, one_of
from stalign.encoders.rename import IGNORED, LAYOUTS
from stalign.encoders.runtime import PRECISIONS, autocast, pick_device
from stalign.encoders.state import assign, read_state
from stalign.encoders.timm_cards import PREFIX
from stalign.models.fold import fold_batch_norms, halve
from stalign.models.pretrained import LITE0, LITE0_NETWORK, LITE0_STAGES
from stalign.models.stages import Stages

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.encoders.card import Card

# architecture: (timm's name, arguments that differ from timm's defaults)
_TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "uni": ("vit_large_patch16_224", {"init_values": 1e-5}),
    "uni2-h": (
        "vit_giant_patch14_224",
        {"depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 2.66667 * 2, "reg_tokens": 8,
         "init_values": 1e-5, "no_embed_class": True, "swiglu": True},
    ),
    "gigapath": ("vit_giant_patch14_dinov2", {"patch_size": 16, "mlp_ratio": 5.33334, "init_values": 1e-5}),
    "hibou-b": ("vit_base_patch14_reg4_dinov2", {"mlp_ratio": 5.33334, "init_values": 1e-5, "swiglu": True}),
    "h-optimus-0": ("vit_giant_patch14_reg4_dinov2", {"init_values": 1e-5}),
    "h0-mini": ("vit_base_patch14_reg4_dinov2", {"mlp_ratio": 5.33334, "init_values": 1e-5, "swiglu": True}),
    "virchow2": ("vit_huge_patch14_224", {"init_values": 1e-5, "reg_tokens": 4, "mlp_ratio": 5.3375, "swiglu": True}),
    "phikon": ("vit_base_patch16_224", {"norm_eps": 1e-12}),
    "phikon-v2": ("vit_large_patch14_dinov2", {"patch_size": 16, "init_values": 1e-5}),
    "midnight": ("vit_giant_patch14_dinov2", {"init_values": 1e-5}),
    "clip-b32": ("vit_base_patch32_clip_quickgelu_224", {}),
    "resnet18": ("resnet18", {}),
    "resnet50": ("resnet50", {}),
}  # fmt: skip
_BUFFERS = ("ctranspath", "resnet18", "resnet50", LITE0)  # convolutional, with buffers that no checkpoint sets


class Pooled(nn.Module):
    """A timm network and how its tokens become one embedding.

    Parameters
    ----------
    network
        A timm network without a classifier.
    pool
        `cls` (class token), `cls+mean` (and the mean of the patch tokens), or `own` (what the network returns).
    """

    def __init__(self, network: Any, pool: str) -> None:
        super().__init__()
        self.network: Any = network
        self.pool = pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Parameters
        ----------
        x
            Normalised images, (B, 3, H, W).

        Returns
        -------
        Embeddings, (B, dim).
        """
        if self.pool == "own":
            found: torch.Tensor = self.network(x)
            return found
        tokens = self.network.forward_features(x)  # (B, prefix + patches, width), normalised
        if self.pool == "cls":
            first: torch.Tensor = tokens[:, 0]
            return first
        return torch.cat([tokens[:, 0], tokens[:, self.network.num_prefix_tokens :].mean(1)], dim=1)


def build(card: Card, **changes: Any) -> Pooled:
    """Build the network of an image encoder with fresh parameters, on the device of the context.

    Parameters
    ----------
    card
        The encoder.
    changes
        Arguments of the network that differ from the card's, to shrink it in tests.

    Returns
    -------
    The network, which takes (B, 3, input_px, input_px) and returns (B, dim).

    Raises
    ------
    ValueError
        If no network has the name in `card.architecture`.
    """
    pool = card.options.get("pool", "own")
    if card.architecture in ("conch", "ctranspath"):
        from stalign.encoders import towers

        return Pooled(getattr(towers, card.architecture)(card, **changes), pool)
    timm = require("timm", purpose=f"The encoder {card.name!r}")
    if card.architecture.startswith(PREFIX):
        name = card.architecture.removeprefix(PREFIX)
        return Pooled(timm.create_model(name, pretrained=False, num_classes=0, **changes), pool)
    if card.architecture == LITE0:
        return Pooled(Stages(timm.create_model(LITE0_NETWORK, pretrained=False), LITE0_STAGES), pool)
    one_of(card.architecture, _TIMM, name="architecture")
    name, given = _TIMM[card.architecture]
    kwargs = {**({"img_size": card.input_px} if name.startswith("vit") else {}), **given, **changes}
    if kwargs.pop("swiglu", False):
        kwargs |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    if "norm_eps" in kwargs:
        kwargs["norm_layer"] = partial(nn.LayerNorm, eps=kwargs.pop("norm_eps"))
    network = timm.create_model(name, pretrained=False, num_classes=0, **kwargs)
    if card.architecture == "clip-b32":
        network.head = nn.Linear(network.num_features, card.width, bias=False)  # CLIP's projection has no bias
    return Pooled(network, pool)


def load_network(card: Card, path: Path, **changes: Any) -> Pooled:
    """Build the network and give it the tensors of a checkpoint.

    Parameters
    ----------
    card
        The encoder.
    path
        Weights file or folder.
    changes
        Arguments of the network that differ from the card's, to shrink it in tests.

    Returns
    -------
    The network with the checkpoint's parameters, on the CPU.

    Raises
    ------
    ValueError
        If the checkpoint does not fit the network exactly, or is damaged.
    """
    buffers = card.architecture in _BUFFERS or card.architecture.startswith(PREFIX)
    with torch.device("cpu" if buffers else "meta"):
        pooled = build(card, **changes)
    state = read_state(path)
    try:
        mapped = set(pooled.network.state_dict()) <= set(state)  # the names are the network's already
        renamed = state if mapped else LAYOUTS[card.layout](state, pooled.network)
    except KeyError as error:
        expected = f"Expected a checkpoint of {card.name!r} with names in the layout {card.layout!r}"
        raise ValueError(message(expected, found=f"no tensor {error}", available=state)) from error
    assign(pooled.network, renamed, ignore=IGNORED[card.layout], name=card.name)
    return pooled


class ImageEncoder:
    """Turns uint8 patches into embeddings.

    Parameters
    ----------
    card
        The encoder.
    network
        Takes (B, 3, input_px, input_px) and returns (B, dim).
    device
        Where it runs.
    precision
        `fp32` or `bf16`.
    """

    def __init__(self, card: Card, network: nn.Module, *, device: torch.device, precision: str) -> None:
        self.card = card
        self.device = device
        self.precision = precision
        self.network = network.eval().requires_grad_(requires_grad=False).to(device)
        if card.architecture == LITE0:
            fold_batch_norms(self.network)
        if card.architecture in _BUFFERS:
            self.network = self.network.to(memory_format=torch.channels_last)
        self._mean = torch.tensor(card.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(card.std, device=device).view(1, 3, 1, 1) * 255

    def prepare(self, patches: NDArray[np.uint8]) -> torch.Tensor:
        """Resize and normalise patches.

        Parameters
        ----------
        patches
            RGB patches of any size, (B, s, s, 3) uint8.

        Returns
        -------
        Network input, (B, 3, input_px, input_px) float32 on the encoder's device.
        """
        x = torch.from_numpy(np.ascontiguousarray(patches)).permute(0, 3, 1, 2)
        size = self.card.resize_px or self.card.input_px
        if x.shape[2:] != (size, size):
            x = F.interpolate(x, size=(size, size), mode=self.card.interpolation, antialias=True, align_corners=False)
        edge = (size - self.card.input_px) // 2
        if edge:
            x = x[:, :, edge : edge + self.card.input_px, edge : edge + self.card.input_px]
        x = x.to(self.device).float()
        return ((x - self._mean) / self._std).contiguous(memory_format=torch.channels_last)

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed patches.

        Parameters
        ----------
        patches
            RGB patches of any size, (B, s, s, 3) uint8.

        Returns
        -------
        Embeddings, (B, dim) float32.
        """
        with torch.inference_mode(), autocast(self.device, self.precision):
            return np.asarray(self.network(self.prepare(patches)).float().cpu().numpy())


def load(
    card: Card, path: Path | None, *, device: str | None = None, precision: str = "fp32", seed: int = 0
) -> ImageEncoder:
    """Load an image encoder.

    Parameters
    ----------
    card
        The encoder.
    path
        Weights file or folder, or None for random parameters drawn from `seed`.
    device
        Torch device; see `stalign.settings.device`.
    precision
        `fp32` or `bf16`.
    seed
        Of random parameters.

    Returns
    -------
    The encoder.

    Raises
    ------
    ValueError
        If the checkpoint does not fit, or the precision or device is unknown.
    """
    one_of(precision, PRECISIONS, name="precision")
    chosen = pick_device(device)
    if path is not None:
        network = load_network(card, path)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(card)
    if precision == "bf16":
        halve(network)
    return ImageEncoder(card, network, device=chosen, precision=precision)
