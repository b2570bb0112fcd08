"""An EfficientNet cut after one of its stages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Sequence

PIXELS = 4 * 224 * 224  # of patches that a CPU convolves together, whose cache holds no more


class Stages(nn.Module):
    """An EfficientNet of timm, cut after a stage; the means of some stages, side by side, are its feature.

    Parameters
    ----------
    network
        The network.
    stages
        Numbers of the stages, from 1.
    """

    def __init__(self, network: Any, stages: Sequence[int]) -> None:
        super().__init__()
        if not hasattr(network, "conv_stem") or not 1 <= min(stages) <= max(stages) <= len(network.blocks):
            n = len(getattr(network, "blocks", ()))
            expected = f"Expected `stages` of an EfficientNet of timm, from 1 to {n}"
            raise ValueError(message(expected, found=f"{tuple(stages)} of a {type(network).__name__}"))
        self.conv_stem, self.bn1, self.blocks = network.conv_stem, network.bn1, network.blocks[: max(stages)]
        self.stages = tuple(stages)
        self.num_features = sum(_width(self.blocks[number - 1]) for number in stages)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features.

        Parameters
        ----------
        x
            Normalised images, (B, 3, h, w).

        Returns
        -------
        (B, num_features): the channels of each stage, its mean over the image.
        """
        together = len(x)
        if x.device.type == "cpu" and not torch.is_grad_enabled():
            together = max(1, PIXELS // (x.shape[2] * x.shape[3]))
        return torch.cat([self._means(part) for part in x.split(max(1, together))])

    def _means(self, x: Tensor) -> Tensor:
        """Return the means of the stages, (b, num_features)."""
        x = self.bn1(self.conv_stem(x))
        means = {}
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            means[number] = x.mean((2, 3))  # (B, c, h, w) -> (B, c)
        return torch.cat([means[number] for number in self.stages], dim=1)


def _width(stage: nn.Module) -> int:
    """Count the channels that a stage returns."""
    return [part.out_channels for part in stage.modules() if isinstance(part, nn.Conv2d)][-1]
