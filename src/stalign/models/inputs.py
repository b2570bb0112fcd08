"""What the encoders read of a batch: which rows, standardised by which colours, of which width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign._validate import message
from stalign.models.batch import required

if TYPE_CHECKING:
    from torch import Tensor

    from stalign.models.batch import Batch
    from stalign.models.config import InputSpec


def rows_to_encode(valid: Tensor | None) -> Tensor | None:
    """Return the rows to encode; None for all, also where none is valid, so that every rank builds the same graph.

    Parameters
    ----------
    valid
        (B,) bool, or None where all are.
    """
    return None if valid is None or valid.all() or not valid.any() else valid.nonzero().squeeze(1)


def colours(batch: Batch, section: Tensor, spec: InputSpec, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread of the colours that patches are standardised by.

    Parameters
    ----------
    batch
        The batch, with those of its sections.
    section
        (b,) int64, the section of each patch.
    spec
        What the network reads.
    like
        A tensor of the device and the dtype wanted.

    Returns
    -------
    (b, 3) or (1, 3) float each, on the scale 0..1.

    Raises
    ------
    ValueError
        If the batch has none and they are those of the section.
    """
    if spec.stain == "imagenet":
        return like.new_tensor(spec.mean)[None], like.new_tensor(spec.std)[None]  # (1, 3)
    reason = "standardises the patches of each section"
    mean = required(batch.image_mean, "image_mean", reason=reason)
    std = required(batch.image_std, "image_std", reason=reason)
    return mean[section].to(like.dtype), std[section].to(like.dtype)  # (S, 3) -> (b, 3)


def check_genes(genes: Tensor, basis: Tensor | None, n_genes: int, level: str) -> None:
    """See that scores or expression have the width of the basis or of the vocabulary.

    Parameters
    ----------
    genes
        (B, r) or (B, V) float.
    basis
        (S, r, V) float, or None.
    n_genes
        V.
    level
        `niche` or `spot`.

    Raises
    ------
    ValueError
        If they have another.
    """
    width = n_genes if basis is None else basis.shape[1]
    if genes.ndim != 2 or genes.shape[1] != width:
        raise ValueError(message(f"Expected `{level}_gene` (B, {width})", found=f"shape {tuple(genes.shape)}"))
