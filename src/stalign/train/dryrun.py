"""What a run would cost: parameters, samples, steps, memory, disk, and a time estimated from a few measured steps."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stalign._settings import settings
from stalign.models.network import n_parameters
from stalign.models.run_files import CHECKPOINTS, found
from stalign.train._export import export
from stalign.train.assemble import assemble
from stalign.train.loaders import make_sampler
from stalign.train.loop import make_loggers
from stalign.train.measure import Clock, SomeData, TimedCheckpoints
from stalign.train.memory import PeakMemory
from stalign.train.trainer import Run, check_folder, existing, make_trainer, own_randomness, validation_interval

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from stalign.train.config import TrainConfig
    from stalign.train.run import SectionRun


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
    processes, workers, precision
        How it runs; `workers` of each process.
    steps_per_epoch, steps
        Optimiser steps.
    seconds_per_step, spots_per_second, share_waiting
        Measured on a few steps of each kind of batch.
    hours
        Time of the whole run, from reading sections to the weights; with `run.patience`, at most.
    seconds
        What it is made of: `setup`, `steps`, `validation`, `checkpoints` and `export`.
    memory_gb, gpu_memory_gb
        Peak memory of this process with its workers, and of its GPU, in GB (2**30 bytes); 0 without a GPU.
    disk_gb
        Size of the checkpoints that the run keeps, in GB.
    manifest
        Which sections were found, kept and dropped.
    """

    parameters: int
    trained: int
    genes: int
    sections: int
    spots: int
    processes: int
    workers: int
    precision: str
    steps_per_epoch: int
    steps: int
    seconds_per_step: float
    spots_per_second: float
    share_waiting: float
    hours: float
    seconds: dict[str, float]
    memory_gb: float
    gpu_memory_gb: float
    disk_gb: float
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
            ("of it", ", ".join(f"{name} {100 * s / 3600 / self.hours:.0f} %" for name, s in self.seconds.items())),
            ("Peak memory", f"{self.memory_gb:.2f} GB with {self.workers} workers"),
            ("Checkpoints", f"{self.disk_gb:.2f} GB on disk"),
        ]
        return [*rows, ("Peak GPU memory", f"{self.gpu_memory_gb:.2f} GB")] if self.gpu_memory_gb else rows


def dry_run(slides: Iterable[Any] | None, config: TrainConfig, *, steps: int = 8) -> Estimate:
    """Open the sections, train a few steps, validate, write a checkpoint, and estimate the whole run.

    Nothing is kept but the store of sections, where `data.store` is `disk`; a checkpoint is written where those of the
    run would be, and deleted.

    Parameters
    ----------
    slides
        As for `fit`.
    config
        The run.
    steps
        Steps to measure of each kind of batch (with images or without), after some that are not counted.

    Returns
    -------
    The estimate.

    Raises
    ------
    ValueError
        If no section can be used.
    RuntimeError
        If a section cannot be read.
    OSError
        If `config.out` cannot be written to.
    """
    check_folder(Path(config.out))
    start = time.perf_counter()
    beside = existing(Path(config.out))
    with own_randomness(), PeakMemory() as memory, tempfile.TemporaryDirectory(dir=beside, prefix=".dry-run-") as name:
        run, folder = assemble(slides, config), Path(name)
        data = SomeData(run.data, steps)
        setup = time.perf_counter() - start
        options = run.options
        checkpoints = TimedCheckpoints(folder / CHECKPOINTS, every=1, keep=1)
        few = Run(run.module, data, options, run.placement, run.steps_per_epoch)
        trainer = make_trainer(
            few,
            callbacks=[Clock(data), checkpoints],
            loggers=make_loggers(few, folder),
            out=folder,
            val_check_interval=data.steps,
        )
        trainer.fit(run.module, datamodule=data)
        start = time.perf_counter()
        with settings.override(verbosity="warning"):
            export(folder)
        exported = time.perf_counter() - start
        size = found(folder / CHECKPOINTS)[0].stat().st_size
        n_validations, n_checkpoints = _counts(run)
    seconds = {
        "setup": setup + data.trained.warm_up,
        "steps": data.trained.epoch * run.steps / run.steps_per_epoch,
        "validation": n_validations * (data.validated.epoch + data.validated.warm_up) if n_validations else 0.0,
        "checkpoints": n_checkpoints * checkpoints.seconds,
        "export": exported,
    }
    network, cuda = run.module.network, trainer.strategy.root_device.type == "cuda"
    spots = make_sampler(run.data.train, config).spots_per_epoch
    return Estimate(
        parameters=n_parameters(network),
        trained=sum(p.numel() for p in network.parameters() if p.requires_grad),
        genes=len(run.store.vocabulary.symbols),
        sections=len(run.data.train[0]),
        spots=spots,
        processes=run.placement.world_size,
        workers=run.data.workers,
        precision=run.placement.arguments["precision"],
        steps_per_epoch=run.steps_per_epoch,
        steps=run.steps,
        seconds_per_step=seconds["steps"] / run.steps,
        spots_per_second=spots / data.trained.epoch,
        share_waiting=data.trained.share_waiting,
        hours=sum(seconds.values()) / 3600,
        seconds=seconds,
        memory_gb=memory.peak / 1024**3,
        gpu_memory_gb=torch.cuda.max_memory_allocated() / 1024**3 if cuda else 0.0,
        disk_gb=size * (options.keep + options.keep_best) / 1024**3,
        manifest=run.store.manifest(),
    )


def _counts(run: SectionRun) -> tuple[int, int]:
    """Count the validations and the checkpoints of a run."""
    options, every = run.options, validation_interval(run)
    validated = set(range(every, run.steps + 1, every)) if run.data.validates else set()
    written = {run.steps, *range(options.checkpoint_every, run.steps + 1, options.checkpoint_every)}
    followed = options.keep_best or options.patience
    return len(validated), len(written | validated if followed else written)
