"""Lightning's trainer, set up for a run."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from threadpoolctl import threadpool_limits

from stalign._settings import settings
from stalign._validate import message
from stalign.train.batchnorm import SharedStatistics
from stalign.train.placement import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stalign.train.options import RunConfig
    from stalign.train.placement import Placement
    from stalign.train.source import StepData
    from stalign.train.steps import TrainingModule

_GUARD = "In a script, call it under `if __name__ == '__main__':`, or set `data.workers = 0`"


@dataclass
class Run:
    """What the loop needs of a run.

    Parameters
    ----------
    module
        The network with its terms and its optimiser.
    data
        Its batches.
    options
        How the loop runs.
    placement
        Where it runs.
    steps_per_epoch
        Optimiser steps an epoch.
    records
        Texts that say what the run is, by the name of the file that they go to.
    done
        Optimiser steps done, once it has ended; a callback may end it before the last.
    """

    module: TrainingModule
    data: StepData
    options: RunConfig
    placement: Placement
    steps_per_epoch: int
    records: dict[str, str] = field(default_factory=dict, kw_only=True)
    done: int = field(default=0, kw_only=True)

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.data.steps


def make_trainer(run: Run, *, callbacks: list[pl.Callback], loggers: list[Any], out: Path, **more: Any) -> pl.Trainer:
    """Make the trainer of a run: one pass over a loader that holds all steps.

    Parameters
    ----------
    run
        The run.
    callbacks, loggers
        Of Lightning.
    out
        Folder of the run.
    more
        Further arguments of `Trainer`.

    Returns
    -------
    The trainer.
    """
    options = run.options
    arguments: dict[str, Any] = {
        **run.placement.arguments,
        **_batch_norm(options, run.placement),
        "max_epochs": 1,
        "val_check_interval": validation_interval(run),
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1.0 if run.data.validates else 0,
        "gradient_clip_val": run.module.optim.grad_clip or None,
        "log_every_n_steps": options.log_every,
        "use_distributed_sampler": False,
        "enable_checkpointing": any(isinstance(one, pl.callbacks.Checkpoint) for one in callbacks),
        "enable_model_summary": False,
        "enable_progress_bar": settings.show_progress,
        "callbacks": callbacks,
        "logger": loggers,
        "default_root_dir": out,
    }
    with quiet():
        return pl.Trainer(**{**arguments, **more})


def validation_interval(run: Run) -> int:
    """Return the number of steps between validations.

    Parameters
    ----------
    run
        The run.
    """
    return max(1, min(run.steps, round(run.options.validate_every * run.steps_per_epoch)))


def _batch_norm(options: RunConfig, placement: Placement) -> dict[str, Any]:
    """Share the statistics of batch norms: by torch on GPUs, by ours elsewhere."""
    if not options.sync_batchnorm or placement.world_size == 1:
        return {}
    return {"sync_batchnorm": True} if placement.on_cuda else {"plugins": [SharedStatistics()]}


def as_list(given: Any, kind: type, name: str) -> list[Any]:
    """List loggers or callbacks, and see that they are Lightning's.

    Parameters
    ----------
    given
        One or several.
    kind
        What they have to be.
    name
        Name of the argument.

    Returns
    -------
    The list.

    Raises
    ------
    TypeError
        If one is something else, such as a class of the package `pytorch_lightning`.
    """
    found = [given] if isinstance(given, kind) or not isinstance(given, Iterable) else list(given)
    for one in found:
        if not isinstance(one, kind):
            what = f"{type(one).__module__}.{type(one).__name__}" if not isinstance(one, type) else f"the class {one!r}"
            hint = f"Make an object of a class of `lightning.pytorch.{name}`, or of one that inherits from it"
            expected = f"Expected `{name}` to be of `lightning.pytorch`"
            raise TypeError(message(expected, found=what, hint=hint))
    return found


def check_folder(folder: Path) -> None:
    """See that a folder can be made and written to, before any work that would be lost.

    Parameters
    ----------
    folder
        The folder; it is not made.

    Raises
    ------
    OSError
        If it is a file, or lies in one or where nothing may be written.
    """
    there = existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        found = "a folder that is read-only" if there.is_dir() else "a file"
        raise OSError(
            message(f"Expected {str(folder)!r} to be a folder that can be written to", found=f"{found}, {there}")
        )


def existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there.

    Parameters
    ----------
    folder
        The folder.
    """
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


@contextmanager
def explained_workers() -> Iterator[None]:
    """Say what to do where the processes that read ahead cannot be started, or die.

    Raises
    ------
    RuntimeError
        In one of them that runs the user's script again, and in the process that waits for it.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        found = "a process of `data.workers`, which has run the script again"
        raise RuntimeError(message("Expected to train in the main process", found=found, hint=_GUARD))
    try:
        yield
    except (RuntimeError, BrokenPipeError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        expected = "Expected the processes of `data.workers` to read ahead"
        found = f"{type(error).__name__}: {error}"
        raise RuntimeError(message(expected, found=found, hint=f"Short of memory, set it to 0. {_GUARD}")) from error


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C be a KeyboardInterrupt; Lightning ends the process, and with it the user's notebook."""
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def own_threads(number: int) -> Iterator[None]:
    """Compute with so many threads in torch, BLAS and OpenMP, whose sums are rounded in the order that they make.

    Parameters
    ----------
    number
        The number; the caller's is set again afterwards.
    """
    import sklearn.cluster  # noqa: F401 (brings an OpenMP of its own, which has to be there to be limited)

    before = torch.get_num_threads()
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def own_randomness() -> Iterator[None]:
    """Leave the caller's random state as it was."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), quiet():
        yield
