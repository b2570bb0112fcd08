"""Lightning's trainer, set up for a run."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from threadpoolctl import threadpool_limits

from stalign._settings import settings
from stalign._validate import message
from stalign.train.batchnorm import SharedStatistics
from stalign.train.placement import placement, probe, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stalign.train.config import RunConfig
    from stalign.train.run import Run


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
    config = run.config.run
    every = max(1, min(run.steps, round(config.validate_every * run.steps_per_epoch)))
    arguments: dict[str, Any] = {
        **placement(config),
        **_batch_norm(config),
        "max_epochs": 1,
        "val_check_interval": every,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 1.0 if run.data.validation else 0,
        "gradient_clip_val": run.config.optim.grad_clip or None,
        "log_every_n_steps": config.log_every,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": settings.show_progress,
        "callbacks": callbacks,
        "logger": loggers,
        "default_root_dir": out,
    }
    with quiet():
        return pl.Trainer(**{**arguments, **more})


def _batch_norm(config: RunConfig) -> dict[str, Any]:
    """Share the statistics of batch norms: by torch on GPUs, by ours elsewhere."""
    trial = probe(placement(config))
    if not config.sync_batchnorm or trial.world_size == 1:
        return {}
    return {"sync_batchnorm": True} if _on_cuda(trial) else {"plugins": [SharedStatistics()]}


def _on_cuda(trainer: pl.Trainer) -> bool:
    return isinstance(trainer.accelerator, pl.accelerators.CUDAAccelerator)


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
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        found = "a folder that is read-only" if there.is_dir() else "a file"
        raise OSError(
            message(f"Expected {str(folder)!r} to be a folder that can be written to", found=f"{found}, {there}")
        )


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
