"""What the network reads and what it returns."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    import torch


class Tensors:
    """A dataclass of tensors, some of which may be None."""

    def apply(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with a function applied to each tensor, such as a gather over ranks.

        Parameters
        ----------
        function
            Takes a tensor and returns a tensor.
        """
        own: Any = self
        values = {f.name: getattr(self, f.name) for f in fields(own)}
        return type(self)(**{n: function(value) if isinstance(value, Tensor) else value for n, value in values.items()})

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Return a copy on another device.

        Parameters
        ----------
        device
            A torch device.
        non_blocking
            Whether to copy from pinned memory without waiting.
        """
        return self.apply(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Return a copy in pinned memory, as the data loaders of torch ask for."""
        return self.apply(lambda tensor: tensor.pin_memory())


@dataclass
class Batch(Tensors):
    """B spots and their niches, from S sections.

    Each modality may be absent. A gene or image field may hold features of a frozen encoder instead, (B, d), where
    the configuration names `Features` or `TimmEncoder` for that branch.

    Parameters
    ----------
    section
        (B,) int64, which of the S sections a spot belongs to.
    spot_image
        (B, 3, h, w) uint8, or float on the scale 0..1, or (B, d) float features, or (B, s, l) tokens.
    niche_image
        (B, 3, H, W), likewise. Tokens are what `STAlign.image_tokens` returns.
    image_mean
        (S, 3) float, mean colour of each section on the scale 0..1. Read where the input spec says `stain="section"`.
    image_std
        (S, 3) float, spread of the colours of each section on the scale 0..1.
    spot_gene
        (B, r) float scores on the section's basis; (B, V) float expression where `basis` is None; or (B, d) features.
    niche_gene
        (B, r), (B, V) or (B, d) float, likewise.
    basis
        (S, r, V) float, so that the expression of spot i is `spot_gene[i] @ basis[section[i]]` over the V genes of the
        vocabulary. A gene that a section lacks is a column of zeros.
    image_valid
        (B,) bool, the spots that have an image, or None where all have one. What stands in the other rows is ignored.
    gene_valid
        (B,) bool, the spots that have genes, or None where all have them, likewise.
    """

    section: Tensor
    spot_image: Tensor | None = None
    niche_image: Tensor | None = None
    image_mean: Tensor | None = None
    image_std: Tensor | None = None
    spot_gene: Tensor | None = None
    niche_gene: Tensor | None = None
    basis: Tensor | None = None
    image_valid: Tensor | None = None
    gene_valid: Tensor | None = None

    def __len__(self) -> int:
        return len(self.section)


@dataclass
class Outputs(Tensors):
    """The projected embeddings of a batch, D wide; None where the modality is absent from the whole batch.

    Parameters
    ----------
    spot_image, spot_gene, spot_fused
        (B, D) float, the spot seen by its image, its genes and both.
    niche_image, niche_gene, niche_fused
        (B, D) float, the niche seen by its image, its genes and both.
    image_valid, gene_valid
        (B,) bool, the spots that have an image and genes, or None where all have them. Rows of `*_image` and `*_gene`
        that are not valid mean nothing; `*_fused` holds the other modality there.
    """

    spot_image: Tensor | None
    spot_gene: Tensor | None
    spot_fused: Tensor
    niche_image: Tensor | None
    niche_gene: Tensor | None
    niche_fused: Tensor
    image_valid: Tensor | None = None
    gene_valid: Tensor | None = None


def required(value: Tensor | None, name: str, *, reason: str) -> Tensor:
    """Return a tensor of the batch, or say why it is needed.

    Parameters
    ----------
    value
        The tensor, or None.
    name
        Its field in `Batch`.
    reason
        What needs it.

    Raises
    ------
    ValueError
        If the value is None.
    """
    if value is None:
        raise ValueError(message(f"Expected a batch with `{name}`, which {reason}", found="None"))
    return value
