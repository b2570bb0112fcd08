"""Fusion of image tokens and gene tokens, one network per level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stalign.models.attention import Attention, zero_
from stalign.models.batch import required

if TYPE_CHECKING:
    from stalign.models.config import ModelConfig


class CrossAttention(nn.Module):
    """One stream of the fusion network: tokens of one modality ask, those of the other answer.

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.norm_query = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.attention = Attention(dim, n_heads=config.n_heads, head_dim=config.head_dim, dropout=config.dropout)
        hidden = config.fusion_hidden
        self.project = (  # W_I or W_G of eq. 9
            nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim // 2))
            if hidden
            else nn.Linear(dim, dim // 2, bias=False)
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return (B, s, l / 2).

        Parameters
        ----------
        x
            (B, s, l) float.
        context
            (B, s, l) float.
        """
        return self.project(self.attention(self.norm_query(x), self.norm_context(context)))


class ABFN(nn.Module):
    """The attention-based fusion network, eq. 7 to 9; each stream has its own projections, and no residual.

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.image = CrossAttention(config)
        self.gene = CrossAttention(config)
        self.norm = nn.LayerNorm(config.token_dim)

    def forward(self, image: Tensor, gene: Tensor) -> Tensor:
        """Return (B, s, l) fused tokens.

        Parameters
        ----------
        image
            (B, s, l) float.
        gene
            (B, s, l) float.
        """
        z_image = self.image(image, gene)  # eq. 7, (B, s, l / 2)
        z_gene = self.gene(gene, image)  # eq. 8, (B, s, l / 2)
        return self.norm(torch.cat([z_image, z_gene], dim=-1))  # eq. 9, (B, s, l)


class Concat(nn.Module):
    """The ablation's plain alternative: tokens side by side and one linear layer (workshop, table 3).

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.project = nn.Linear(2 * config.token_dim, config.token_dim)
        self.norm = nn.LayerNorm(config.token_dim)

    def forward(self, image: Tensor, gene: Tensor) -> Tensor:
        """Return (B, s, l) fused tokens.

        Parameters
        ----------
        image
            (B, s, l) float.
        gene
            (B, s, l) float.
        """
        return self.norm(self.project(torch.cat([image, gene], dim=-1)))  # (B, s, 2 l) -> (B, s, l)


class Fusion(nn.Module):
    """Fusion of one level, and what it does where a modality is missing.

    In a residual network, fused = gene tokens + correction, and the correction starts at zero; where one modality is
    missing, fused is the other's tokens. In the paper's network the tokens that are there stand in for those that are
    missing, so that the fusion network attends from them to themselves.

    Parameters
    ----------
    config
        The network that it is part of.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.operator = ABFN(config) if config.fusion == "abfn" else Concat(config)
        self.out = nn.Linear(config.token_dim, config.token_dim) if config.residual else None
        if self.out is not None:
            zero_(self.out)

    def forward(
        self, image: Tensor | None, gene: Tensor | None, image_valid: Tensor | None, gene_valid: Tensor | None
    ) -> Tensor:
        """Return (B, s, l) fused tokens.

        Parameters
        ----------
        image
            (B, s, l) float, or None; not both None.
        gene
            (B, s, l) float, or None.
        image_valid
            (B,) bool, the spots that have an image, or None where all have one.
        gene_valid
            (B,) bool, the spots that have genes, or None where all have them.
        """
        if image is None or gene is None:
            one = required(gene if image is None else image, "image or genes", reason="make the tokens to fuse")
            return self.operator(one, one) if self.out is None else one
        filled_image = _where(image_valid, image, gene)  # rows that lack one modality borrow the other
        filled_gene = _where(gene_valid, gene, image)
        fused = self.operator(filled_image, filled_gene)
        if self.out is None:
            return fused
        correction = self.out(fused)
        for valid in (image_valid, gene_valid):
            correction = _where(valid, correction, torch.zeros_like(correction))
        return filled_gene + correction


def _where(valid: Tensor | None, yes: Tensor, no: Tensor) -> Tensor:
    return yes if valid is None else torch.where(valid[:, None, None], yes, no)  # (B,) -> (B, 1, 1)
