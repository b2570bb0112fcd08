"""Configurations of the four branches, told apart by their `kind`."""

from __future__ import annotations

from typing import Annotated, Literal

from stalign.models.schema import Bool, Float, Int, configuration, key

Four = tuple[Int, Int, Int, Int]
Tokens = Annotated[
    Literal["linear", "conv"],
    key("how features become tokens: by a linear layer, or as in the authors' code"),
]


@configuration
class ConvEncoder:
    """A ResNet of timm, trained from scratch (AE-Img, eq. 3)."""

    channels: Annotated[Four, key("width of the four stages, before expansion")] = (32, 64, 128, 192)
    blocks: Annotated[Four, key("residual blocks of the four stages")] = (1, 1, 1, 1)
    block: Annotated[Literal["basic", "bottleneck"], key("kind of block; a bottleneck expands by 4")] = "basic"
    stem: Annotated[
        Literal["cifar", "strided", "imagenet"],
        key("first layer: 3x3 of stride 1, 3x3 of stride 2, or 7x7 of stride 2 and a max-pool"),
    ] = "cifar"
    features: Annotated[Int, key("width of a linear layer after the pool; 0 leaves it out (code: 2048 to 512)")] = 0
    tokens: Tokens = "linear"
    kind: Literal["conv"] = "conv"


@configuration
class TimmEncoder:
    """Any image model of timm on patches, new or pretrained, or given features computed before (eq. 4)."""

    name: Annotated[str, key('timm\'s name of the architecture, such as "vit_large_patch16_224" for UNI')]
    features: Annotated[Int, key("width of its pooled output")]
    init_values: Annotated[Float, key("layer scale of a ViT; 0 for none (UNI: 1e-5)")] = 0.0
    frozen: Annotated[Bool, key("whether its weights stay as they are (papers: pretrained; code: trainable)")] = True
    tokens: Tokens = "conv"
    weights: Annotated[
        str, key('what training starts from: "efficientnet-lite0", a file with timm\'s names, or "" for none')
    ] = ""
    stages: Annotated[
        tuple[Int, ...], key("of an EfficientNet: cut after the last, features are their means; [] for all")
    ] = ()
    rate: Annotated[Float, key("learning rate of its weights, where not frozen", "share of `lr`", gt=0)] = 1.0
    kind: Literal["timm"] = "timm"


@configuration
class Features:
    """Features computed once by a frozen encoder: UNI for niche images, scGPT for spot genes (eq. 4 and 5)."""

    dim: Annotated[Int, key("width of the features (UNI 1024, scGPT 512)")]
    tokens: Tokens = "conv"
    kind: Literal["features"] = "features"


@configuration
class GeneTable:
    """One vector per gene, summed with the expression as weight, then a small residual transformer over the tokens.

    The table starts close to an isometry and is shared by all branches that name one, so nothing that tells spots
    apart is lost before training.
    """

    width: Annotated[Int, key("length of a gene's vector; has to be n_tokens * token_dim")] = 512
    layers: Annotated[Int, key("transformer layers, each the identity at the start")] = 2
    hidden: Annotated[Int, key("width of their feed-forward networks")] = 128
    kind: Literal["gene_table"] = "gene_table"


@configuration
class AEGene:
    """AE-Gene (eq. 6): an MLP to one long vector, cut into tokens, and a transformer encoder."""

    hidden: Annotated[tuple[Int, ...], key("widths of the MLP (code: 4384 to 1024 to 512 to 4384)")] = (1024, 512)
    width: Annotated[Int, key("width of a token in the transformer (code: 4384 genes / 8 tokens)")] = 548
    layers: Annotated[Int, key("transformer layers (arXiv, section 4.1)")] = 6
    heads: Annotated[Int, key("attention heads (arXiv, section 4.1)")] = 8
    head_dim: Annotated[Int, key("width of a head (code)")] = 64
    mlp: Annotated[Int, key("width of the feed-forward networks (code)")] = 1024
    out_hidden: Annotated[Int, key("hidden width of the last MLP of each token (code: 548 to 256 to 512)")] = 256
    kind: Literal["ae_gene"] = "ae_gene"


ImageSpec = ConvEncoder | TimmEncoder | Features
GeneSpec = GeneTable | AEGene | Features
