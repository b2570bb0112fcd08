"""ST-Align in training: forward pass, gathered negatives and losses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stalign.models.branches import TimmEncoder
from stalign.models.losses import AlignmentLoss, shared_niches
from stalign.train.augment import augment
from stalign.train.ranks import joined, several, widest
from stalign.train.steps import TrainingModule, decays, grouped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stalign.models.batch import Outputs
    from stalign.models.config import LossConfig
    from stalign.models.network import STAlign
    from stalign.train.dataset import StepBatch
    from stalign.train.options import OptimConfig


class AlignModule(TrainingModule):
    """Trains ST-Align on batches of spots and niches.

    Parameters
    ----------
    network
        The network.
    optim
        The optimiser and its schedules.
    loss
        Losses to train with; None takes those of the network's configuration.
    more
        See `TrainingModule`.
    """

    term_names: ClassVar = ("total", "spot", "niche", "cross")
    value_names: ClassVar = ("temperature",)

    def __init__(self, network: STAlign, optim: OptimConfig, *, loss: LossConfig | None = None, **more: Any) -> None:
        super().__init__(optim, **more)
        self.network = network
        self.loss = AlignmentLoss(loss or network.config.loss)

    def terms(self, batch: StepBatch) -> dict[str, Tensor]:
        """Return the terms of the loss.

        Parameters
        ----------
        batch
            The spots of this process.

        Returns
        -------
        The terms by name, among them `total`. Each process compares its spots with those of all processes, and the
        mean over processes is the loss of the whole batch.
        """
        spots = batch.batch if batch.draws is None else augment(batch.batch, batch.draws)
        outputs = self.network(spots)
        negatives = None if batch.negatives is None else self.network(batch.negatives)
        keys, offset, members = outputs, 0, batch.members
        if several():
            offset = dist.get_rank() * len(batch)
            outputs = _masked(outputs)
            keys = outputs.apply(lambda x: joined(x.float() if x.is_floating_point() else x))
            members = None if members is None else _joined_members(members)
        exclude = None if members is None or batch.members is None else shared_niches(batch.members, members)
        return self.loss(outputs, keys=keys, offset=offset, negatives=negatives, exclude=exclude)

    def values(self) -> dict[str, Tensor | float]:
        """Return the temperature of the losses."""
        return {"temperature": torch.as_tensor(self.loss.temperature).detach().clone()}

    def groups(self) -> list[dict[str, Any]]:
        """Group the parameters by weight decay and share of the learning rate."""
        shape, optim = self.network.config, self.optim
        rates = {
            f"image_encoders.{level}.backbone.": spec.rate
            for level, spec in (("spot", shape.spot_image), ("niche", shape.niche_image))
            if isinstance(spec, TimmEncoder)
        }
        return parameter_groups(self, decay_gene_table=optim.decay_gene_table, anchor=optim.anchor, rates=rates)


def _masked(outputs: Outputs) -> Outputs:
    """Write out masks that are None as all spots are valid: on another process they may not be."""
    ones = torch.ones(len(outputs.spot_fused), dtype=torch.bool, device=outputs.spot_fused.device)
    image, gene = (ones if mask is None else mask for mask in (outputs.image_valid, outputs.gene_valid))
    return replace(outputs, image_valid=image, gene_valid=gene)


def _joined_members(members: Tensor) -> Tensor:
    """Join niche members of all processes, whose widths may differ."""
    wanted = widest(members.shape[1], members)
    return joined(nn.functional.pad(members, (0, wanted - members.shape[1]), value=-1))


def parameter_groups(
    module: nn.Module, *, decay_gene_table: bool, anchor: float = 1.0, rates: Mapping[str, float] | None = None
) -> list[dict[str, Any]]:
    """Split trained parameters by weight decay and by learning rate.

    Parameters
    ----------
    module
        The module.
    decay_gene_table
        Whether the table of gene vectors decays.
    anchor
        Share of the learning rate that all but the image encoders have.
    rates
        Share of the learning rate by a part of parameters' names, such as that of a pretrained backbone.

    Returns
    -------
    Groups for the optimiser that are not empty; `decays` says whether weight decay acts on it, `share` is its share of
    the learning rate.
    """
    trained = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            spared = "gene_table" in name and not decay_gene_table
            share = 1.0 if "image_encoders" in name else anchor
            share = next((rate for part, rate in (rates or {}).items() if part in name), share)
            trained.append((parameter, decays(name, parameter) and not spared, share))
    return grouped(trained)
