"""HiBio-ST: an image tower and a sentence encoder that share a space, and a head for pathways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.batch import Tensors, required
from stalign.models.branches import TimmEncoder
from stalign.models.gene_tokens import SPECIAL
from stalign.models.image_encoders import backbone, features_of, standardise
from stalign.models.sentence_encoder import SentenceEncoder

if TYPE_CHECKING:
    from typing import Self

    from stalign.models.hibio_config import HiBioConfig

LARGEST_SCALE = math.log(100)  # as in CLIP


@dataclass
class SentenceBatch(Tensors):
    """B spots with patches and gene sentences. Each side may be absent.

    Parameters
    ----------
    image
        (B, 3, H, W) uint8, or float on the scale 0..1; or (B, f) float features of the image tower.
    tokens
        (B, T) int64, as `GeneTokens.encode` returns them.
    mask
        (B, T) bool, tokens that are no padding.
    image_valid, gene_valid
        (B,) bool, spots that have an image and a sentence, or None where all have them.
    pathways
        (B, J) int64, sets of each spot, positives and drawn negatives, filled up with -1; None without pathways.
    overlap
        (B, J) float, their weights w (eq. 5), 0 for negatives.
    region
        (B,) int64, regions, numbered over all sections, or -1; None before regions are made.
    sections
        Names of the sections that the spots are from, for messages.
    """

    image: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    image_valid: Tensor | None = None
    gene_valid: Tensor | None = None
    pathways: Tensor | None = None
    overlap: Tensor | None = None
    region: Tensor | None = None
    sections: tuple[str, ...] = ()

    def __len__(self) -> int:
        for tensor in (self.image, self.tokens):
            if tensor is not None:
                return len(tensor)
        return 0


@dataclass
class PairOutputs(Tensors):
    """What the network makes of a batch; None where the side is absent.

    Parameters
    ----------
    image, gene
        v and t, (B, d) unit vectors.
    predicted
        h(v), (B, w), what the pathway head makes of images, for the vectors of pathways.
    image_valid, gene_valid
        (B,) bool, rows of `image` and `gene` that mean something, or None for all.
    region
        (B,) int64, or None, from the batch.
    positive
        (B,) bool, spots with an image and a pathway that they overlap with; None without pathways.
    """

    image: Tensor | None = None
    gene: Tensor | None = None
    predicted: Tensor | None = None
    image_valid: Tensor | None = None
    gene_valid: Tensor | None = None
    region: Tensor | None = None
    positive: Tensor | None = None


class HiBioST(nn.Module):
    """The network: B spots, T tokens of N, images of f features, a space of width d, gene vectors of width w::

        image (B, 3, H, W)   image tower      features (B, f)   projection   v (B, d)   h(v) (B, w), to pathways
        tokens (B, T)        text tower       features (B, w)   projection   t (B, d)
        gene vectors (N, w)  mean over genes  pathways (P, w), eq. 6

    Parameters
    ----------
    config
        Its shape: `HIBIO_ST`, `HIBIO_MINI`, or a variant of them.
    n_genes
        V, size of the gene vocabulary; its N tokens are these, those of organs and diseases, and four special ones.

    Examples
    --------
    >>> import torch
    >>> from stalign.models.hibio import HiBioST, SentenceBatch
    >>> from stalign.models.hibio_config import HIBIO_MINI
    >>> network = HiBioST(HIBIO_MINI, n_genes=100).eval()
    >>> network(SentenceBatch(image=torch.zeros(2, 3, 64, 64, dtype=torch.uint8))).image.shape
    torch.Size([2, 64])
    """

    idf: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: HiBioConfig, n_genes: int) -> None:
        super().__init__()
        self.config = config
        self.n_genes = n_genes
        n_tokens = len(SPECIAL) + len(config.words) + n_genes
        self.n_features = features_of(config.image)
        dim, width = config.dim, config.text.width
        self.image_tower = backbone(config.image)  # None where features come
        self.text_tower = SentenceEncoder(config.text, n_tokens)
        self.image_projection = nn.Linear(self.n_features, dim, bias=False)
        self.text_projection = nn.Linear(width, dim, bias=False)
        self.pathway_head = nn.Sequential(
            nn.Linear(dim, config.head_hidden), nn.GELU(), nn.Linear(config.head_hidden, width)
        )
        start = torch.tensor(math.log(1 / config.loss.temperature))
        self.logit_scale = nn.Parameter(start, requires_grad=config.loss.learn_temperature)
        for projection, n_in in ((self.image_projection, self.n_features), (self.text_projection, width)):
            nn.init.normal_(projection.weight, std=n_in**-0.5)
        self.register_buffer("idf", torch.zeros(n_genes))  # of the training corpus (eq. 3)
        self.register_buffer("mean", torch.tensor([config.input.mean]), persistent=False)
        self.register_buffer("std", torch.tensor([config.input.std]), persistent=False)
        self._frozen = isinstance(config.image, TimmEncoder) and config.image.frozen
        if self._frozen:
            self.image_tower.requires_grad_(requires_grad=False)  # type: ignore[union-attr]

    def forward(self, batch: SentenceBatch) -> PairOutputs:
        """Embed the sides that a batch has.

        Parameters
        ----------
        batch
            Spots with images, sentences or both.
        """
        image = None if batch.image is None else self.embed_image(batch.image)  # v: (B, 3, H, W) -> (B, d)
        gene = None if batch.tokens is None else self.embed_text(batch.tokens, batch.mask)  # t: (B, T) -> (B, d)
        positive = None
        if batch.overlap is not None:
            positive = (batch.overlap > 0).any(1)  # (B, J) -> (B,)
            positive = positive if batch.image_valid is None else positive & batch.image_valid
        return PairOutputs(
            image=image,
            gene=gene,
            predicted=None if image is None else self.pathway_head(image),  # h(v): (B, d) -> (B, w)
            image_valid=batch.image_valid,
            gene_valid=batch.gene_valid,
            region=batch.region,
            positive=positive,
        )

    def image_features(self, image: Tensor) -> Tensor:
        """Return what the image tower makes of patches, which a batch takes in their place.

        Parameters
        ----------
        image
            (B, 3, H, W) uint8, or float on the scale 0..1; or (B, f) features, which are returned as they are.

        Returns
        -------
        (B, f).

        Raises
        ------
        ValueError
            If the shape is neither, or patches come where there is no tower.
        """
        if image.ndim == 2 and image.shape[1] == self.n_features:
            return image
        if image.ndim != 4 or image.shape[1] != 3 or self.image_tower is None:
            patches = "" if self.image_tower is None else "patches (B, 3, h, w) or "
            expected = f"Expected {patches}features (B, {self.n_features}) for the image tower"
            raise ValueError(message(expected, found=f"shape {tuple(image.shape)}"))
        return self.image_tower(standardise(image, self.mean, self.std))

    def embed_image(self, image: Tensor) -> Tensor:
        """Return v, (B, d) unit vectors.

        Parameters
        ----------
        image
            Patches or features, as `image_features` takes them.
        """
        return _unit(self.image_projection(self.image_features(image)))  # (B, f) -> (B, d)

    def embed_text(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return t, (B, d) unit vectors.

        Parameters
        ----------
        tokens
            (B, T) int64.
        mask
            (B, T) bool, tokens that are no padding.
        """
        features = self.text_tower(tokens, required(mask, "mask", reason="tells tokens from padding"))
        return _unit(self.text_projection(features))  # (B, w) -> (B, d)

    def prototypes(self, genes: Tensor, offsets: Tensor) -> Tensor:
        """Return the vectors of pathways, the means of their genes' (eq. 6).

        Parameters
        ----------
        genes
            (m,) int64, tokens of the genes of all pathways, one pathway after the other.
        offsets
            (P,) int64, where each pathway starts.

        Returns
        -------
        (P, w).
        """
        return F.embedding_bag(genes, self.text_tower.table.weight, offsets, mode="mean")

    def scale(self) -> Tensor:
        """Return the factor of cosines, the inverse of the temperature, at most 100."""
        return self.logit_scale.clamp(max=LARGEST_SCALE).exp()

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Switch to training; a frozen image tower stays as it is, its batch norm included.

        Parameters
        ----------
        mode
            Whether to train.
        """
        super().train(mode)
        if self._frozen and self.image_tower is not None:
            self.image_tower.eval()
        return self


def _unit(x: Tensor) -> Tensor:
    """Scale rows to unit length, in float32."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)
