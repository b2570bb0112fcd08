"""Batch norms of timm's EfficientNets folded into the convolutions before them, for inference."""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


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
