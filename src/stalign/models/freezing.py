"""Which parts of a network stay as they are in training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign.models.branches import AEGene, GeneTable, TimmEncoder
from stalign.models.image_encoders import BackboneEncoder

if TYPE_CHECKING:
    from torch import nn

    from stalign.models.config import ModelConfig


def frozen_parts(
    config: ModelConfig, image_encoders: nn.ModuleDict, gene_encoders: nn.ModuleDict, gene_table: nn.Module | None
) -> list[nn.Module]:
    """List the parts that the configuration freezes.

    Parameters
    ----------
    config
        The network's.
    image_encoders, gene_encoders
        Its encoders by level.
    gene_table
        Its gene table, or None.

    Returns
    -------
    Backbones of frozen encoders; all encoders where the network is not adaptive, but for their tokens.
    """
    frozen: list[nn.Module] = []
    for level, encoder in image_encoders.items():
        spec = getattr(config, f"{level}_image")
        backbone = encoder.backbone if isinstance(encoder, BackboneEncoder) else None
        if backbone is not None and (not config.adaptive or (isinstance(spec, TimmEncoder) and spec.frozen)):
            frozen.append(backbone)
        if not config.adaptive and isinstance(getattr(config, f"{level}_gene"), GeneTable | AEGene):
            frozen.append(gene_encoders[level])
    return [*frozen, gene_table] if gene_table is not None and not config.adaptive else frozen
