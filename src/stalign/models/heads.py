"""Projection heads: tokens to the embedding that the losses compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from stalign.models.attention import zero_

if TYPE_CHECKING:
    from stalign.models.config import ModelConfig


class ProjectionHead(nn.Module):
    """Flatten, then two linear layers (authors' code: 4096 -> 2048 -> 1024).

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.expand = nn.Linear(config.flat, config.head.hidden)
        self.contract = nn.Linear(config.head.hidden, config.head.out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, out).

        Parameters
        ----------
        tokens
            (B, s, l) float.
        """
        return self.contract(F.relu(self.expand(tokens.flatten(1))))  # (B, s * l) -> (B, hidden) -> (B, out)


class ResidualHead(nn.Module):
    """Flatten, and add a correction that starts at zero.

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.flat)
        self.expand = nn.Linear(config.flat, config.head.hidden)
        self.contract = nn.Linear(config.head.hidden, config.flat)
        zero_(self.contract)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (B, s * l).

        Parameters
        ----------
        tokens
            (B, s, l) float.
        """
        x = tokens.flatten(1)  # (B, s, l) -> (B, s * l)
        return x + self.contract(F.gelu(self.expand(self.norm(x))))
