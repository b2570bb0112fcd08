"""Batches of a run: patches and expression of the spots that the sampler names, several sections at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from stalign.data.stack import stack
from stalign.train.augment import Draw, draw, thinning
from stalign.train.options import AugmentConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stalign.models.batch import Batch
    from stalign.train.sampler import BatchPlan
    from stalign.train.store import StoredSection

NO_AUGMENTATION = AugmentConfig(flips=False, turns=False, stain=0.0, thinning=(1.0, 1.0))
_N_NEGATIVES = 5  # spots of other clusters that each anchor is compared with (authors' code)


@dataclass
class StepBatch:
    """What one process reads for one step.

    Parameters
    ----------
    batch
        Spots and niches.
    draws
        How their images are augmented; None where nothing is.
    sections
        Names of the sections, for messages.
    members
        Spots of each niche, numbered over all sections, (B, k) int64, -1 for none; None where not asked for.
    negatives
        Spots and niches of other clusters, `_N_NEGATIVES` for each spot one after the other, or None.
    """

    batch: Batch
    draws: Draw | None
    sections: tuple[str, ...]
    members: torch.Tensor | None = None
    negatives: Batch | None = None

    def __len__(self) -> int:
        return len(self.batch)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> StepBatch:
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
            draws=None if self.draws is None else self.draws.to(device),
            members=None if self.members is None else self.members.to(device),
            negatives=None if self.negatives is None else self.negatives.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> StepBatch:
        """Return a copy in pinned memory."""
        negatives = None if self.negatives is None else self.negatives.pin_memory()
        return replace(self, batch=self.batch.pin_memory(), negatives=negatives)


class SpotDataset(Dataset[StepBatch]):
    """Reads the batch of a plan. All randomness follows from the seed and the step.

    Parameters
    ----------
    sections
        The sections that plans number.
    augment
        Augmentation.
    seed
        Seed of augmentation and negatives.
    members
        Whether to say which spots each niche holds.
    negatives
        Whether to draw negatives from other clusters of the same section.
    """

    def __init__(
        self,
        sections: Sequence[StoredSection],
        *,
        augment: AugmentConfig = NO_AUGMENTATION,
        seed: int = 0,
        members: bool = False,
        negatives: bool = False,
    ) -> None:
        self.sections = list(sections)
        self.augment = augment
        self.seed = seed
        self.members = members
        self.negatives = negatives
        self.offsets = np.cumsum([0, *(len(s.reader) for s in self.sections)])

    def __getitem__(self, plan: BatchPlan) -> StepBatch:
        """Read the batch of a plan.

        Parameters
        ----------
        plan
            What the sampler drew.

        Returns
        -------
        The batch.

        Raises
        ------
        RuntimeError
            If a section cannot be read; the message names it and the cause.
        """
        parts, others, members = [], [], []
        for section, rows in plan.pieces:
            stored = self.sections[section]
            # One source for each section of a step, whichever process reads it.
            rng = np.random.default_rng([self.seed, plan.step, section, int(rows[0])])
            keep = thinning(self.augment, rng)
            try:
                parts.append(stored.reader.batch(rows, keep=keep, rng=rng))
                if self.negatives:
                    others.append(stored.reader.batch(_others(stored, rows, rng), keep=keep, rng=rng))
            except (OSError, ValueError) as error:
                msg = f"Section {stored.name!r} cannot be read any more at step {plan.step}: {error}"
                raise RuntimeError(msg) from error
            if self.members:
                members.append(_members(stored, rows) + self.offsets[section])
        return StepBatch(
            stack(parts),
            self._draws(plan),
            tuple(self.sections[section].name for section, _ in plan.pieces),
            members=torch.from_numpy(_padded(members)) if self.members else None,
            negatives=stack(others) if self.negatives else None,
        )

    def _draws(self, plan: BatchPlan) -> Draw | None:
        if replace(self.augment, thinning=NO_AUGMENTATION.thinning) == NO_AUGMENTATION:
            return None
        rng = np.random.default_rng([self.seed, plan.step])
        return draw(self.augment, plan.total, rng).part(plan.first, len(plan))


def _members(stored: StoredSection, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Spots of each niche, (b, k); the spot itself fills the places that are left."""
    graph = stored.reader.graph[rows]
    sizes = np.diff(graph.indptr)
    out = np.repeat(rows[:, None], max(int(sizes.max(initial=0)), 1), axis=1).astype(np.int64)
    row = np.repeat(np.arange(len(rows)), sizes)
    out[row, np.arange(graph.nnz) - np.repeat(graph.indptr[:-1], sizes)] = graph.indices
    return out


def _padded(members: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    width = max(m.shape[1] for m in members)
    return np.concatenate([np.pad(m, ((0, 0), (0, width - m.shape[1])), mode="edge") for m in members])


def _others(stored: StoredSection, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """One random spot of each of five other clusters of the section, (b * 5,), as in the authors' code."""
    clusters = stored.clusters
    if clusters is None:
        msg = f"Section {stored.name!r} has no clusters to draw negatives from"
        raise ValueError(msg)
    usable = clusters[stored.rows]
    order = stored.rows[np.argsort(usable, kind="stable")]
    names, first, size = np.unique(np.sort(usable), return_index=True, return_counts=True)
    own = np.searchsorted(names, clusters[rows])  # (b,)
    choice = rng.random((len(rows), len(names)))
    choice[np.arange(len(rows)), own] = np.inf
    other = np.argsort(choice, axis=1)[:, :_N_NEGATIVES]  # (b, 5)
    return order[first[other] + (rng.random(other.shape) * size[other]).astype(np.intp)].ravel()
