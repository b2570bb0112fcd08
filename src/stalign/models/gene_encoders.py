"""Gene encoders: an expression profile to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.attention import Block
from stalign.models.branches import AEGene, Features, GeneTable
from stalign.models.tokens import Tokens

if TYPE_CHECKING:
    from stalign.models.branches import GeneSpec
    from stalign.models.config import ModelConfig


def gene_encoder(spec: GeneSpec, config: ModelConfig, n_genes: int) -> nn.Module:
    """Build the encoder that a specification describes.

    Parameters
    ----------
    spec
        The encoder.
    config
        The network that it is part of.
    n_genes
        V, size of the vocabulary.
    """
    if isinstance(spec, GeneTable):
        return TableEncoder(spec, config)
    if isinstance(spec, AEGene):
        return AEGeneEncoder(spec, config, n_genes)
    return FeatureEncoder(spec, config)


def from_basis(scores: Tensor, matrices: Tensor, section: Tensor) -> Tensor:
    """Multiply each row of scores by the matrix of its own section.

    Parameters
    ----------
    scores
        (B, r) float.
    matrices
        (S, r, w) float, one matrix per section.
    section
        (B,) int64 in 0..S-1.

    Returns
    -------
    (B, w) float, `scores[i] @ matrices[section[i]]`.
    """
    n_sections = len(matrices)
    if n_sections == 1:
        return scores @ matrices[0]
    own = F.one_hot(section, n_sections).to(scores.dtype)  # (B, S)
    blocks = own[:, :, None] * scores[:, None, :]  # (B, S, r), zero but in the spot's own section
    return blocks.flatten(1) @ matrices.flatten(0, 1)  # (B, S * r) @ (S * r, w)


def orthonormal(matrices: Tensor) -> Tensor:
    """Return the nearest matrices whose rows are orthonormal, so that rows times them keep their distances exactly.

    Parameters
    ----------
    matrices
        (S, r, w) float, r at most w.

    Returns
    -------
    (S, r, w) float, the polar factors.
    """
    u, _, vh = torch.linalg.svd(matrices.double(), full_matrices=False)
    return (u @ vh).to(matrices.dtype)


class Table(nn.Module):
    """One vector per gene, E (V, w), drawn from N(0, 1) so that x -> x E / sqrt(w) nearly keeps distances at the start.

    Parameters
    ----------
    n_genes
        V.
    width
        w.
    """

    def __init__(self, n_genes: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_genes, width))
        if not self.weight.is_meta:  # where torch would import its compiler, a second or two, to draw nothing
            nn.init.normal_(self.weight)

    def project(self, basis: Tensor | None) -> Tensor | None:
        """Return the basis of each section in the space of the table, once for both levels.

        Parameters
        ----------
        basis
            (S, r, V) float, or None.

        Returns
        -------
        (S, r, w) float, or None.
        """
        return None if basis is None else basis @ self.weight

    def forward(self, genes: Tensor, projected: Tensor | None, section: Tensor) -> Tensor:
        """Return (B, w) float, the expression-weighted sum of the genes' vectors.

        Parameters
        ----------
        genes
            (B, r) float scores, or (B, V) float expression where `projected` is None.
        projected
            (S, r, w) float, what `project` returned.
        section
            (B,) int64.
        """
        return genes @ self.weight if projected is None else from_basis(genes, projected, section)


class TableEncoder(nn.Module):
    """(B, w) sums of gene vectors to (B, s, l) tokens: cut, then a transformer that starts as the identity.

    Parameters
    ----------
    spec
        The encoder.
    config
        The network that it is part of.
    """

    def __init__(self, spec: GeneTable, config: ModelConfig) -> None:
        super().__init__()
        self.shape = (config.n_tokens, config.token_dim)
        self.blocks = nn.ModuleList(
            Block(
                config.token_dim,
                n_heads=config.n_heads,
                head_dim=config.head_dim,
                hidden=spec.hidden,
                dropout=config.dropout,
                identity=True,
            )
            for _ in range(spec.layers)
        )

    def forward(self, genes: Tensor) -> Tensor:
        """Return (B, s, l) tokens.

        Parameters
        ----------
        genes
            (B, w) float, what `Table` returned.
        """
        x = genes.unflatten(1, self.shape)  # (B, s * l) -> (B, s, l)
        for block in self.blocks:
            x = block(x)
        return x


class AEGeneEncoder(nn.Module):
    """AE-Gene, eq. 6: (B, V) expression to (B, s, l) tokens, without positions and without a last norm.

    Parameters
    ----------
    spec
        The encoder.
    config
        The network that it is part of.
    n_genes
        V.
    """

    def __init__(self, spec: AEGene, config: ModelConfig, n_genes: int) -> None:
        super().__init__()
        self.shape = (config.n_tokens, spec.width)
        widths = [n_genes, *spec.hidden, config.n_tokens * spec.width]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.blocks = nn.Sequential(
            *(
                Block(spec.width, n_heads=spec.heads, head_dim=spec.head_dim, hidden=spec.mlp, dropout=config.dropout)
                for _ in range(spec.layers)
            )
        )
        self.out = nn.Sequential(
            nn.Linear(spec.width, spec.out_hidden), nn.ReLU(), nn.Linear(spec.out_hidden, config.token_dim)
        )

    def forward(self, genes: Tensor) -> Tensor:
        """Return (B, s, l) tokens.

        Parameters
        ----------
        genes
            (B, V) float.
        """
        x = self.mlp(genes).unflatten(1, self.shape)  # (B, V) -> (B, s * width) -> (B, s, width)
        return self.out(self.blocks(x))  # (B, s, width) -> (B, s, l)


class FeatureEncoder(nn.Module):
    """(B, d) features of a frozen gene encoder, such as scGPT, to (B, s, l) tokens.

    Parameters
    ----------
    spec
        The encoder.
    config
        The network that it is part of.
    """

    def __init__(self, spec: Features, config: ModelConfig) -> None:
        super().__init__()
        self.n_features = spec.dim
        self.tokens = Tokens(spec.dim, n_tokens=config.n_tokens, token_dim=config.token_dim, kind=spec.tokens)

    def forward(self, genes: Tensor) -> Tensor:
        """Return (B, s, l) tokens.

        Parameters
        ----------
        genes
            (B, d) float.

        Raises
        ------
        ValueError
            If the features have another width.
        """
        if genes.shape[1:] != (self.n_features,):
            expected = f"Expected features (B, {self.n_features}) for this gene encoder"
            raise ValueError(message(expected, found=f"shape {tuple(genes.shape)}"))
        return self.tokens(genes)
