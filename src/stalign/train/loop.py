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
from stalign.train._history import columns, history
from stalign.train.best_step import MONITOR, BestStep, check_validated
from stalign.train.callbacks import Checkpoints, EndsAtOnce, Timing, latest
from stalign.train.files import write_text
from stalign.train.lock import locked
from stalign.train.phases import comparable_from, fixed, phase, write_phases
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
    extend: bool = False,
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
    extend
        Go on from the last sound checkpoint, also with another number of steps or processes or another batch size.
    loggers, callbacks
        Of Lightning, beside those of this package.

    Returns
    -------
    The run, its network trained.

    Raises
    ------
    ValueError
        If the checkpoint to resume is of another run; or a key looks at a validation loss that there is not.
    FileNotFoundError
        If there is no checkpoint to extend.
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
        return _train(assemble, out, resume=resume, extend=extend, loggers=loggers, callbacks=callbacks)


def _train(
    assemble: Callable[[], R],
    out: Path,
    *,
    resume: bool,
    extend: bool,
    loggers: Sequence[Logger],
    callbacks: Sequence[Callback],
) -> R:
    folder = out / "checkpoints"
    last = _last(folder) if resume or extend else None
    if extend and last is None:
        hint = "Train it first, without `extend`"
        raise FileNotFoundError(message(f"Expected a run to extend in {str(out)!r}", found="no checkpoint", hint=hint))
    with own_threads(_threads(last)), own_randomness(), interruptible():
        run = assemble()
        options = run.options
        check_validated(options, validates=run.data.validates)
        path = _resumed(run, last, out, extend=extend) if last is not None else None
        best = _best(run, out) if options.keep_best or options.patience else None
        if first_process():
            for name, text in run.records.items():
                write_text(out / name, text)
            write_phases(out, run.module.phases)
        timing = Timing()
        checkpoints = Checkpoints(
            folder, every=options.checkpoint_every, keep=options.keep, best=best, keep_best=options.keep_best
        )
        for one in loggers:
            one.log_hyperparams(json.loads(run.records.get("config.json", "{}")))
        ours = [*([best] if best else []), checkpoints, timing, EndsAtOnce(), *callbacks]
        trainer = make_trainer(run, callbacks=ours, loggers=[*make_loggers(run, out), *loggers], out=out)
        if path is not None and (run.data.start >= run.steps or (best is not None and best.ended)):
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


def _resumed(run: Run, last: _Last, out: Path, *, extend: bool) -> Path:
    """See that a checkpoint is of this run, and let the run go on from its step, in a new phase if it has changed."""
    module, before, now = run.module, last.run, run.module.fingerprint
    same = {key: before.get(key) == now[key] for key in now}
    extends = fixed({key: before.get(key) for key in now}) == fixed(now)
    if not all(same.values()) and not (extend and extends):
        different = [
            _changed(before.get(key), now[key]) if key == "sections" else _difference(before.get(key), now[key], key)
            for key in now
            if not same[key]
        ]
        hint = "Resume with the configuration and sections of that run, or start in another `out`"
        if extends:
            hint = "`--extend`, or `fit(..., extend=True)`, goes on with them in a new phase"
        elif extend:
            hint = "More steps, other processes and another batch size extend a run; else start in another `out`"
        found = "; ".join(different)
        raise ValueError(message(f"Expected {str(last.path)!r} to be of this run", found=found, hint=hint))
    run.data.start = last.step
    new, steps = module.phases[0], before.get("steps", run.steps)
    module.phases = before.get("phases") or [phase(0, steps, new["batch_size"])]
    if not all(same.values()):
        if run.steps <= last.step:
            expected = f"Expected more than the {last.step} steps that are done"
            raise ValueError(message(expected, found=f"{run.steps} steps", hint="Raise `run.epochs` or `run.steps`"))
        module.phases = [*module.phases, phase(last.step, run.steps, new["batch_size"], _n_starts(out))]
        logger.info("Phase %d: to step %d of %d spots.", len(module.phases), run.steps, new["batch_size"])
    logger.info("Going on from step %d of %d.", run.data.start, run.steps)
    return last.path


def _best(run: Run, out: Path) -> BestStep:
    """Follow the validation loss, from what the log holds of it on."""
    phases, before = run.module.phases, []
    log = history(out) if run.data.start and _n_starts(out) else None
    if log is not None and MONITOR in log:
        done = log[log[MONITOR].notna() & log["step"].between(comparable_from(phases), run.data.start - 1)]
        before = [(int(step) + 1, float(value)) for step, value in zip(done["step"], done[MONITOR], strict=True)]
    return BestStep(run.options.patience, before, since=phases[-1]["start"])


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


def _n_starts(out: Path) -> int:
    """Count how often the run has been started."""
    return len(list((out / "logs").glob("start-*")))


def make_loggers(run: Run, out: Path) -> list[Any]:
    """Make the loggers of a run.

    Parameters
    ----------
    run
        The run.
    out
        Its folder.

    Returns
    -------
    One that writes CSV, and perhaps one for TensorBoard.
    """
    csv = CSVLogger(out, name="logs", version=f"start-{_n_starts(out)}", flush_logs_every_n_steps=run.options.log_every)
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
