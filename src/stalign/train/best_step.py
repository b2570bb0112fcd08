"""The step with the lowest validation loss, and the end of a run whose loss falls no more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from stalign._settings import logger
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.options import RunConfig

MONITOR = "val/total"


class BestStep(pl.Callback):
    """Follow the validation loss, and end the run after so many validations without a lower one.

    Lightning's `EarlyStopping` counts from the checkpoint, which is written before the validation that follows it.

    Parameters
    ----------
    patience
        The validations; 0 for no end.
    before
        Optimiser steps done and loss of the validations before a restart.
    since
        Step from which validations count for the end.
    """

    def __init__(self, patience: int = 0, before: Iterable[tuple[int, float]] = (), since: int = 0) -> None:
        self.patience = patience
        self.since = since
        self.step, self.value = 0, float("inf")
        self.waited = 0
        for step, value in before:
            self.see(step, value)

    @property
    def ended(self) -> bool:
        """Whether the run has to end."""
        return 0 < self.patience <= self.waited

    def see(self, step: int, value: float) -> None:
        """Take the loss of a validation into account.

        Parameters
        ----------
        step
            Optimiser steps done.
        value
            The loss.
        """
        lower = value < self.value
        if lower:
            self.step, self.value = step, value
        self.waited = 0 if lower or step <= self.since else self.waited + 1

    def on_validation_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Look at the loss, the same in all processes."""
        self.see(trainer.global_step, float(trainer.callback_metrics[MONITOR]))
        if self.ended:
            trainer.should_stop = True
            logger.info(
                "Ended after step %d: the validation loss, %.4f after step %d, has not fallen in %d validations.",
                trainer.global_step,
                self.value,
                self.step,
                self.waited,
            )


def check_validated(options: RunConfig, *, validates: bool) -> None:
    """See that there is a validation loss for the keys that look at it.

    Parameters
    ----------
    options
        How the loop runs.
    validates
        Whether there is something to validate on.

    Raises
    ------
    ValueError
        If there is none.
    """
    keys = [f"`run.{name}`" for name in ("keep_best", "patience") if getattr(options, name)]
    if keys and not validates:
        expected = f"Expected `data.validation` to name what {' and '.join(keys)} look{'s' * (len(keys) == 1)} at"
        hint = "Name sections, slides, donors or studies there, or leave the keys out"
        raise ValueError(message(expected, found="none", hint=hint))
