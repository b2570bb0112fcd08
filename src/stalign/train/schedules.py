"""Schedules of the learning rate and the weight decay as functions of the step: nothing to save, nothing to restore."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0, then a cosine from one value to another.

    Parameters
    ----------
    start
        Value at the end of the warm-up.
    end
        Value at the last step.
    steps
        Optimiser steps of the run.
    warmup
        Steps of the warm-up.

    Examples
    --------
    >>> from stalign.train.schedules import Schedule
    >>> rate = Schedule(start=1.0, end=0.0, steps=5, warmup=2)
    >>> [round(rate(step), 2) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    start: float
    end: float
    steps: int
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """Return the value for a step, counted from 0.

        Parameters
        ----------
        step
            Optimiser steps done before this one.

        Returns
        -------
        The value.
        """
        if step < self.warmup:
            return self.start * step / self.warmup
        length = self.steps - 1 - self.warmup
        if length <= 0:
            return self.start
        done = min(1.0, (step - self.warmup) / length)
        return self.end + 0.5 * (self.start - self.end) * (1 + math.cos(math.pi * done))
