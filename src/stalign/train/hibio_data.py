"""The batches of HiBio-ST: patches, gene sentences and pathways of the spots of a run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse
from torch.utils.data import Dataset

from stalign.core.pathways import draw as pathway_draws
from stalign.models.hibio import SentenceBatch
from stalign.train.augment import Draw, draw
from stalign.train.dataset import NO_AUGMENTATION
from stalign.train.loaders import make_sampler
from stalign.train.sampler import BatchPlan
from stalign.train.source import StepData, StepPlans

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from stalign.models.gene_tokens import GeneTokens
    from stalign.models.hibio_config import HiBioConfig
    from stalign.train.config import TrainConfig
    from stalign.train.loaders import Split
    from stalign.train.options import AugmentConfig
    from stalign.train.store import StoredSection


@dataclass(frozen=True)
class PairedSection:
    """What HiBio-ST reads of one section.

    Parameters
    ----------
    stored
        The section.
    genes
        Sentence of each spot, (n, K) int32 positions in the vocabulary, filled up with -1.
    overlap
        Overlap of each spot with each pathway, CSR (n, P), above zero for positives only; None without pathways.
    first
        Number of its first spot, counted over all sections of the run.
    words
        Tokens of organ and disease, which stand before the genes; none where they are left out.
    """

    stored: StoredSection
    genes: NDArray[np.int32]
    overlap: sparse.csr_matrix | None
    first: int
    words: tuple[str, ...] = ()


@dataclass
class SentenceStep:
    """What one process reads for one step.

    Parameters
    ----------
    batch
        Patches, tokens and pathways.
    numbers
        (B,) int64, number of each spot over all sections of the run.
    draws
        How the patches are augmented; None where nothing is, or features stand for them.
    sections
        Names of the sections, for messages.
    """

    batch: SentenceBatch
    numbers: torch.Tensor
    draws: Draw | None
    sections: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> SentenceStep:
        """Return a copy on a device.

        Parameters
        ----------
        device
            Where to.
        non_blocking
            Whether to copy from pinned memory without waiting.
        """
        return replace(
            self,
            batch=self.batch.to(device, non_blocking=non_blocking),
            numbers=self.numbers.to(device, non_blocking=non_blocking),
            draws=None if self.draws is None else self.draws.to(device),
        )

    def pin_memory(self) -> SentenceStep:
        """Return a copy in pinned memory."""
        return replace(self, batch=self.batch.pin_memory(), numbers=self.numbers.pin_memory())


class SentenceDataset(Dataset[SentenceStep]):
    """Reads the batch of a plan. All randomness follows from the seed and the step.

    Parameters
    ----------
    sections
        The sections that plans number.
    tokens
        The tokens of the network.
    shape
        The network's configuration.
    augment
        Augmentation of patches; thinning is not used.
    seed
        Seed of augmentation and of the pathways that are no positives.
    """

    def __init__(
        self,
        sections: Sequence[PairedSection],
        tokens: GeneTokens,
        shape: HiBioConfig,
        *,
        augment: AugmentConfig = NO_AUGMENTATION,
        seed: int = 0,
    ) -> None:
        self.sections = list(sections)
        self.tokens, self.shape, self.augment, self.seed = tokens, shape, augment, seed

    def __getitem__(self, plan: BatchPlan) -> SentenceStep:
        """Read the batch of a plan.

        Parameters
        ----------
        plan
            What the sampler drew.

        Raises
        ------
        RuntimeError
            If a section cannot be read; the message names it and the cause.
        """
        pieces = [(self.sections[section], rows) for section, rows in plan.pieces]
        names = tuple(section.stored.name for section, _ in pieces)
        try:
            images = [images_of(section.stored, rows, self.shape.input.px) for section, rows in pieces]
        except (OSError, ValueError) as error:
            msg = f"Sections {', '.join(names)} cannot be read any more at step {plan.step}: {error}"
            raise RuntimeError(msg) from error
        image = torch.cat(images)
        genes = np.concatenate([section.genes[rows] for section, rows in pieces])
        words = [section.words for section, rows in pieces for _ in rows]
        tokens, mask = self.tokens.encode(genes, words, context=self.shape.text.context)
        positives = [section.overlap[rows] for section, rows in pieces if section.overlap is not None]
        pathways = overlap = None
        if positives:
            rng = np.random.default_rng([self.seed, plan.step])
            rng.random((plan.first, positives[0].shape[1]), dtype=np.float32)  # those of the processes before
            found = pathway_draws(sparse.vstack(positives, format="csr"), self.shape.pathways.n_negatives, rng)
            pathways, overlap = map(torch.from_numpy, found)
        batch = SentenceBatch(
            image=image,
            tokens=tokens,
            mask=mask,
            image_valid=torch.ones(len(genes), dtype=torch.bool),
            gene_valid=torch.from_numpy(genes[:, 0] >= 0),
            pathways=pathways,
            overlap=overlap,
            sections=names,
        )
        numbers = np.concatenate([section.first + rows for section, rows in pieces])
        draws = None
        if image.dtype == torch.uint8 and replace(self.augment, thinning=(1.0, 1.0)) != NO_AUGMENTATION:
            drawn = draw(self.augment, plan.total, np.random.default_rng([self.seed, plan.step]))
            draws = drawn.part(plan.first, len(plan))
        return SentenceStep(batch, torch.from_numpy(numbers), draws, names)


class SentenceData(StepData):
    """Batches of patches and sentences over the sections of a run.

    Parameters
    ----------
    config
        The run.
    shape
        The network's configuration.
    tokens
        Its tokens.
    sections
        All sections of the run.
    train
        Sections to train on, and the positions of their spots, (n_i,) each.
    validation
        Sections and spots whose loss is logged, or None.
    steps
        Optimiser steps of the whole run.
    switch
        Step from which batches are drawn from few sections, so that regions have members; None for never.
    """

    def __init__(
        self,
        config: TrainConfig,
        shape: HiBioConfig,
        tokens: GeneTokens,
        sections: Sequence[PairedSection],
        train: Split,
        validation: Split | None = None,
        *,
        steps: int,
        switch: int | None = None,
    ) -> None:
        super().__init__(steps=steps, workers=config.data.workers)
        self.config, self.shape, self.tokens = config, shape, tokens
        self.train, self.validation, self.switch = train, validation, switch
        self._by_name = {section.stored.name: section for section in sections}

    @property
    def validates(self) -> bool:
        """Whether there are sections to validate on."""
        return self.validation is not None

    def paired(self, split: Split) -> list[PairedSection]:
        """Return the sections of a split.

        Parameters
        ----------
        split
            Sections and positions of their spots.
        """
        return [self._by_name[stored.name] for stored in split[0]]

    def training(self, rank: int, world: int) -> tuple[SentenceDataset, StepPlans[BatchPlan]]:
        """Return the augmented batches of the training spots."""
        plans: StepPlans[BatchPlan] = make_sampler(self.train, self.config, rank=rank, world=world)
        if self.switch is not None:
            few = replace(self.config.sampler, sections_per_batch=self.shape.regions.sections_per_batch)
            later = make_sampler(self.train, replace(self.config, sampler=few), rank=rank, world=world)
            plans = TwoPhases(plans, later, self.switch)
        return self._dataset(self.train, self.config.augment), plans

    def validating(self, rank: int, world: int) -> tuple[SentenceDataset, StepPlans[BatchPlan]]:
        """Return the batches of the validation spots, not augmented: every spot, and once."""
        split = self.validation or ([], [])
        config = replace(self.config, sampler=replace(self.config.sampler, spots_per_section=0, repeat_images=1))
        return self._dataset(split, NO_AUGMENTATION), make_sampler(split, config, rank=rank, world=world)

    def _dataset(self, split: Split, augment: AugmentConfig) -> SentenceDataset:
        return SentenceDataset(self.paired(split), self.tokens, self.shape, augment=augment, seed=self.config.seed)


class TwoPhases(StepPlans[BatchPlan]):
    """Plans of one sampler up to a step, and of another from there.

    Parameters
    ----------
    first, second
        The samplers.
    switch
        First step of the second.
    """

    def __init__(self, first: StepPlans[BatchPlan], second: StepPlans[BatchPlan], switch: int) -> None:
        self.first, self.second, self.switch = first, second, switch

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read everything once, in the first phase."""
        return self.first.steps_per_epoch

    def plan(self, step: int) -> BatchPlan:
        """Say what a step reads."""
        if step < self.switch:
            return self.first.plan(step)
        return replace(self.second.plan(step - self.switch), step=step)

    def cost(self, step: int) -> tuple[Hashable, int]:
        """Say how a step compares with others in cost."""
        return self.first.cost(step) if step < self.switch else self.second.cost(step - self.switch)


def images_of(stored: StoredSection, rows: NDArray[np.intp], px: int) -> torch.Tensor:
    """Read the patches of some spots, or the features that stand for them.

    Parameters
    ----------
    stored
        The section.
    rows
        Positions of the spots in it, (b,).
    px
        Side of a patch after resampling.

    Returns
    -------
    (b, 3, px, px) uint8, or (b, f) float32.
    """
    features = stored.reader.features.get("spot_image")
    if features is not None:
        return torch.from_numpy(features[rows])
    return torch.from_numpy(stored.reader.patches(rows, level=0, size=px)).permute(0, 3, 1, 2)
