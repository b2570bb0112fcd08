"""The training and validation step of any network: its terms, its optimiser and its schedules."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor, nn

from stalign._validate import message
from stalign.models.run_files import RECORD
from stalign.train.callbacks import DIVERGED
from stalign.train.phases import phase
from stalign.train.ranks import several
from stalign.train.schedules import Schedule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.options import OptimConfig


class StepInput(Protocol):
    """What a data source makes for one step of one process."""

    sections: tuple[str, ...]
    """Names of the sections that it is from, for messages."""

    def __len__(self) -> int: ...

    def to(self, device: torch.device, *, non_blocking: bool = False) -> StepInput:
        """Return a copy on a device."""


class Losses(NamedTuple):
    """The terms of one step, and what an error says about it."""

    step: int
    sections: tuple[str, ...]
    names: tuple[str, ...]
    values: Tensor


class TrainingModule(pl.LightningModule):
    """Trains a network, which a subclass holds, on the loss that its `terms` say.

    Parameters
    ----------
    optim
        The optimiser and its schedules.
    steps
        Optimiser steps of the whole run.
    warmup
        Steps of the warm-up.
    batch_size
        Spots a step over all processes, which the learning rate is scaled by.
    seed
        Seed of dropout.
    fingerprint
        What a resumed run has to have in common with this one.
    advice
        What to do about a loss that is not finite.
    weights
        What weights say of themselves: their configuration, vocabulary and `meta`, as `models.save` takes them. Each
        checkpoint holds it, so that weights can be exported at any moment; None for networks of other packages.
    """

    term_names: ClassVar[tuple[str, ...]] = ("total",)
    """Names of the terms, for the columns of the log."""
    value_names: ClassVar[tuple[str, ...]] = ()
    """Names of what `values` returns, likewise."""

    def __init__(
        self,
        optim: OptimConfig,
        *,
        steps: int,
        warmup: int,
        batch_size: int,
        seed: int = 0,
        fingerprint: dict[str, Any] | None = None,
        advice: str = DIVERGED,
        weights: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.optim = optim
        self.seed = seed
        self.fingerprint = fingerprint or {}
        self.advice = advice
        self.weights = weights
        self.phases = [phase(0, steps, batch_size)]
        self.rate = Schedule(optim.lr * batch_size / optim.lr_batch, optim.min_lr, steps=steps, warmup=warmup)
        self.decay = Schedule(optim.weight_decay, optim.weight_decay_end, steps=steps)
        self._unseen: Losses | None = None

    @property
    def runs_behind(self) -> bool:
        """Whether the device is behind this process, which would wait for it to look at the loss of this step."""
        return self.device.type != "cpu"

    def terms(self, batch: Any) -> dict[str, Tensor]:
        """Return the terms of the loss by name, () float each.

        Parameters
        ----------
        batch
            What the data source made for this process.

        Returns
        -------
        The terms, among them `total`, which is trained on. Over several processes, the mean of each has to be that of
        the whole batch; `stalign.train.ranks` joins what one has to see of the others.
        """
        raise NotImplementedError

    def values(self) -> dict[str, Tensor | float]:
        """Return what is logged beside the terms; a tensor is read when the log is written, and not at each step."""
        return {}

    def groups(self) -> list[dict[str, Any]]:
        """Return the trained parameters as groups of the optimiser, as `grouped` makes them."""
        trained = ((name, p) for name, p in self.named_parameters() if p.requires_grad)
        return grouped((p, decays(name, p), 1.0) for name, p in trained)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make AdamW."""
        optim = self.optim
        fused = _fused(self.device) if not optim.grad_clip else None  # Lightning does not clip for a fused optimiser
        return torch.optim.AdamW(self.groups(), lr=self.rate(0), betas=optim.betas, eps=optim.eps, fused=fused)

    def on_train_batch_start(self, batch: StepInput, batch_idx: int) -> None:
        """Set what follows from the step alone: learning rate, weight decay and the random numbers of dropout."""
        step = self.global_step
        optimizer = self.optimizers()
        for group in optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = self.rate(step) * group["share"]
            group["weight_decay"] = self.decay(step) if group["decays"] else 0.0
        # A Weyl sequence keeps the seeds of neighbouring steps and ranks far apart.
        torch.manual_seed((self.seed * 0x9E3779B9 + step * 0x85EBCA6B + self.global_rank * 0xC2B2AE35) % 2**63)

    def training_step(self, batch: StepInput, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises
        ------
        FloatingPointError
            If a term is not finite: before it reaches the weights, or a step later where the device runs behind.
        """
        terms = self.terms(batch)
        means = torch.stack([value.detach().float() for value in terms.values()])
        losses = Losses(self.global_step, batch.sections, tuple(terms), means.clone() if several() else means)
        seen, self._unseen = (self._unseen, losses) if self.runs_behind else (losses, None)
        self._check(seen)
        if several():  # one reduction for all terms
            dist.all_reduce(means)
            means /= dist.get_world_size()
        for name, value in zip(terms, means, strict=True):
            self.log(f"loss/{name}", value, batch_size=len(batch), prog_bar=name == "total")
        schedule = {"lr": self.rate(self.global_step), "weight_decay": self.decay(self.global_step)}
        self.log_dict({**schedule, **self.values()}, batch_size=len(batch))
        return terms["total"]

    def on_train_end(self) -> None:
        """Look at the loss of the last step."""
        last, self._unseen = self._unseen, None
        self._check(last)

    def _check(self, losses: Losses | None) -> None:
        if losses is None or losses.values.isfinite().all():
            return
        told = zip(losses.names, losses.values.tolist(), strict=True)
        values = ", ".join(f"{name} {value}" for name, value in told if not math.isfinite(value))
        where = f"at step {losses.step}, learning rate {self.rate(losses.step):.3g}"
        expected = f"Expected a finite loss {where}, sections {', '.join(losses.sections)}"
        raise FloatingPointError(message(expected, found=values, hint=self.advice))

    def validation_step(self, batch: StepInput, batch_idx: int) -> None:
        """Log the loss of a batch that is not trained on."""
        for name, value in self.terms(batch).items():
            self.log(f"val/{name}", value, batch_size=len(batch), on_epoch=True, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Record what a resumed run has to have in common with this one, what it goes on with, and what it has made."""
        checkpoint["stalign"] = {**self.fingerprint, "threads": torch.get_num_threads(), "phases": self.phases}
        if self.weights is not None:
            done = {"step": checkpoint["global_step"], "steps": self.rate.steps, "phases": self.phases}
            values = {name: float(value) for name, value in self.values().items()}
            meta = {**self.weights["meta"], **values, **done}
            checkpoint[RECORD] = {**self.weights, "meta": meta}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on from the last step of a run that is extended, which Lightning takes for the end of its one epoch."""
        if checkpoint["global_step"] < self.rate.steps:
            checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False


def grouped(parameters: Iterable[tuple[nn.Parameter, bool, float]]) -> list[dict[str, Any]]:
    """Group parameters for the optimiser.

    Parameters
    ----------
    parameters
        Each with whether weight decay acts on it, and its share of the learning rate.

    Returns
    -------
    Groups that are not empty, with `params`, `decays` and `share`.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter, decays, share in parameters:
        groups.setdefault((decays, share), []).append(parameter)
    return [{"params": groups[key], "decays": key[0], "share": key[1]} for key in sorted(groups, reverse=True)]


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Say whether weight decay acts on a parameter; it never does on biases, norms and other 1-D ones."""
    return parameter.ndim > 1 and not name.endswith(".bias")


def _fused(device: torch.device) -> bool | None:
    """Ask for the fused optimiser where this torch has one, which is five times faster for large tables."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return True if device.type == "cuda" or (device.type == "cpu" and version >= (2, 4)) else None
