"""Where the batches of a run come from: a dataset and the plans of its steps, made once the ranks are known."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from stalign.train.steps import StepInput

Plan = TypeVar("Plan")
AHEAD = 4  # batches that each worker reads ahead


class StepPlans(Sampler[Plan], Generic[Plan]):
    """What each step reads, as a function of the step alone, so that a run can go on from any step.

    `start` is the first step that is left, `steps` the number of all.
    """

    start = 0
    steps = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read everything once."""
        raise NotImplementedError

    def plan(self, step: int) -> Plan:
        """Say what a step reads.

        Parameters
        ----------
        step
            Optimiser steps done before this one.
        """
        raise NotImplementedError

    def cost(self, step: int) -> tuple[Hashable, int]:
        """Say how a step compares with others in cost: of what kind it is, and how much of it.

        Parameters
        ----------
        step
            Optimiser steps done before this one.
        """
        return None, 1

    def __len__(self) -> int:
        return self.steps  # those done as well, which Lightning counts from

    def __iter__(self) -> Iterator[Plan]:
        for step in range(self.start, self.steps):
            yield self.plan(step)


class StepLoader(DataLoader[Any]):
    """A loader whose sampler knows the step to start from, so it has no state of its own to save."""

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the checkpoint's step says where to go on."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing.

        Parameters
        ----------
        state
            What `state_dict` returned.
        """


class StepData(pl.LightningDataModule):
    """The batches of a run. A subclass says what they are read from; all it makes is a function of seed and step.

    Parameters
    ----------
    steps
        Optimiser steps of the whole run.
    start
        Steps done already.
    workers
        Processes that read ahead of the training loop; 0 reads in the main process.
    """

    def __init__(self, *, steps: int, start: int = 0, workers: int = 0) -> None:
        super().__init__()
        self.steps = steps
        self.start = start
        self.workers = workers

    @property
    def validates(self) -> bool:
        """Whether there is something to validate on."""
        return False

    def training(self, rank: int, world: int) -> tuple[Dataset[Any], StepPlans[Any]]:
        """Return what to train on: `dataset[plan]` is the batch of one process for one step, see `StepInput`.

        Parameters
        ----------
        rank, world
            Number of this process and how many there are.
        """
        raise NotImplementedError

    def validating(self, rank: int, world: int) -> tuple[Dataset[Any], StepPlans[Any]]:
        """Return what to validate on, one epoch of which is read each time.

        Parameters
        ----------
        rank, world
            Number of this process and how many there are.
        """
        raise NotImplementedError

    def train_dataloader(self) -> StepLoader:
        """Return the batches of the steps that are left; its length counts those done as well."""
        dataset, plans = self.training(*self._place())
        plans.start, plans.steps = self.start, self.steps
        return self._loader(dataset, plans)

    def val_dataloader(self) -> StepLoader | list[Any]:
        """Return the batches of one epoch to validate on, the same every time."""
        if not self.validates:
            return []
        dataset, plans = self.validating(*self._place())
        plans.steps = plans.steps_per_epoch
        return self._loader(dataset, plans)

    def transfer_batch_to_device(self, batch: StepInput, device: torch.device, dataloader_idx: int) -> StepInput:
        """Move a batch to the device of the process."""
        return batch.to(device, non_blocking=True)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _loader(self, dataset: Dataset[Any], plans: StepPlans[Any]) -> StepLoader:
        more: dict[str, Any] = {}
        if self.workers:
            # Forked workers share the sections with this process; elsewhere each gets a copy, and seconds to start.
            forks = sys.platform == "linux"
            more = {"multiprocessing_context": "fork" if forks else "spawn", "persistent_workers": not forks}
            more["prefetch_factor"] = AHEAD
        cuda = torch.cuda.is_available()
        return StepLoader(dataset, batch_size=None, sampler=plans, num_workers=self.workers, pin_memory=cuda, **more)
