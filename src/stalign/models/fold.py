"""Networks made ready for inference: batch norms folded into convolutions, image backbones in bfloat16."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from stalign.models.image_encoders import BackboneEncoder
from stalign.models.stages import Stages

if TYPE_CHECKING:
    from stalign.models.network import STAlign


def folded(network: STAlign, precision: str = "fp32") -> STAlign:
    """Return a network that computes the same with less work in its convolutional backbones.

    Parameters
    ----------
    network
        The network; it is not changed.
    precision
        `fp32`, or `bf16` for convolutions and matrix products of the image backbones in bfloat16.

    Returns
    -------
    A network in evaluation mode, for inference only; what is not folded shares its weights with `network`. Embeddings
    agree to rounding in single precision, unless another one was asked for.

    Examples
    --------
    >>> from stalign.models import MINI, STAlign
    >>> from stalign.models.fold import folded
    >>> network = folded(STAlign(MINI, n_genes=10))
    >>> any("bn1" in name for name in network.state_dict())
    False
    """
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    network = copy.deepcopy(network, shared).eval()
    if not network.image_encoders:
        return network
    from timm.models.resnet import BasicBlock, Bottleneck, ResNet

    for encoder in network.image_encoders.values():
        backbone = encoder.backbone if isinstance(encoder, BackboneEncoder) else None
        if isinstance(backbone, Stages):
            fold_batch_norms(backbone)
        if not isinstance(backbone, ResNet):
            continue
        for module in backbone.modules():
            if isinstance(module, BasicBlock | Bottleneck | ResNet):
                for number in (1, 2, 3):
                    _fold(module, f"conv{number}", f"bn{number}")
            elif isinstance(module, nn.Sequential):
                _fold(module, "0", "1")
    for encoder in network.image_encoders.values():
        if precision == "bf16" and isinstance(encoder, BackboneEncoder) and encoder.backbone is not None:
            encoder.backbone = InBfloat16(encoder.backbone)
    return network


class InBfloat16(nn.Module):
    """A copy of a backbone whose convolutions and matrix products are done in bfloat16; its features are float32.

    Parameters
    ----------
    backbone
        The backbone; it is not changed.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        halve(self.backbone)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the features of patches.

        Parameters
        ----------
        image
            (B, 3, h, w) float, standardised.
        """
        with torch.autocast(image.device.type, dtype=torch.bfloat16):
            features: torch.Tensor = self.backbone(image)
        return features.float()


def halve(network: nn.Module) -> None:
    """Keep the weights of matrix products in bfloat16, in place: half the memory, and nothing for `autocast` to cast.

    Parameters
    ----------
    network
        The network; its norms and positions stay float32, and so does what `autocast` makes of it, number for number.
    """
    for part in network.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.to(torch.bfloat16)


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place; what is computed stays, up to rounding.

    Parameters
    ----------
    network
        The network, in evaluation mode, whose modules stand in the order in which they are called.
    """
    from timm.layers import BatchNormAct2d

    for parent in list(network.modules()):
        for (before, conv), (after, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, BatchNormAct2d):
                setattr(parent, before, fuse_conv_bn_eval(conv, norm))
                setattr(parent, after, norm.act)


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    before, after = getattr(module, conv, None), getattr(module, norm, None)
    if isinstance(before, nn.Conv2d) and type(after) is nn.BatchNorm2d:
        setattr(module, conv, fuse_conv_bn_eval(before, after))
        setattr(module, norm, nn.Identity())
