"""Where a run takes place: accelerator, processes and precision, as Lightning understands them."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stalign.train.options import RunConfig


@dataclass(frozen=True)
class Placement:
    """Where a run takes place.

    Parameters
    ----------
    arguments
        What Lightning's trainer is told of accelerator, devices, nodes, strategy and precision.
    world_size
        How many processes there are.
    on_cuda
        Whether they compute on GPUs.
    """

    arguments: dict[str, Any]
    world_size: int
    on_cuda: bool


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


def place(config: RunConfig) -> Placement:
    """Ask Lightning, with a trainer that does nothing, what it makes of a configuration.

    Parameters
    ----------
    config
        How it runs.

    Returns
    -------
    Where the run takes place.

    Raises
    ------
    ValueError
        If that does not fit this machine, or the processes that torchrun has started.
    """
    arguments: dict[str, Any] = {
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
        arguments |= {"devices": here, "num_nodes": all_of_them // here}
    try:
        with quiet():
            trial = pl.Trainer(**arguments, logger=False, enable_checkpointing=False)
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ValueError(message("Expected `run` to fit this machine", found=str(error).rstrip("."))) from error
    if config.strategy == "auto" and trial.world_size > 1:
        # A batch without images leaves the image encoders out.
        arguments["strategy"] = "ddp_find_unused_parameters_true"
    return Placement(arguments, trial.world_size, isinstance(trial.accelerator, pl.accelerators.CUDAAccelerator))


def on_device(name: str | None) -> dict[str, Any]:
    """Say in Lightning's words where one process computes.

    Parameters
    ----------
    name
        A torch device; None leaves the choice to Lightning.

    Returns
    -------
    `accelerator` and `devices`.
    """
    if name is None:
        return {"accelerator": "auto", "devices": 1}
    device = torch.device(name)
    accelerator = "gpu" if device.type == "cuda" else device.type
    return {"accelerator": accelerator, "devices": 1 if device.index is None else f"{device.index},"}


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
