"""ST-Align: four encoders, a fusion network per level, six heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from stalign._validate import message, one_of
from stalign.models.batch import Batch, Outputs, required
from stalign.models.branches import AEGene, GeneTable, TimmEncoder
from stalign.models.fusion import Fusion
from stalign.models.gene_encoders import Table, from_basis, gene_encoder, orthonormal
from stalign.models.heads import ProjectionHead, ResidualHead
from stalign.models.image_encoders import BackboneEncoder, image_encoder, standardise

if TYPE_CHECKING:
    from typing import Self

    from stalign.models.branches import GeneSpec, ImageSpec
    from stalign.models.config import ModelConfig

LEVELS = ("spot", "niche")


class Level(NamedTuple):
    """The embeddings of one level, (B, D) each; None where the modality is absent from the batch.

    `expression` is the expression itself, turned into the space of the gene table: distances between the spots of a
    section are those of their scores, whatever was learned.
    """

    fused: Tensor
    image: Tensor | None
    gene: Tensor | None
    expression: Tensor | None


class STAlign(nn.Module):
    """The network.

    Parameters
    ----------
    config
        Its shape: `MINI`, `ST_ALIGN`, or a variant of them.
    n_genes
        V, size of the gene vocabulary.

    Examples
    --------
    >>> import torch
    >>> from stalign.models import MINI, Batch, STAlign
    >>> network = STAlign(MINI, n_genes=100).eval()
    >>> batch = Batch(section=torch.zeros(2, dtype=torch.long), niche_gene=torch.rand(2, 100))
    >>> network.embed(batch).fused.shape
    torch.Size([2, 512])
    """

    def __init__(self, config: ModelConfig, n_genes: int) -> None:
        super().__init__()
        if n_genes < 1:
            raise ValueError(message("Expected at least one gene in the vocabulary", found=n_genes))
        self.config = config
        self.n_genes = n_genes
        self.image_encoders = nn.ModuleDict({lv: image_encoder(self._image_spec(lv), config) for lv in LEVELS})
        self.gene_encoders = nn.ModuleDict({lv: gene_encoder(self._gene_spec(lv), config, n_genes) for lv in LEVELS})
        tables = [spec for spec in map(self._gene_spec, LEVELS) if isinstance(spec, GeneTable)]
        self.gene_table = Table(n_genes, tables[0].width) if tables else None  # shared by both levels
        self.fusions = nn.ModuleDict({lv: Fusion(config) for lv in LEVELS})
        head = ResidualHead if config.residual else ProjectionHead
        self.heads = nn.ModuleDict(
            {f"{lv}_{kind}": head(config) for lv in LEVELS for kind in ("image", "gene", "fused")}
        )
        self._frozen = self._find_frozen()
        for module in self._frozen:
            module.requires_grad_(requires_grad=False)

    def forward(self, batch: Batch) -> Outputs:
        """Return the six projected embeddings.

        Parameters
        ----------
        batch
            Spots and niches, with images, genes or both.

        Raises
        ------
        ValueError
            If a level has neither images nor genes, or a tensor has the wrong shape.
        """
        projected = self._projected(batch)
        spot = self._level(batch, "spot", projected)
        niche = self._level(batch, "niche", projected)
        return Outputs(
            spot_image=spot.image,
            spot_gene=spot.gene,
            spot_fused=spot.fused,
            niche_image=niche.image,
            niche_gene=niche.gene,
            niche_fused=niche.fused,
            image_valid=batch.image_valid,
            gene_valid=batch.gene_valid,
        )

    def embed(self, batch: Batch, *, level: str = "niche") -> Level:
        """Return the embeddings of one level, without the cost of the other.

        Parameters
        ----------
        batch
            Spots or niches, with images, genes or both.
        level
            `niche` or `spot`.

        Raises
        ------
        ValueError
            If the level is unknown or has neither images nor genes.
        """
        one_of(level, LEVELS, name="level")
        projected = self._projected(batch)
        return self._level(batch, level, projected)

    def image_tokens(self, batch: Batch, *, level: str = "niche") -> Tensor:
        """Return what the image encoder of a level makes of its patches, which a batch takes in their place.

        Parameters
        ----------
        batch
            Spots or niches with images.
        level
            `niche` or `spot`.

        Returns
        -------
        (B, s, l) tokens.

        Raises
        ------
        ValueError
            If the level is unknown or has no images.
        """
        one_of(level, LEVELS, name="level")
        return required(self._image_tokens(batch, level), f"{level}_image", reason="is to be encoded")

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002
        """Switch to training; frozen encoders stay as they are, their batch norm included.

        Parameters
        ----------
        mode
            Whether to train.
        """
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def _projected(self, batch: Batch) -> Tensor | None:
        basis = batch.basis
        if basis is not None and (basis.ndim != 3 or basis.shape[2] != self.n_genes):
            raise ValueError(message(f"Expected a `basis` (S, r, {self.n_genes})", found=f"shape {tuple(basis.shape)}"))
        return None if self.gene_table is None else self.gene_table.project(basis)  # (S, r, V) -> (S, r, s * l)

    def _level(self, batch: Batch, level: str, projected: Tensor | None) -> Level:
        image = self._image_tokens(batch, level)  # (B, s, l)
        gene = self._gene_tokens(batch, level, projected)  # (B, s, l)
        if image is None and gene is None:
            found = f"neither `{level}_image` nor `{level}_gene`"
            raise ValueError(message(f"Expected images or genes for the {level} level of the batch", found=found))
        fused = self.fusions[level](image, gene, batch.image_valid, batch.gene_valid)  # (B, s, l)
        return Level(
            fused=self.heads[f"{level}_fused"](fused),  # (B, D)
            image=None if image is None else self.heads[f"{level}_image"](image),
            gene=None if gene is None else self.heads[f"{level}_gene"](gene),
            expression=self._turned(batch, level, projected),
        )

    def _turned(self, batch: Batch, level: str, projected: Tensor | None) -> Tensor | None:
        scores: Tensor | None = getattr(batch, f"{level}_gene")
        spec = self._gene_spec(level)
        if scores is None or projected is None or not isinstance(spec, GeneTable):
            return None
        if self.config.input.rank > spec.width:  # a narrower space cannot hold all distances
            return None
        return from_basis(scores, orthonormal(projected), batch.section)  # (B, r) -> (B, s * l)

    def _image_tokens(self, batch: Batch, level: str) -> Tensor | None:
        image: Tensor | None = getattr(batch, f"{level}_image")
        if image is None or image.ndim == 3:  # tokens, made before
            return image
        rows = _some(batch.image_valid)
        section = batch.section
        if rows is not None:  # batch norm must not see what is no tissue
            image, section = image[rows], section[rows]
        if image.ndim == 4:
            image = standardise(image, *self._colours(batch, section))
        tokens = self.image_encoders[level](image)
        if rows is None:
            return tokens
        return tokens.new_zeros(len(batch), *tokens.shape[1:]).index_copy(0, rows, tokens)

    def _colours(self, batch: Batch, section: Tensor) -> tuple[Tensor, Tensor]:
        like = next(self.heads.parameters())  # for device and dtype
        if self.config.input.stain == "imagenet":
            spec = self.config.input
            return like.new_tensor(spec.mean)[None], like.new_tensor(spec.std)[None]  # (1, 3)
        reason = "standardises the patches of each section"
        mean = required(batch.image_mean, "image_mean", reason=reason)
        std = required(batch.image_std, "image_std", reason=reason)
        return mean[section].to(like.dtype), std[section].to(like.dtype)  # (S, 3) -> (B, 3)

    def _gene_tokens(self, batch: Batch, level: str, projected: Tensor | None) -> Tensor | None:
        genes: Tensor | None = getattr(batch, f"{level}_gene")
        if genes is None:
            return None
        spec = self._gene_spec(level)
        if batch.gene_valid is not None:
            genes = torch.where(batch.gene_valid[:, None], genes, torch.zeros_like(genes))
        if isinstance(spec, GeneTable | AEGene):
            self._check_genes(genes, batch.basis, level)
        if isinstance(spec, GeneTable) and self.gene_table is not None:
            genes = self.gene_table(genes, projected, batch.section)  # (B, r) or (B, V) -> (B, s * l)
        elif isinstance(spec, AEGene) and batch.basis is not None:
            genes = from_basis(genes, batch.basis, batch.section)  # (B, r) -> (B, V)
        return self.gene_encoders[level](genes)

    def _check_genes(self, genes: Tensor, basis: Tensor | None, level: str) -> None:
        width = self.n_genes if basis is None else basis.shape[1]
        if genes.ndim != 2 or genes.shape[1] != width:
            raise ValueError(message(f"Expected `{level}_gene` (B, {width})", found=f"shape {tuple(genes.shape)}"))

    def _image_spec(self, level: str) -> ImageSpec:
        return self.config.spot_image if level == "spot" else self.config.niche_image

    def _gene_spec(self, level: str) -> GeneSpec:
        return self.config.spot_gene if level == "spot" else self.config.niche_gene

    def _backbone(self, level: str) -> nn.Module | None:
        encoder = self.image_encoders[level]
        return encoder.backbone if isinstance(encoder, BackboneEncoder) else None

    def _find_frozen(self) -> list[nn.Module]:
        frozen: list[nn.Module] = []
        for level in LEVELS:
            spec, backbone = self._image_spec(level), self._backbone(level)
            if backbone is not None and (not self.config.adaptive or (isinstance(spec, TimmEncoder) and spec.frozen)):
                frozen.append(backbone)
            if not self.config.adaptive and isinstance(self._gene_spec(level), GeneTable | AEGene):
                frozen.append(self.gene_encoders[level])
        if not self.config.adaptive and self.gene_table is not None:
            frozen.append(self.gene_table)
        return frozen


def _some(valid: Tensor | None) -> Tensor | None:
    """Return the rows to encode; None for all, also where none is valid, so that every rank builds the same graph."""
    return None if valid is None or valid.all() or not valid.any() else valid.nonzero().squeeze(1)


def n_parameters(network: nn.Module) -> int:
    """Return how many parameters a network has.

    Parameters
    ----------
    network
        Any module.
    """
    return sum(parameter.numel() for parameter in network.parameters())


def n_parameters_of(config: ModelConfig, n_genes: int) -> int:
    """Return how many parameters a configuration makes, without allocating them.

    Parameters
    ----------
    config
        The configuration.
    n_genes
        V, size of the gene vocabulary.
    """
    with torch.device("meta"):
        return n_parameters(STAlign(config, n_genes))
