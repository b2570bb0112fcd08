"""Networks that timm does not have: the vision tower of CONCH and the Swin transformer of CTransPath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

if TYPE_CHECKING:
    from stalign.encoders.card import Card


class AttentionPool(nn.Module):
    """Learned queries that attend to tokens (CONCH, Lu et al. 2024; after CoCa).

    Parameters
    ----------
    width
        Length of a query and of the output.
    context
        Length of a token.
    heads
        Attention heads.
    queries
        Number of learned queries.
    """

    def __init__(self, width: int, context: int, *, heads: int = 8, queries: int = 1) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(queries, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=context, vdim=context, batch_first=True)
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(context)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Pool tokens.

        Parameters
        ----------
        tokens
            (B, n, context).

        Returns
        -------
        (B, queries, width).
        """
        keys = self.ln_k(tokens)
        queries = self.ln_q(self.query).expand(len(tokens), -1, -1)
        found: torch.Tensor = self.attn(queries, keys, keys, need_weights=False)[0]
        return found


class Conch(nn.Module):
    """The vision tower of CONCH: trunk, contrastive attention pool, norm, and the projection that meets its text.

    Parameters
    ----------
    width
        Length of the embedding.
    project
        Whether to project into the space shared with the text.
    trunk
        Arguments of timm's VisionTransformer.
    """

    def __init__(self, width: int, *, project: bool = False, **trunk: Any) -> None:
        super().__init__()
        self.project = project
        self.trunk = VisionTransformer(num_classes=0, **trunk)
        self.attn_pool_contrast = AttentionPool(width, self.trunk.embed_dim)
        self.ln_contrast = nn.LayerNorm(width)
        self.proj_contrast = nn.Parameter(torch.randn(width, width) / self.trunk.embed_dim**0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Encode images.

        Parameters
        ----------
        x
            Normalised images, (B, 3, H, W).

        Returns
        -------
        Embeddings, (B, width).
        """
        tokens = self.trunk.forward_features(x)  # (B, 1 + patches, context)
        pooled = self.ln_contrast(self.attn_pool_contrast(tokens)[:, 0])
        found: torch.Tensor = pooled @ self.proj_contrast if self.project else pooled
        return found


class ConvStem(nn.Module):
    """Two strided convolutions and a projection in place of Swin's patch embedding (CTransPath, Wang et al. 2022).

    Parameters
    ----------
    img_size, patch_size, in_chans, embed_dim, norm_layer
        As timm's SwinTransformer passes them; a patch is 4 px wide.
    unused
        Further arguments of timm's patch embedding.
    """

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Any = None,
        **unused: Any,
    ) -> None:
        super().__init__()
        del unused
        side = (img_size if isinstance(img_size, int) else img_size[0]) // patch_size
        self.grid_size = (side, side)
        self.num_patches = side * side
        narrow, wide = embed_dim // 8, embed_dim // 4
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, narrow, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(inplace=True),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(inplace=True),
            nn.Conv2d(wide, embed_dim, 1),
        )
        self.norm = norm_layer(embed_dim) if norm_layer else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed patches of 4 px.

        Parameters
        ----------
        x
            Images, (B, 3, H, W).

        Returns
        -------
        (B, H / 4, W / 4, embed_dim).
        """
        found: torch.Tensor = self.norm(self.proj(x).permute(0, 2, 3, 1))
        return found


def conch(card: Card, **changes: Any) -> Conch:
    """Build the vision tower of CONCH.

    Parameters
    ----------
    card
        The encoder.
    changes
        Arguments of the trunk that differ.

    Returns
    -------
    The network.
    """
    trunk = {"img_size": card.input_px, "patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12}
    return Conch(card.width, project=card.options.get("project", False), **{**trunk, **changes})


def ctranspath(card: Card, **changes: Any) -> nn.Module:
    """Build the Swin transformer of CTransPath.

    Parameters
    ----------
    card
        The encoder.
    changes
        Arguments of timm's SwinTransformer that differ.

    Returns
    -------
    The network.
    """
    given = {"img_size": card.input_px, "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
    return SwinTransformer(embed_layer=ConvStem, num_classes=0, **{**given, **changes})
