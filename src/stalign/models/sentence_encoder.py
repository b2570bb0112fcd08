"""The text side of HiBio-ST: a transformer over gene tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.gene_tokens import EOT

if TYPE_CHECKING:
    from stalign.models.hibio_config import TextTower

_SPREAD, _PLACES = 0.02, 0.01  # standard deviations of tokens and positions at the start (OpenCLIP)


class SentenceEncoder(nn.Module):
    """Tokens (B, T) to features (B, w).

    Parameters
    ----------
    config
        Its shape.
    n_tokens
        N, special tokens, those of metadata and genes.
    """

    def __init__(self, config: TextTower, n_tokens: int) -> None:
        super().__init__()
        self.config = config
        self.table = nn.Embedding(n_tokens, config.width)  # e_g of eq. 6, beside special tokens and metadata
        self.places = nn.Parameter(torch.empty(config.context, config.width))
        layer = nn.TransformerEncoderLayer(
            config.width,
            config.heads,
            dim_feedforward=4 * config.width,
            dropout=config.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(config.width)
        self.transformer = nn.TransformerEncoder(layer, config.layers, norm=norm, enable_nested_tensor=False)
        nn.init.normal_(self.table.weight, std=_SPREAD)
        nn.init.normal_(self.places, std=_PLACES)
        for weight in self.transformer.parameters():  # layers are copies of one; each gets numbers of its own
            if weight.ndim > 1:
                nn.init.xavier_uniform_(weight)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the features of texts.

        Parameters
        ----------
        tokens
            (B, T) int64, T up to the context.
        mask
            (B, T) bool, tokens that are no padding.

        Returns
        -------
        (B, w): those at `[EOT]`, or their mean over all tokens where `pool` is "mean".

        Raises
        ------
        ValueError
            If a text is longer than the context.
        """
        length = tokens.shape[1]
        if length > len(self.places):
            raise ValueError(message(f"Expected at most {len(self.places)} tokens, the context", found=length))
        x = self.table(tokens) + self.places[:length]  # (B, T) -> (B, T, w)
        if self.config.causal:  # padding comes last, so nothing before it sees it
            later = nn.Transformer.generate_square_subsequent_mask(length, device=x.device, dtype=x.dtype)
            x = self.transformer(x, mask=later, is_causal=True)
        else:
            x = self.transformer(x, src_key_padding_mask=~mask)
        if self.config.pool == "eot":
            return x[torch.arange(len(x), device=x.device), (tokens == EOT).int().argmax(1)]  # (B, T, w) -> (B, w)
        there = mask[..., None].to(x.dtype)
        return (x * there).sum(1) / there.sum(1).clamp(min=1)  # (B, T, w) -> (B, w)
