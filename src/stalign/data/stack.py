"""Batches of several sections joined into one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from stalign.models.batch import Batch


def stack(batches: Sequence[Batch]) -> Batch:
    """Join batches of several sections into one.

    Parameters
    ----------
    batches
        Batches of one section each; a modality that one of them lacks is filled with zeros there and marked in
        `image_valid` or `gene_valid`, and ranks of the gene bases are padded with zeros.

    Returns
    -------
    The batch, whose `section` counts through the sections in order.
    """
    import torch

    from stalign.models.batch import Batch

    sizes = [len(b.section) for b in batches]
    rank = max((b.basis.shape[1] for b in batches if b.basis is not None), default=0)

    def join(name: str, *, width: int | None = None) -> torch.Tensor | None:
        parts = [getattr(b, name) for b in batches]
        given = [part for part in parts if part is not None]
        if not given:
            return None
        per_section = name in ("basis", "image_mean", "image_std")
        lengths = [1] * len(batches) if per_section else sizes
        full = []
        for part, length in zip(parts, lengths, strict=True):
            shape = list(given[0].shape)
            shape[0] = length
            if part is None:
                part = given[0].new_zeros(shape)
            if width is not None and part.shape[1] < width:
                shape = [part.shape[0], width - part.shape[1], *part.shape[2:]]
                part = torch.cat([part, part.new_zeros(shape)], dim=1)
            full.append(part)
        return torch.cat(full)

    def valid(name: str, mask: str) -> torch.Tensor | None:
        masks = []
        for b, size in zip(batches, sizes, strict=True):
            own = getattr(b, mask)
            if getattr(b, name) is None:
                own = torch.zeros(size, dtype=torch.bool)
            masks.append(torch.ones(size, dtype=torch.bool) if own is None else own)
        joined = torch.cat(masks)
        return None if bool(joined.all()) else joined

    return Batch(
        spot_image=join("spot_image"),
        niche_image=join("niche_image"),
        image_mean=join("image_mean"),
        image_std=join("image_std"),
        spot_gene=join("spot_gene", width=rank or None),
        niche_gene=join("niche_gene", width=rank or None),
        basis=join("basis", width=rank or None),
        section=torch.cat([b.section + index for index, b in enumerate(batches)]),
        image_valid=valid("spot_image", "image_valid"),
        gene_valid=valid("spot_gene", "gene_valid"),
    )
