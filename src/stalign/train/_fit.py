"""Pretraining: from slides and a configuration to a folder of weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from stalign._settings import logger
from stalign._validate import message
from stalign.models.checkpoint import CONFIG_FILE, save
from stalign.train._history import COLUMNS, history
from stalign.train.callbacks import Checkpoints, EndsAtOnce, Timing, found, latest
from stalign.train.files import write_text
from stalign.train.run import assemble
from stalign.train.trainer import check_folder, interruptible, make_trainer, own_randomness, own_threads

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.config import TrainConfig
    from stalign.train.run import Run


@dataclass(frozen=True)
class _Last:
    """The last sound checkpoint: its file, its step and what it recorded of its run."""

    path: Path
    step: int
    run: dict[str, Any]


def fit(slides: Iterable[Any] | None, config: TrainConfig, *, resume: bool = False) -> Path:
    """Train a network from its beginning.

    Parameters
    ----------
    slides
        AnnData, SpatialData, paths, `SectionSpec`, or pairs of a table in memory and the `SectionSpec` that says how
        it is read; None takes those that `config.data` names.
    config
        The run.
    resume
        Go on from the last sound checkpoint in `config.out`, where there is one.

    Returns
    -------
    The folder of the weights, `weights` in `config.out`, which `tl.embed(weights=...)` takes.

    Raises
    ------
    FileExistsError
        If `config.out` holds checkpoints or weights and `resume` is False.
    ValueError
        If no section can be used, with the reason for each; or the checkpoint to resume is of another run.
    RuntimeError
        If a section cannot be read, or no checkpoint is sound.
    FloatingPointError
        If the loss is not finite any more; the last checkpoint is from before.
    OSError
        If `config.out` cannot be written to, or a checkpoint or the weights cannot; what was written before is kept.
    KeyboardInterrupt
        After Ctrl-C; `resume` goes on from the last checkpoint.

    Notes
    -----
    A run that is killed and resumed goes on exactly as it would have: batches, augmentation, dropout and schedules
    follow from the seed and the step, and everything else is in the checkpoint. Sums are rounded in an order that
    depends on the number of threads, so that a run goes on with as many as it had (`torch.get_num_threads()`), and the
    log says so where the process has another number, which it has again afterwards.

    Examples
    --------
    >>> import tempfile
    >>> import stalign as st
    >>> from stalign.train.config import RunConfig, SamplerConfig
    >>> config = st.train.TrainConfig(
    ...     name="mine",
    ...     out=tempfile.mkdtemp(),
    ...     sampler=SamplerConfig(batch_size=32),
    ...     run=RunConfig(steps=2, tensorboard=False),
    ... )
    >>> with st.settings.override(show_progress=False):
    ...     weights = st.train.fit([st.datasets.toy(n_rows=10)], config)
    >>> sorted(file.name for file in weights.iterdir())
    ['config.json', 'weights.safetensors']
    """
    out = Path(config.out)
    folder = out / "checkpoints"
    there = {"checkpoints": bool(found(folder)), "weights": (out / "weights" / CONFIG_FILE).is_file()}
    if any(there.values()) and not resume:
        hint = "Resume, or name another `out`"
        some = " and ".join(name for name in there if there[name])
        raise FileExistsError(message(f"Expected no run in {str(out)!r}", found=some, hint=hint))
    check_folder(out)
    last = _last(folder) if resume else None
    with own_threads(_threads(last)), own_randomness(), interruptible():
        run = assemble(slides, config)
        ckpt = _resumed(run, last) if last is not None else None
        if first_process():
            write_text(out / "manifest.csv", run.store.manifest().to_csv(index=False))
            write_text(out / "config.json", json.dumps(config.to_dict(), indent=1) + "\n")
        timing = Timing()
        checkpoints = Checkpoints(folder, every=config.run.checkpoint_every, keep=config.run.keep)
        trainer = make_trainer(run, callbacks=[checkpoints, timing, EndsAtOnce()], loggers=_loggers(config), out=out)
        if ckpt is not None and run.data.start >= run.steps:
            logger.info("The run has ended; its weights are written again.")
            content = torch.load(ckpt, map_location="cpu", weights_only=True)
            run.module.load_state_dict(content["state_dict"])
        else:
            trainer.fit(run.module, datamodule=run.data, ckpt_path=ckpt, weights_only=True)
    if trainer.is_global_zero:
        export(run, out / "weights", metrics=_losses(out))
        logger.info("Trained %d steps, %.0f spots per second: %s.", run.steps, timing.rate, out / "weights")
    return out / "weights"


def export(run: Run, folder: Path, *, metrics: dict[str, float]) -> Path:
    """Write the weights of a run.

    Parameters
    ----------
    run
        The run.
    folder
        Where to.
    metrics
        Last losses.

    Returns
    -------
    The folder.
    """
    config = run.config
    sections = [
        {"section": s.name, "donor": s.donor, "study": s.study, "spots": len(s.rows), "inputs": s.stratum}
        for s in run.data.train[0]
    ]
    meta = {
        "name": config.name,
        "licence": config.card.licence,
        "description": config.card.description,
        "training_data": sections,
        "recipe": _public(config),
        "steps": run.steps,
        "temperature": float(torch.as_tensor(run.module.loss.temperature).detach()),
        "metrics": metrics,
    }
    vocabulary = run.store.vocabulary
    ensembl = vocabulary.ensembl or None
    return save(folder, run.module.network, vocabulary=vocabulary.symbols, ensembl=ensembl, meta=meta)


def _public(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration without the folders of this machine."""
    recipe = config.to_dict()
    recipe.pop("out")
    for place in ("root", "encoder_weights"):
        recipe["data"].pop(place)
    return recipe


def _losses(out: Path) -> dict[str, float]:
    """Return the mean of each loss over the last tenth of what was logged; none for a run too short to log one."""
    try:
        log = history(out).ffill()
    except FileNotFoundError:
        return {}
    means = log.tail(-(-len(log) // 10)).mean()
    return {name: float(means[name]) for name in means.index if "/" in name and np.isfinite(means[name])}


def _last(folder: Path) -> _Last | None:
    """Find the last sound checkpoint, and keep what it says of its run but not its weights."""
    found = latest(folder)
    if found is None:
        logger.info("No checkpoint in %s; starting from the beginning.", folder)
        return None
    path, content = found
    return _Last(path, int(content["global_step"]), content.get("stalign", {}))


def _threads(last: _Last | None) -> int:
    """Return how many threads a run computes with: those of the run that it goes on with, else the caller's."""
    here = torch.get_num_threads()
    number = int(last.run.get("threads", here)) if last is not None else here
    if number != here:
        logger.info("Going on with %d torch threads, as before, rather than the %d of this process.", number, here)
    return number


def _resumed(run: Run, last: _Last) -> Path:
    """See that a checkpoint is of this run, and let the run go on from its step."""
    path, before, now = last.path, last.run, run.module.fingerprint
    different = [
        _changed(before.get(key), now[key]) if key == "sections" else _difference(before.get(key), now[key], key)
        for key in now
        if before.get(key) != now[key]
    ]
    if different:
        hint = "Resume with the configuration and sections of that run, or start in another `out`"
        raise ValueError(message(f"Expected {str(path)!r} to be of this run", found="; ".join(different), hint=hint))
    run.data.start = last.step
    logger.info("Going on from step %d of %d.", run.data.start, run.steps)
    return path


def _changed(before: Any, now: list[list[Any]]) -> str:
    """Name the first section that a run has no more, has anew, or that holds something else."""
    known = {name: (spots, parts) for name, spots, parts in before or []}
    for name, spots, parts in now:
        if name not in known:
            return f"a section {name!r} that was not there"
        was, old = known.pop(name)
        kinds = [kind for kind in {**old, **parts} if old.get(kind) != parts.get(kind)] if isinstance(old, dict) else []
        if was != spots:
            return f"section {name!r} had {was} spots and has {spots}"
        if kinds:
            return f"section {name!r} has other {', '.join(kinds)}"
    return f"no section {next(iter(known))!r} any more" if known else "sections in another order or of another version"


def _difference(before: Any, now: Any, where: str) -> str:
    """Name the first key in which two nested values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {**before, **now}:
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{where}.{key}")
    if isinstance(before, list) and isinstance(now, list):
        return f"{where} differs"
    return f"{where} was {before!r} and is {now!r}"


def _loggers(config: TrainConfig) -> list[Any]:
    out = Path(config.out)
    n_starts = len(list((out / "logs").glob("start-*")))
    csv = CSVLogger(out, name="logs", version=f"start-{n_starts}", flush_logs_every_n_steps=config.run.log_every)
    if first_process():
        csv.experiment.metrics_keys = list(COLUMNS)  # so that a new column never makes it write the file anew
    return [csv, TensorBoardLogger(out, name="tensorboard", version="")] if config.run.tensorboard else [csv]


def first_process() -> bool:
    """Say whether this is the process that writes and speaks, before the processes of a run have met.

    Returns
    -------
    True for a run of one process too.
    """
    return getattr(rank_zero_only, "rank", 0) == 0
