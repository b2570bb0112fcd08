"""Weights of a run at any moment: of its best, its last or any other checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stalign._settings import logger
from stalign._validate import message
from stalign.models.checkpoint import load, save
from stalign.models.run_files import ASKED, CHECKPOINTS, chosen, found, step_file
from stalign.train._history import history
from stalign.train.best_step import MONITOR
from stalign.train.trainer import check_folder


def export(out: str | Path, step: int | None = None, *, folder: str | Path | None = None) -> Path:
    """Write the weights of a run that goes on, was stopped or has ended.

    Parameters
    ----------
    out
        Folder of the run.
    step
        The checkpoint to take, by the optimiser steps done; None takes the one with the lowest validation loss where
        the run keeps it (`run.keep_best`), or else the last.
    folder
        Where to; by default `weights` in `out`, or with a `step` `weights-STEP` beside it.

    Returns
    -------
    The folder of the weights, which `tl.embed(weights=...)` takes. In `meta["export"]` is the step, why it was chosen,
    of how many, and the last validation loss up to it.

    Raises
    ------
    FileNotFoundError
        If there is no such run or checkpoint.
    ValueError
        If the checkpoint is damaged, or of a network of another package.
    OSError
        If the weights cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import stalign as st
    >>> from stalign.train.config import RunConfig, SamplerConfig
    >>> run = RunConfig(steps=2, checkpoint_every=1, tensorboard=False)
    >>> config = st.train.TrainConfig(out=tempfile.mkdtemp(), sampler=SamplerConfig(batch_size=32), run=run)
    >>> with st.settings.override(show_progress=False):
    ...     weights = st.train.fit([st.datasets.toy(n_rows=10)], config)
    >>> first = st.train.export(config.out, step=1)
    >>> first.name, st.models.load(first).meta["export"]["step"]
    ('weights-1', 1)
    """
    out = Path(out).expanduser()
    checkpoints = out / CHECKPOINTS
    if not checkpoints.is_dir():
        hint = "Give the `out` of a run; it has a checkpoint after `run.checkpoint_every` steps"
        raise FileNotFoundError(message(f"Expected a run in {str(out)!r}", found="no `checkpoints`", hint=hint))
    if step is None:
        path, why = chosen(checkpoints)
    else:
        path, why = step_file(checkpoints, step), ASKED
        if not path.is_file():
            there = [int(file.stem.removeprefix("step-")) for file in found(checkpoints)]
            hint = "`run.keep` says how many are kept"
            raise FileNotFoundError(
                message("Expected a checkpoint of that step", found=step, available=there, hint=hint)
            )
    target = (
        Path(folder).expanduser() if folder is not None else out / ("weights" if step is None else f"weights-{step}")
    )
    check_folder(target)
    one = load(path)
    done = one.meta["step"]
    losses, validation = _losses(out, done)
    record: dict[str, Any] = {"step": done, "steps": one.meta["steps"], "why": why}
    if validation is not None:
        record["validation_loss"] = validation
    meta = {key: value for key, value in one.meta.items() if key != "step"}
    meta |= {"steps": done, "metrics": losses, "export": record}
    save(target, one.network, vocabulary=one.vocabulary, ensembl=one.ensembl or None, meta=meta)
    logger.info("Exported step %d of %d (%s): %s.", done, record["steps"], why, target)
    return target


def _losses(out: Path, step: int) -> tuple[dict[str, float], float | None]:
    """Return the mean of each loss over the last tenth of the log up to a step, and the last validation loss."""
    try:
        log = history(out)
    except FileNotFoundError:
        return {}, None
    log = log[log["step"] < step]
    validation = log[MONITOR].dropna() if MONITOR in log else log["step"].iloc[:0]
    means = log.ffill().tail(-(-len(log) // 10)).mean()
    losses = {name: float(means[name]) for name in means.index if "/" in name and np.isfinite(means[name])}
    return losses, float(validation.iloc[-1]) if len(validation) else None
