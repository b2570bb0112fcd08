"""Batches of spots over sections as a function of the seed and the step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message
from stalign.train.source import StepPlans

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from numpy.typing import NDArray

    from stalign.train.options import SamplerConfig

    Piece = tuple[int, NDArray[np.intp]]


@dataclass(frozen=True)
class BatchPlan:
    """Which spots a process reads for a step.

    Parameters
    ----------
    step
        Optimiser steps done before this one.
    pieces
        Section and positions of its spots, (b_i,), for each section of the batch.
    first
        Position of the first of these spots in the batch of all processes.
    total
        Spots in the batch of all processes.
    """

    step: int
    pieces: tuple[Piece, ...]
    first: int
    total: int

    def __len__(self) -> int:
        return sum(len(rows) for _, rows in self.pieces)


class StepSampler(StepPlans[BatchPlan]):
    """Draws every spot once an epoch, or as often as its section is repeated, in batches that mix some sections.

    The plan of a step depends on the seed and the step alone, so a run that starts at any step draws what an
    uninterrupted one would have drawn, and the processes of a parallel run draw equal parts of one batch.

    Parameters
    ----------
    rows
        Positions of the spots to draw, (n_i,), for each section.
    config
        Batch size and how many sections are mixed.
    strata
        One label a section: sections of different labels never share a batch (those with and without an image).
    repeats
        How often the spots of each section are drawn in an epoch; None draws all sections once.
    seed
        Seed of the order.
    rank, world
        Number of this process and how many there are.

    Raises
    ------
    ValueError
        If there is no section, or one with fewer than two spots a process.

    Notes
    -----
    Each section is cut into pieces of at most `batch_size * world / sections_per_batch` spots, and batches are
    groups of pieces. Where the spots of a batch do not divide by the number of processes, the remainder is left out
    of this epoch.
    """

    def __init__(
        self,
        rows: Sequence[NDArray[np.intp]],
        config: SamplerConfig,
        *,
        strata: Sequence[Hashable] | None = None,
        repeats: Sequence[int] | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        least = 2 * world
        short = [i for i, r in enumerate(rows) if len(r) < least]
        if not len(rows) or short:
            found = f"{len(short)} with fewer" if short else "none"
            raise ValueError(message(f"Expected sections of at least {least} spots", found=found))
        self.rows = [np.asarray(r, np.intp) for r in rows]
        self.strata = list(strata) if strata is not None else [0] * len(rows)
        self.repeats = list(repeats) if repeats is not None else [1] * len(rows)
        self.mix = min(config.sections_per_batch, config.batch_size * world // least)
        self.piece = config.batch_size * world // self.mix
        self.cap = config.spots_per_section
        self.seed, self.rank, self.world = seed, rank, world
        self._epoch = lru_cache(maxsize=2)(self._draw)

    @property
    def steps_per_epoch(self) -> int:
        """Batches that hold every spot once."""
        pieces: dict[Hashable, int] = {}
        for section, stratum in enumerate(self.strata):
            pieces[stratum] = pieces.get(stratum, 0) + self._n_pieces(section) * self.repeats[section]
        return sum(-(-n // self.mix) for n in pieces.values())

    @property
    def spots_per_epoch(self) -> int:
        """Spots drawn in an epoch, before remainders are left out."""
        return sum(self._n_spots(section) * self.repeats[section] for section in range(len(self.rows)))

    def plan(self, step: int) -> BatchPlan:
        """Draw the batch of a step.

        Parameters
        ----------
        step
            Optimiser steps done before this one.

        Returns
        -------
        The part of the batch that this process reads.
        """
        epoch, index = divmod(step, self.steps_per_epoch)
        pieces = self._epoch(epoch)[index]
        share = sum(len(r) for _, r in pieces) // self.world
        first = self.rank * share
        mine: list[Piece] = []
        at = 0
        for section, rows in pieces:
            lo, hi = max(first - at, 0), min(first + share - at, len(rows))
            if lo < hi:
                mine.append((section, rows[lo:hi]))
            at += len(rows)
        return BatchPlan(step, tuple(mine), first, share * self.world)

    def cost(self, step: int) -> tuple[Hashable, int]:
        """Return the label of the sections of a step, and the number of its spots."""
        plan = self.plan(step)
        return self.strata[plan.pieces[0][0]], plan.total

    def _n_spots(self, section: int) -> int:
        n = len(self.rows[section])
        return min(n, max(self.cap, 2 * self.world)) if self.cap else n

    def _n_pieces(self, section: int) -> int:
        return -(-self._n_spots(section) // self.piece)

    def _draw(self, epoch: int) -> list[list[Piece]]:
        rng = np.random.default_rng([self.seed, epoch])
        pieces: dict[Hashable, list[Piece]] = {}
        for section, stratum in enumerate(self.strata):
            for _ in range(self.repeats[section]):
                rows = rng.permutation(self.rows[section])[: self._n_spots(section)]
                parts = np.array_split(rows, self._n_pieces(section))
                pieces.setdefault(stratum, []).extend((section, part) for part in parts)
        batches: list[list[Piece]] = []
        for alike in pieces.values():
            order = rng.permutation(len(alike))
            for group in np.array_split(order, -(-len(alike) // self.mix)):
                batches.append(_merge([alike[i] for i in group]))
        return [batches[i] for i in rng.permutation(len(batches))]


def _merge(pieces: list[Piece]) -> list[Piece]:
    """Join the pieces of one section; a spot that two of them hold is taken once, as it is no negative of itself."""
    sections = list(dict.fromkeys(section for section, _ in pieces))
    return [(s, np.unique(np.concatenate([rows for section, rows in pieces if section == s]))) for s in sections]
