"""The loop that trains any network: checkpointed, logged, and gone on with exactly where it was cut short."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from stalign._settings import logger
from stalign._validate import message
from stalign.train._history import columns
from stalign.train.callbacks import Checkpoints, EndsAtOnce, Timing, latest
from stalign.train.files import write_text
from stalign.train.lock import locked
from stalign.train.trainer import Run, interruptible, make_trainer, own_randomness, own_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.loggers import Logger

R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class _Last:
    """The last sound checkpoint: its file, its step and what it recorded of its run."""

    path: Path
    step: int
    run: dict[str, Any]


def train(
    assemble: Callable[[], R],
    out: Path,
    *,
    resume: bool = False,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
) -> R:
    """Train a network.

    Parameters
    ----------
    assemble
        Makes the run; called with the threads and the random state that the run computes with.
    out
        Folder of the run: its records, `logs` and `checkpoints`.
    resume
        Go on from the last sound checkpoint, where there is one.
    loggers, callbacks
        Of Lightning, beside those of this package.

    Returns
    -------
    The run, its network trained.

    Raises
    ------
    ValueError
        If the checkpoint to resume is of another run.
    RuntimeError
        If no checkpoint is sound, or another process trains in `out`.
    FloatingPointError
        If the loss is not finite any more; the last checkpoint is from before.
    OSError
        If `out` or a checkpoint cannot be written to; what was written before is kept.
    KeyboardInterrupt
        After Ctrl-C; `resume` goes on from the last checkpoint.
    """
    with locked(out) if first_process() else nullcontext():
        return _train(assemble, out, resume=resume, loggers=loggers, callbacks=callbacks)


def _train(
    assemble: Callable[[], R], out: Path, *, resume: bool, loggers: Sequence[Logger], callbacks: Sequence[Callback]
) -> R:
    folder = out / "checkpoints"
    last = _last(folder) if resume else None
    with own_threads(_threads(last)), own_randomness(), interruptible():
        run = assemble()
        path = _resumed(run, last) if last is not None else None
        if first_process():
            for name, text in run.records.items():
                write_text(out / name, text)
        timing = Timing()
        checkpoints = Checkpoints(folder, every=run.options.checkpoint_every, keep=run.options.keep)
        for one in loggers:
            one.log_hyperparams(json.loads(run.records.get("config.json", "{}")))
        ours, csv = [checkpoints, timing, EndsAtOnce()], _loggers(run, out)
        trainer = make_trainer(run, callbacks=[*ours, *callbacks], loggers=[*csv, *loggers], out=out)
        if path is not None and run.data.start >= run.steps:
            logger.info("The run has ended; its weights are written again.")
            content = torch.load(path, map_location="cpu", weights_only=True)
            run.module.load_state_dict(content["state_dict"])
            run.done = run.data.start
        else:
            trainer.fit(run.module, datamodule=run.data, ckpt_path=path, weights_only=True)
            run.done = trainer.global_step
    if first_process():
        logger.info("Trained %d of %d steps, %.0f spots per second: %s.", run.done, run.steps, timing.rate, out)
    return run


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


def _loggers(run: Run, out: Path) -> list[Any]:
    n_starts = len(list((out / "logs").glob("start-*")))
    csv = CSVLogger(out, name="logs", version=f"start-{n_starts}", flush_logs_every_n_steps=run.options.log_every)
    if first_process():  # named now, so that a new column never makes it write the file anew
        csv.experiment.metrics_keys = columns(run.module.term_names, run.module.value_names)
    return [csv, TensorBoardLogger(out, name="tensorboard", version="")] if run.options.tensorboard else [csv]


def first_process() -> bool:
    """Say whether this is the process that writes and speaks, before the processes of a run have met.

    Returns
    -------
    True for a run of one process too.
    """
    return getattr(rank_zero_only, "rank", 0) == 0
