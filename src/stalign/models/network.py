"""ST-Align: four encoders, a fusion network per level, six heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from stalign._validate import message, one_of
from stalign.models.batch import Batch, Outputs, required
from stalign.models.branches import AEGene, GeneTable
from stalign.models.freezing import frozen_parts
from stalign.models.fusion import Fusion
from stalign.models.gene_encoders import Table, from_basis, gene_encoder, orthonormal
from stalign.models.heads import ProjectionHead, ResidualHead
from stalign.models.image_encoders import image_encoder, standardise
from stalign.models.inputs import check_genes, colours, rows_to_encode

if TYPE_CHECKING:
    from typing import Self

    from stalign.models.branches import GeneSpec
    from stalign.models.config import ModelConfig

LEVELS = ("spot", "niche")


class Level(NamedTuple):
    """The embeddings of one level, (B, D) each; None where the modality is absent from the batch.

    `expression` is the expression itself, turned into the space of the gene table: distances between the spots of a
    section are those of their scores, whatever was learned. `embed` alone returns it.
    """

    fused: Tensor
    image: Tensor | None
    gene: Tensor | None
    expression: Tensor | None = None


class Bases(NamedTuple):
    """The gene bases of S sections in the space of the gene table, (S, r, w) each; None where a batch has none.

    `projected` is as learned, `turned` has orthonormal rows, so that distances stay.
    """

    projected: Tensor | None
    turned: Tensor | None


class STAlign(nn.Module):
    """The network: B spots of S sections, V genes, s tokens of width l, embeddings of width D. In the papers::

        image (B, 3, h, w)    AE-Img (spot, eq. 3), frozen encoder (niche, eq. 4)     tokens (B, s, l)
        genes (B, V)          frozen encoder (spot, eq. 5), AE-Gene (niche, eq. 6)    tokens (B, s, l)
        both tokens           fusion network of the level (eq. 7 to 9)                tokens (B, s, l)
        each of the three     its head                                                embedding (B, D)

    Parameters
    ----------
    config
        Its shape: `MINI`, `ST_ALIGN`, or a variant of them.
    n_genes
        V, size of the gene vocabulary.
    images
        Whether to make the encoders of images, which genes alone do without.

    Examples
    --------
    >>> import torch
    >>> from stalign.models import MINI, Batch, STAlign
    >>> network = STAlign(MINI, n_genes=100).eval()
    >>> batch = Batch(section=torch.zeros(2, dtype=torch.long), niche_gene=torch.rand(2, 100))
    >>> network.embed(batch).fused.shape
    torch.Size([2, 512])
    """

    def __init__(self, config: ModelConfig, n_genes: int, *, images: bool = True) -> None:
        super().__init__()
        if n_genes < 1:
            raise ValueError(message("Expected at least one gene in the vocabulary", found=n_genes))
        self.config = config
        self.n_genes = n_genes
        self.image_encoders = nn.ModuleDict(
            {lv: image_encoder(getattr(config, f"{lv}_image"), config) for lv in LEVELS if images}
        )
        self.gene_encoders = nn.ModuleDict({lv: gene_encoder(self._gene_spec(lv), config, n_genes) for lv in LEVELS})
        tables = [spec for spec in map(self._gene_spec, LEVELS) if isinstance(spec, GeneTable)]
        self.gene_table = Table(n_genes, tables[0].width) if tables else None  # shared by both levels
        self.fusions = nn.ModuleDict({lv: Fusion(config) for lv in LEVELS})
        head = ResidualHead if config.residual else ProjectionHead
        self.heads = nn.ModuleDict(
            {f"{lv}_{kind}": head(config) for lv in LEVELS for kind in ("image", "gene", "fused")}
        )
        self._frozen = frozen_parts(config, self.image_encoders, self.gene_encoders, self.gene_table)
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
        projected = self._projected(batch.basis)  # (S, r, s * l), gene bases in the space of the gene table
        spot = self._level(batch, "spot", projected)  # (B, D) each
        niche = self._level(batch, "niche", projected)  # (B, D) each
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

    def _level(self, batch: Batch, level: str, projected: Tensor | None) -> Level:
        image = self._image_tokens(batch, level)  # eq. 3 or 4: (B, 3, h, w) -> (B, s, l)
        gene = self._gene_tokens(batch, level, projected)  # eq. 5 or 6: (B, r) or (B, V) -> (B, s, l)
        if image is None and gene is None:
            found = f"neither `{level}_image` nor `{level}_gene`"
            raise ValueError(message(f"Expected images or genes for the {level} level of the batch", found=found))
        fused = self.fusions[level](image, gene, batch.image_valid, batch.gene_valid)  # eq. 7 to 9: (B, s, l)
        return Level(
            fused=self.heads[f"{level}_fused"](fused),  # (B, s, l) -> (B, D), compared across levels by eq. 11
            image=None if image is None else self.heads[f"{level}_image"](image),  # (B, D), with genes by eq. 10
            gene=None if gene is None else self.heads[f"{level}_gene"](gene),  # (B, D)
        )

    def _image_tokens(self, batch: Batch, level: str) -> Tensor | None:
        image: Tensor | None = getattr(batch, f"{level}_image")  # (B, 3, h, w), (B, d) features or (B, s, l) tokens
        if image is None or image.ndim == 3:
            return image
        rows, section = rows_to_encode(batch.image_valid), batch.section  # (b,) or None, (B,)
        if rows is not None:  # batch norm must not see what is no tissue
            image, section = image[rows], section[rows]  # (b, 3, h, w), (b,)
        if image.ndim == 4:
            like = next(self.heads.parameters())  # for device and dtype
            image = standardise(image, *colours(batch, section, self.config.input, like))  # (b, 3, h, w)
        tokens = self.image_encoders[level](image)  # (b, s, l)
        if rows is None:
            return tokens
        return tokens.new_zeros(len(batch), *tokens.shape[1:]).index_copy(0, rows, tokens)  # (b, s, l) -> (B, s, l)

    def _gene_tokens(self, batch: Batch, level: str, projected: Tensor | None) -> Tensor | None:
        genes: Tensor | None = getattr(batch, f"{level}_gene")  # (B, r) scores, (B, V) expression or (B, d) features
        if genes is None:
            return None
        spec = self._gene_spec(level)
        if batch.gene_valid is not None:
            genes = torch.where(batch.gene_valid[:, None], genes, torch.zeros_like(genes))
        if isinstance(spec, GeneTable | AEGene):
            check_genes(genes, batch.basis, self.n_genes, level)
        if isinstance(spec, GeneTable) and self.gene_table is not None:
            genes = self.gene_table(genes, projected, batch.section)  # (B, r) or (B, V) -> (B, s * l)
        elif isinstance(spec, AEGene) and batch.basis is not None:
            genes = from_basis(genes, batch.basis, batch.section)  # (B, r) -> (B, V)
        return self.gene_encoders[level](genes)  # (B, s, l)

    def _projected(self, basis: Tensor | None) -> Tensor | None:
        if basis is not None and (basis.ndim != 3 or basis.shape[2] != self.n_genes):
            raise ValueError(message(f"Expected a `basis` (S, r, {self.n_genes})", found=f"shape {tuple(basis.shape)}"))
        return None if self.gene_table is None else self.gene_table.project(basis)  # (S, r, V) -> (S, r, s * l)

    def bases(self, basis: Tensor | None, *, level: str = "niche") -> Bases:
        """Return what `embed` makes of the gene bases of sections, which batches of the same sections share.

        Parameters
        ----------
        basis
            (S, r, V) float, as in a batch; or None.
        level
            `niche` or `spot`.
        """
        projected, spec = self._projected(basis), self._gene_spec(level)
        # a narrower space cannot hold all distances
        wide = projected is not None and isinstance(spec, GeneTable) and self.config.input.rank <= spec.width
        return Bases(projected, orthonormal(projected) if projected is not None and wide else None)

    def embed(self, batch: Batch, *, level: str = "niche", bases: Bases | None = None) -> Level:
        """Return the embeddings of one level, without the cost of the other.

        Parameters
        ----------
        batch
            Spots or niches, with images, genes or both.
        level
            `niche` or `spot`.
        bases
            What `bases` returned for the same sections and level; None to compute it.

        Raises
        ------
        ValueError
            If the level is unknown or has neither images nor genes.
        """
        one_of(level, LEVELS, name="level")
        projected, turned = self.bases(batch.basis, level=level) if bases is None else bases
        scores: Tensor | None = getattr(batch, f"{level}_gene")  # (B, r)
        rotated = None if scores is None or turned is None else from_basis(scores, turned, batch.section)  # (B, s * l)
        return self._level(batch, level, projected)._replace(expression=rotated)

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

    def _gene_spec(self, level: str) -> GeneSpec:
        return self.config.spot_gene if level == "spot" else self.config.niche_gene


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
