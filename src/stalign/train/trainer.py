"""Lightning's trainer, set up for a run."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from stalign._settings import settings
from stalign._validate import message
from stalign.train.batchnorm import SharedStatistics

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
        **_placement(config),
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


def world_size(config: RunConfig) -> int:
    """Return how many processes a run has.

    Parameters
    ----------
    config
        How it runs.

    Returns
    -------
    The number.
    """
    return _probe(_placement(config)).world_size


def precision(config: RunConfig) -> str:
    """Return the precision of a run.

    Parameters
    ----------
    config
        How it runs.

    Returns
    -------
    The name that Lightning knows; for `auto`, bf16 where the hardware multiplies matrices in it.
    """
    if config.precision != "auto":
        return config.precision
    if config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    amx = getattr(torch.cpu, "_is_amx_tile_supported", bool)()
    return "bf16-mixed" if amx and config.accelerator in ("auto", "cpu") else "32-true"


def _placement(config: RunConfig) -> dict[str, Any]:
    placement: dict[str, Any] = {
        "accelerator": config.accelerator,
        "devices": config.devices,
        "num_nodes": config.num_nodes,
        "strategy": config.strategy,
        "precision": precision(config),
    }
    if dist.is_available() and dist.is_torchelastic_launched():
        # torchrun has started the processes; without this each would be a run of its own on a CPU.
        here, all_of_them = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        if str(config.devices) not in ("auto", str(here)):
            expected = f"Expected `run.devices` to be the {here} processes that torchrun has started"
            raise ValueError(message(expected, found=config.devices, hint="Leave `run.devices` out under torchrun"))
        placement |= {"devices": here, "num_nodes": all_of_them // here}
    if config.strategy == "auto" and _probe(placement).world_size > 1:
        # A batch without images leaves the image encoders out.
        placement["strategy"] = "ddp_find_unused_parameters_true"
    return placement


def _batch_norm(config: RunConfig) -> dict[str, Any]:
    """Share the statistics of batch norms: by torch on GPUs, by ours elsewhere."""
    probe = _probe(_placement(config))
    if not config.sync_batchnorm or probe.world_size == 1:
        return {}
    return {"sync_batchnorm": True} if _on_cuda(probe) else {"plugins": [SharedStatistics()]}


def _on_cuda(trainer: pl.Trainer) -> bool:
    return isinstance(trainer.accelerator, pl.accelerators.CUDAAccelerator)


def _probe(placement: dict[str, Any]) -> pl.Trainer:
    try:
        with quiet():
            return pl.Trainer(**placement, logger=False, enable_checkpointing=False)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ValueError(message("Expected `run` to fit this machine", found=str(error).rstrip("."))) from error


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
def own_randomness() -> Iterator[None]:
    """Leave the caller's random state as it was."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices), quiet():
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning's advertisements and hints out of the log."""
    names = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
    levels = [logging.getLogger(name).level for name in names]
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
        warnings.filterwarnings("ignore", message=".*module.s. in eval mode.*")
        warnings.filterwarnings("ignore", message=".*is deprecated.*", module="lightning")
        try:
            yield
        finally:
            for name, level in zip(names, levels, strict=True):
                logging.getLogger(name).setLevel(level)
