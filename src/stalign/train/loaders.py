"""The batches of ST-Align: spots and niches of the sections of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stalign.train.dataset import SpotDataset
from stalign.train.sampler import StepSampler
from stalign.train.source import StepData

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from stalign.train.config import TrainConfig
    from stalign.train.store import StoredSection

    Split = tuple[Sequence[StoredSection], Sequence[NDArray[np.intp]]]


class SpotData(StepData):
    """Batches of spots over the sections of a run.

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
    clusters
        Whether negatives come from other clusters of the same section.
    """

    def __init__(
        self, config: TrainConfig, train: Split, validation: Split | None = None, *, steps: int, clusters: bool = False
    ) -> None:
        super().__init__(steps=steps, workers=config.data.workers)
        self.config = config
        self.train = train
        self.validation = validation
        self.clusters = clusters

    @property
    def validates(self) -> bool:
        """Whether there are sections to validate on."""
        return self.validation is not None

    def training(self, rank: int, world: int) -> tuple[SpotDataset, StepSampler]:
        """Return the augmented batches of the training spots."""
        dataset = SpotDataset(self.train[0], augment=self.config.augment, **self._options())
        return dataset, make_sampler(self.train, self.config, rank=rank, world=world)

    def validating(self, rank: int, world: int) -> tuple[SpotDataset, StepSampler]:
        """Return the batches of the validation spots, not augmented: every spot, and once."""
        split = self.validation or ([], [])
        config = replace(self.config, sampler=replace(self.config.sampler, spots_per_section=0, repeat_images=1))
        sampler = make_sampler(split, config, rank=rank, world=world)
        return SpotDataset(split[0], **self._options()), sampler

    def _options(self) -> dict[str, Any]:
        mask = self.config.sampler.mask_shared_niches
        return {"seed": self.config.seed, "members": mask, "negatives": self.clusters}


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
