"""Multi-head attention and the transformer block made of it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Scaled dot-product attention, eq. 7 and 8, split into heads.

    Parameters
    ----------
    dim
        l, width of the tokens.
    n_heads
        Number of heads.
    head_dim
        Width of a head; torch's own attention ties it to l / heads, which AE-Gene breaks.
    dropout
        Share of attention weights and of outputs dropped in training.
    """

    def __init__(self, dim: int, *, n_heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        inner = n_heads * head_dim
        self.query = nn.Linear(dim, inner, bias=False)  # W_q
        self.key = nn.Linear(dim, inner, bias=False)  # W_k
        self.value = nn.Linear(dim, inner, bias=False)  # W_v
        self.out = nn.Linear(inner, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Return what the tokens gather from the context.

        Parameters
        ----------
        x
            (B, s, l) float, the tokens that ask.
        context
            (B, t, l) float, the tokens that answer.

        Returns
        -------
        (B, s, l) float.
        """
        q, k, v = (self._split(y) for y in (self.query(x), self.key(context), self.value(context)))
        p = self.dropout if self.training else 0.0
        z = F.scaled_dot_product_attention(q, k, v, dropout_p=p)  # (B, heads, s, head_dim)
        return self.drop(self.out(z.transpose(1, 2).flatten(2)))  # (B, s, heads * head_dim) -> (B, s, l)

    def _split(self, y: Tensor) -> Tensor:
        return y.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B, t, heads * head_dim) -> (B, heads, t, head_dim)


class Block(nn.Module):
    """A pre-norm transformer layer: x + attention(norm(x)), then x + mlp(norm(x)).

    Parameters
    ----------
    dim
        l, width of the tokens.
    n_heads
        Number of heads.
    head_dim
        Width of a head.
    hidden
        Width of the feed-forward network.
    dropout
        Share dropped in training.
    identity
        Whether the last projections start at zero, so that the layer starts as the identity.
    """

    def __init__(
        self, dim: int, *, n_heads: int, head_dim: int, hidden: int, dropout: float, identity: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = Attention(dim, n_heads=n_heads, head_dim=head_dim, dropout=dropout)
        self.norm2 = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(dropout)
        if identity:
            zero_(self.attention.out)
            zero_(self.contract)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens after the layer.

        Parameters
        ----------
        x
            (B, s, l) float.
        """
        y = self.norm1(x)
        x = x + self.attention(y, y)
        y = self.drop(F.gelu(self.expand(self.norm2(x))))  # (B, s, hidden)
        return x + self.drop(self.contract(y))


def zero_(layer: nn.Linear) -> None:
    """Set a layer's weight and bias to zero, in place.

    Parameters
    ----------
    layer
        The layer.
    """
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
