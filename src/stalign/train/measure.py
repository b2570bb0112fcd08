"""A few steps of a run, measured: training, validation and a checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch

from stalign.train.callbacks import Checkpoints
from stalign.train.source import AHEAD, StepData, StepPlans

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from torch.utils.data import Dataset


@dataclass
class Measured:
    """Times of some steps, by what they cost.

    Parameters
    ----------
    costs
        Kind and size of each step, see `StepPlans.cost`.
    counted
        The first step that is counted; those before it warm up.
    total
        Size of all steps of an epoch, by kind.
    seconds, waited
        Time of each step, and how much of it was spent waiting for data.
    """

    costs: list[tuple[Hashable, int]]
    counted: int
    total: dict[Hashable, int]
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)

    @property
    def epoch(self) -> float:
        """Seconds of an epoch."""
        return sum(self._rate(kind) * size for kind, size in self.total.items())

    @property
    def warm_up(self) -> float:
        """Seconds that the first steps took beyond what they take later."""
        expected = sum(self._rate(kind) * size for kind, size in self.costs[: self.counted])
        return max(0.0, sum(self.seconds[: self.counted]) - expected)

    @property
    def share_waiting(self) -> float:
        """Share of the time that was spent waiting for data."""
        spent = sum(self.seconds[self.counted :])
        return sum(self.waited[self.counted :]) / spent if spent else 0.0

    def _rate(self, kind: Hashable) -> float:
        """Seconds of a step of size 1."""
        timed = list(zip(self.costs, self.seconds, strict=False))
        timed = [one for one in timed[self.counted :] or timed if one[0][0] == kind] or timed
        return sum(seconds for _, seconds in timed) / max(1, sum(size for (_, size), _ in timed))


def choose(plans: StepPlans[Any], steps: int, *, workers: int) -> tuple[list[int], Measured]:
    """Choose steps to measure: of each kind, spread over an epoch, after some that warm up.

    Parameters
    ----------
    plans
        The plans of all steps.
    steps
        How many of each kind.
    workers
        Processes that read ahead: what they have read before the first step is used up in the warm-up.

    Returns
    -------
    The steps, and where their times go.
    """
    costs = [plans.cost(step) for step in range(plans.steps_per_epoch)]
    kinds: dict[Hashable, list[int]] = {}
    for step, (kind, _) in enumerate(costs):
        kinds.setdefault(kind, []).append(step)
    first = [alike[i % len(alike)] for i in range(2 + workers * AHEAD // len(kinds)) for alike in kinds.values()]
    spread = [alike[i * len(alike) // steps] for i in range(steps) for alike in kinds.values()]
    chosen = first + spread
    total = {kind: sum(costs[step][1] for step in alike) for kind, alike in kinds.items()}
    return chosen, Measured([costs[step] for step in chosen], len(first), total)


class SomeSteps(StepPlans[Any]):
    """The plans of some steps of others.

    Parameters
    ----------
    plans
        The plans of all steps.
    chosen
        Those to take.
    """

    def __init__(self, plans: StepPlans[Any], chosen: Sequence[int]) -> None:
        self.plans = plans
        self.chosen = chosen

    @property
    def steps_per_epoch(self) -> int:
        """How many there are."""
        return len(self.chosen)

    def plan(self, step: int) -> Any:
        """Return the plan of one of them."""
        return self.plans.plan(self.chosen[step])


class SomeData(StepData):
    """Some steps of a source of batches.

    Parameters
    ----------
    data
        The source.
    steps
        How many steps of each kind are measured.
    """

    def __init__(self, data: StepData, steps: int) -> None:
        more: dict[str, Any] = {"workers": data.workers}
        self.data = data
        self.chosen, self.trained = choose(data.training(0, 1)[1], steps, **more)
        self.to_validate: list[int] = []
        self.validated = Measured([], 0, {})
        if data.validates:
            plans = data.validating(0, 1)[1]
            self.to_validate, self.validated = choose(plans, max(1, steps // 2), workers=0)
        super().__init__(steps=len(self.chosen), **more)

    @property
    def validates(self) -> bool:
        """Whether there is something to validate on."""
        return self.data.validates

    def training(self, rank: int, world: int) -> tuple[Dataset[Any], StepPlans[Any]]:
        """Return some steps of the training."""
        dataset, plans = self.data.training(rank, world)
        return dataset, SomeSteps(plans, self.chosen)

    def validating(self, rank: int, world: int) -> tuple[Dataset[Any], StepPlans[Any]]:
        """Return some steps of the validation."""
        dataset, plans = self.data.validating(rank, world)
        return dataset, SomeSteps(plans, self.to_validate)


class Clock(pl.Callback):
    """Measure how long the steps of training and validation take.

    Parameters
    ----------
    data
        Where the times go.
    """

    def __init__(self, data: SomeData) -> None:
        self.data = data
        self._last = self._come = 0.0

    def on_train_start(self, *_: Any) -> None:
        """Start the clock."""
        self._last = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Note when a batch has come."""
        self._come = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the time of a step."""
        self._note(self.data.trained, trainer)

    def on_validation_start(self, *_: Any) -> None:
        """Start the clock anew."""
        self._last = time.perf_counter()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Note when a batch has come."""
        self._come = time.perf_counter()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Note the time of a step."""
        self._note(self.data.validated, trainer)

    def _note(self, measured: Measured, trainer: pl.Trainer) -> None:
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        measured.seconds.append(now - self._last)
        measured.waited.append(self._come - self._last)
        self._last = now


class TimedCheckpoints(Checkpoints):
    """Write a checkpoint after the first step and after the last, and measure how long the latter takes."""

    seconds = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *more: Any) -> None:
        """Write it."""
        if trainer.global_step in (1, trainer.num_training_batches):
            self.every = trainer.global_step
            start = time.perf_counter()
            super().on_train_batch_end(trainer, *more)
            self.seconds = time.perf_counter() - start

    def on_train_end(self, *arguments: Any) -> None:
        """Move it into place."""
        start = time.perf_counter()
        super().on_train_end(*arguments)
        self.seconds += time.perf_counter() - start
