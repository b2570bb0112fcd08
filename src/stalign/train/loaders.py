"""Loaders of training and validation batches, made once the number of processes is known."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from stalign.train.dataset import SpotDataset, StepBatch
from stalign.train.sampler import StepSampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stalign.train.config import TrainConfig
    from stalign.train.store import StoredSection

    Split = tuple[Sequence[StoredSection], Sequence[NDArray[np.intp]]]


class StepLoader(DataLoader[StepBatch]):
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


class SpotData(pl.LightningDataModule):
    """Loaders over the sections of a run.

    Parameters
    ----------
    config
        The run.
    train
        Sections to train on, and the positions of their spots, (n_i,) each.
    validation
        Sections and spots whose loss is logged, or None.
    steps
        Optimiser steps of the whole run.
    start
        Steps done already.
    clusters
        Whether negatives come from other clusters of the same section.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: Split,
        validation: Split | None = None,
        *,
        steps: int,
        start: int = 0,
        clusters: bool = False,
    ) -> None:
        super().__init__()
        self.config = config
        self.train = train
        self.validation = validation
        self.steps = steps
        self.start = start
        self.clusters = clusters

    def train_dataloader(self) -> StepLoader:
        """Return the batches of the steps that are left; its length counts those done as well."""
        sampler = self._sampler(self.train)
        sampler.start, sampler.steps = self.start, self.steps
        sections = self.train[0]
        return self._loader(SpotDataset(sections, augment=self.config.augment, **self._options()), sampler)

    def val_dataloader(self) -> StepLoader | list[Any]:
        """Return the batches of one epoch over the validation spots, the same every time and not augmented."""
        if self.validation is None:
            return []
        whole = replace(self.config.sampler, spots_per_section=0, repeat_images=1)  # every spot, and once
        sampler = self._sampler(self.validation, replace(self.config, sampler=whole))
        sampler.steps = sampler.steps_per_epoch
        return self._loader(SpotDataset(self.validation[0], **self._options()), sampler)

    def transfer_batch_to_device(self, batch: StepBatch, device: torch.device, dataloader_idx: int) -> StepBatch:
        """Move a batch to the device of the process."""
        return batch.to(device, non_blocking=True)

    def _options(self) -> dict[str, Any]:
        mask = self.config.sampler.mask_shared_niches
        return {"seed": self.config.seed, "members": mask, "negatives": self.clusters}

    def _sampler(self, split: Split, config: TrainConfig | None = None) -> StepSampler:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return make_sampler(split, config or self.config, rank=rank, world=world)

    def _loader(self, dataset: SpotDataset, sampler: StepSampler) -> StepLoader:
        workers = self.config.data.workers
        more: dict[str, Any] = {}
        if workers:
            # Forked workers share the sections with this process; elsewhere each would get a copy.
            more = {"multiprocessing_context": "fork" if sys.platform == "linux" else None, "prefetch_factor": 4}
        cuda = torch.cuda.is_available()
        return StepLoader(dataset, batch_size=None, sampler=sampler, num_workers=workers, pin_memory=cuda, **more)


def make_sampler(split: Split, config: TrainConfig, *, rank: int = 0, world: int = 1) -> StepSampler:
    """Make the sampler of some sections.

    Parameters
    ----------
    split
        Sections and positions of their spots.
    config
        The run.
    rank, world
        Number of this process and how many there are.

    Returns
    -------
    The sampler.
    """
    sections, rows = split
    strata = [s.stratum for s in sections]
    repeats = [1 if s.reader.modality == "gene" else config.sampler.repeat_images for s in sections]
    return StepSampler(rows, config.sampler, strata=strata, repeats=repeats, seed=config.seed, rank=rank, world=world)
