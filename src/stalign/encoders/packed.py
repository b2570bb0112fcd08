"""A transformer over cells packed end to end, so that no work is done on padding.

Linear layers run over all tokens of a batch at once, attention over runs of cells of equal length. Cells are sorted by
length before they are packed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Run = tuple[int, int, int]  # first token, cells, tokens of each cell

TOKENS = 16_384  # tokens packed into one forward pass; bounds memory at about 0.5 GB


class Attention(nn.Module):
    """Self-attention within each cell; parameters are named as in torch's own.

    Parameters
    ----------
    width
        Length of a token.
    heads
        Attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: torch.Tensor, runs: Sequence[Run], *, first_only: bool) -> torch.Tensor:
        """Attend.

        Parameters
        ----------
        x
            Tokens, (tokens, width).
        runs
            Which tokens make up which cells.
        first_only
            Whether only the first token of each cell asks.

        Returns
        -------
        (tokens, width), or (cells, width) with `first_only`.
        """
        parts = []
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (tokens, 3 * width)
        for start, n, length in runs:
            qkv = packed[start : start + n * length].view(n, length, 3, self.heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (n, heads, length, width / heads)
            out = F.scaled_dot_product_attention(q[:, :, :1] if first_only else q, k, v)
            parts.append(out.transpose(1, 2).reshape(-1, x.shape[1]))  # (n * queries, width)
        mixed: torch.Tensor = self.out_proj(torch.cat(parts))
        return mixed


class Block(nn.Module):
    """A layer that normalises after each sum, with ReLU.

    Parameters
    ----------
    width
        Length of a token.
    heads
        Attention heads.
    hidden
        Width of the feed-forward layer.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor, runs: Sequence[Run], *, first_only: bool = False) -> torch.Tensor:
        """Run the layer.

        Parameters
        ----------
        x
            Tokens, (tokens, width).
        runs
            Which tokens make up which cells.
        first_only
            Whether only the first token of each cell goes on.

        Returns
        -------
        (tokens, width), or (cells, width) with `first_only`.
        """
        attended = self.self_attn(x, runs, first_only=first_only)
        if first_only:
            x = torch.cat([x[start : start + n * length : length] for start, n, length in runs])
        x = self.norm1(x + attended)
        found: torch.Tensor = self.norm2(x + self.linear2(F.relu(self.linear1(x))))
        return found


def find_runs(lengths: Sequence[int]) -> Iterator[Run]:
    """Find neighbouring cells of equal length.

    Parameters
    ----------
    lengths
        Tokens of each cell, in the order in which they are packed.

    Yields
    ------
    First token, number of cells and tokens of each of them.
    """
    start = first = 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or lengths[i] != lengths[first]:
            yield start, i - first, lengths[first]
            start += (i - first) * lengths[first]
            first = i


def batches(cells: Sequence[Any], lengths: Sequence[int]) -> Iterator[list[Any]]:
    """Split cells into batches of a bounded number of tokens.

    Parameters
    ----------
    cells
        Anything.
    lengths
        Tokens of each cell.

    Yields
    ------
    Neighbouring cells of at most `TOKENS` tokens together, at least one.
    """
    batch: list[Any] = []
    tokens = 0
    for cell, length in zip(cells, lengths, strict=True):
        if batch and tokens + length > TOKENS:
            yield batch
            batch, tokens = [], 0
        batch.append(cell)
        tokens += length
    if batch:
        yield batch
