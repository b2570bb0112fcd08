"""The Lightning module: forward pass, gathered negatives, losses, optimiser and its schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.config import TimmEncoder
from stalign.models.losses import AlignmentLoss, shared_niches
from stalign.train.augment import augment
from stalign.train.callbacks import DIVERGED
from stalign.train.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stalign.models.batch import Outputs
    from stalign.models.config import LossConfig
    from stalign.models.network import STAlign
    from stalign.train.config import OptimConfig
    from stalign.train.dataset import StepBatch


class AlignModule(pl.LightningModule):
    """Trains a network on batches of spots and niches.

    Parameters
    ----------
    network
        The network.
    optim
        The optimiser and its schedules.
    steps
        Optimiser steps of the whole run.
    warmup
        Steps of the warm-up.
    batch_size
        Spots a step over all processes, which the learning rate is scaled by.
    loss
        Losses to train with; None takes those of the network's configuration.
    seed
        Seed of dropout.
    fingerprint
        What a resumed run has to have in common with this one.
    advice
        What to do about a loss that is not finite.
    """

    def __init__(
        self,
        network: STAlign,
        optim: OptimConfig,
        *,
        steps: int,
        warmup: int,
        batch_size: int,
        loss: LossConfig | None = None,
        seed: int = 0,
        fingerprint: dict[str, Any] | None = None,
        advice: str = DIVERGED,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = AlignmentLoss(loss or network.config.loss)
        self.optim = optim
        self.seed = seed
        self.fingerprint = fingerprint or {}
        self.advice = advice
        self.rate = Schedule(optim.lr * batch_size / optim.lr_batch, optim.min_lr, steps=steps, warmup=warmup)
        self.decay = Schedule(optim.weight_decay, optim.weight_decay_end, steps=steps)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make AdamW with groups of parameters by weight decay and share of the learning rate."""
        optim = self.optim
        shape = self.network.config
        rates = {
            f"image_encoders.{level}.backbone.": spec.rate
            for level, spec in (("spot", shape.spot_image), ("niche", shape.niche_image))
            if isinstance(spec, TimmEncoder)
        }
        groups = parameter_groups(self, decay_gene_table=optim.decay_gene_table, anchor=optim.anchor, rates=rates)
        fused = _fused(self.device) if not optim.grad_clip else None  # Lightning does not clip for a fused optimiser
        return torch.optim.AdamW(groups, lr=self.rate(0), betas=optim.betas, eps=optim.eps, fused=fused)

    def on_train_batch_start(self, batch: StepBatch, batch_idx: int) -> None:
        """Set what follows from the step alone: learning rate, weight decay and the random numbers of dropout."""
        step = self.global_step
        optimizer = self.optimizers()
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate(step) * group["share"]
            group["weight_decay"] = self.decay(step) if group["decays"] else 0.0
        # A Weyl sequence keeps the seeds of neighbouring steps and ranks far apart.
        torch.manual_seed((self.seed * 0x9E3779B9 + step * 0x85EBCA6B + self.global_rank * 0xC2B2AE35) % 2**63)

    def training_step(self, batch: StepBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises
        ------
        FloatingPointError
            If a term is not finite, before it reaches the weights.
        """
        terms = self.terms(batch)
        if not torch.stack(list(terms.values())).isfinite().all():
            broken = [name for name, value in terms.items() if not torch.isfinite(value)]
            values = ", ".join(f"{name} {float(terms[name].detach())}" for name in broken)
            where = f"at step {self.global_step}, learning rate {self.rate(self.global_step):.3g}"
            expected = f"Expected a finite loss {where}, sections {', '.join(batch.sections)}"
            raise FloatingPointError(message(expected, found=values, hint=self.advice))
        for name, value in terms.items():
            self.log(f"loss/{name}", value.detach(), batch_size=len(batch), prog_bar=name == "total", sync_dist=True)
        temperature = float(torch.as_tensor(self.loss.temperature).detach())
        schedule = {"lr": self.rate(self.global_step), "weight_decay": self.decay(self.global_step)}
        self.log_dict({**schedule, "temperature": temperature}, batch_size=len(batch))
        return terms["total"]

    def validation_step(self, batch: StepBatch, batch_idx: int) -> None:
        """Log the loss of a batch that is not trained on."""
        for name, value in self.terms(batch).items():
            self.log(f"val/{name}", value, batch_size=len(batch), on_epoch=True, sync_dist=True)

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
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            offset = dist.get_rank() * len(batch)
            outputs = _masked(outputs)
            keys = outputs.apply(lambda x: _Gather.apply(x.float() if x.is_floating_point() else x))
            members = None if members is None else _gather_members(members)
        exclude = None if members is None or batch.members is None else shared_niches(batch.members, members)
        return self.loss(outputs, keys=keys, offset=offset, negatives=negatives, exclude=exclude)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record what a resumed run has to have in common with this one, and the threads that it goes on with."""
        checkpoint["stalign"] = {**self.fingerprint, "threads": torch.get_num_threads()}


def _fused(device: torch.device) -> bool | None:
    """Ask for the fused optimiser where this torch has one, which is five times faster for large tables."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return True if device.type == "cuda" or (device.type == "cpu" and version >= (2, 4)) else None


def _masked(outputs: Outputs) -> Outputs:
    """Write out masks that are None as all spots are valid: on another process they may not be."""
    ones = torch.ones(len(outputs.spot_fused), dtype=torch.bool, device=outputs.spot_fused.device)
    image, gene = (ones if mask is None else mask for mask in (outputs.image_valid, outputs.gene_valid))
    return replace(outputs, image_valid=image, gene_valid=gene)


class _Gather(torch.autograd.Function):
    """Join the tensors of all processes in the order of ranks; the gradient of each goes back to where it came from."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)  # every process has a share of the gradient of every process's spots
        return total.chunk(dist.get_world_size())[dist.get_rank()]


def _gather_members(members: Tensor) -> Tensor:
    """Join niche members of all processes, whose widths may differ."""
    width = torch.tensor(members.shape[1], device=members.device)
    dist.all_reduce(width, dist.ReduceOp.MAX)
    padded = nn.functional.pad(members, (0, int(width) - members.shape[1]), value=-1)
    return _Gather.apply(padded)


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
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            table = "gene_table" in name and not decay_gene_table
            decays = not (parameter.ndim < 2 or name.endswith(".bias") or table)
            share = 1.0 if "image_encoders" in name else anchor
            share = next((rate for part, rate in (rates or {}).items() if part in name), share)
            groups.setdefault((decays, share), []).append(parameter)
    return [{"params": groups[key], "decays": key[0], "share": key[1]} for key in sorted(groups, reverse=True)]
