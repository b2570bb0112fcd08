"""What a run would cost: parameters, samples, steps, memory, and a time estimated from a few measured steps."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign.models.network import n_parameters
from stalign.train.assemble import assemble
from stalign.train.callbacks import Timing
from stalign.train.loaders import make_sampler
from stalign.train.memory import peak_memory
from stalign.train.trainer import make_trainer, own_randomness

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from stalign.train.config import TrainConfig


@dataclass(frozen=True)
class Estimate:
    """The cost of a run.

    Parameters
    ----------
    parameters, trained
        Parameters of the network, and those that are trained.
    genes
        Size of the vocabulary.
    sections, spots
        Sections that are trained on, and spots drawn from them in an epoch.
    processes, precision
        How it runs.
    steps_per_epoch, steps
        Optimiser steps.
    seconds_per_step, spots_per_second, share_waiting
        Measured on a few steps.
    hours
        Time that all steps would take.
    memory_gb, gpu_memory_gb
        Peak memory of this process and of its GPU, in GB; 0 without a GPU.
    manifest
        Which sections were found, kept and dropped.
    """

    parameters: int
    trained: int
    genes: int
    sections: int
    spots: int
    processes: int
    precision: str
    steps_per_epoch: int
    steps: int
    seconds_per_step: float
    spots_per_second: float
    share_waiting: float
    hours: float
    memory_gb: float
    gpu_memory_gb: float
    manifest: pd.DataFrame

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values for people."""
        rows = [
            ("Parameters", f"{self.parameters:,} ({self.trained:,} trained)"),
            ("Genes", f"{self.genes:,}"),
            ("Sections", f"{self.sections:,}"),
            ("Spots an epoch", f"{self.spots:,}"),
            ("Processes", f"{self.processes} ({self.precision})"),
            ("Steps", f"{self.steps:,} ({self.steps_per_epoch:,} an epoch)"),
            ("Seconds a step", f"{self.seconds_per_step:.3g} ({100 * self.share_waiting:.0f} % waiting for data)"),
            ("Spots a second", f"{self.spots_per_second:,.0f}"),
            ("Time", f"{self.hours:.2f} hours" if self.hours >= 1 else f"{60 * self.hours:.1f} minutes"),
            ("Peak memory", f"{self.memory_gb:.2f} GB"),
        ]
        return [*rows, ("Peak GPU memory", f"{self.gpu_memory_gb:.2f} GB")] if self.gpu_memory_gb else rows


def dry_run(slides: Iterable[Any] | None, config: TrainConfig, *, steps: int = 4) -> Estimate:
    """Open the sections, train a few steps and estimate the whole run.

    Nothing is written but the store of sections, where `data.store` is `disk`.

    Parameters
    ----------
    slides
        As for `fit`.
    config
        The run.
    steps
        Steps to measure, after one that is not counted.

    Returns
    -------
    The estimate.

    Raises
    ------
    ValueError
        If no section can be used.
    RuntimeError
        If a section cannot be read.
    """
    with own_randomness(), tempfile.TemporaryDirectory() as folder:
        run = assemble(slides, config)
        timing = Timing(skip=1 if run.steps > 1 else 0, synchronise=True)
        trainer = make_trainer(
            run, callbacks=[timing], loggers=[], out=Path(folder), max_steps=steps + 1, limit_val_batches=0
        )
        trainer.fit(run.module, datamodule=run.data)
    network = run.module.network
    per_step = timing.seconds / max(timing.steps, 1)
    cuda = trainer.strategy.root_device.type == "cuda"
    return Estimate(
        parameters=n_parameters(network),
        trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        genes=len(run.store.vocabulary.symbols),
        sections=len(run.data.train[0]),
        spots=make_sampler(run.data.train, config).spots_per_epoch,
        processes=run.placement.world_size,
        precision=run.placement.arguments["precision"],
        steps_per_epoch=run.steps_per_epoch,
        steps=run.steps,
        seconds_per_step=per_step,
        spots_per_second=timing.rate,
        share_waiting=timing.share_waiting,
        hours=per_step * run.steps / 3600,
        memory_gb=peak_memory(),
        gpu_memory_gb=torch.cuda.max_memory_allocated() / 1024**3 if cuda else 0.0,
        manifest=run.store.manifest(),
    )
