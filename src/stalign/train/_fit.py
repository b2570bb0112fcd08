"""Pretraining: from slides and a configuration to a folder of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from stalign._validate import message
from stalign.models.checkpoint import Checkpoint, load
from stalign.models.checkpoint_files import CONFIG_FILE
from stalign.models.run_files import found
from stalign.train._export import export
from stalign.train.assemble import assemble
from stalign.train.loop import first_process, train
from stalign.train.ranks import several
from stalign.train.trainer import as_list, check_folder, explained_workers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.config import TrainConfig


@explained_workers()
def fit(
    slides: Iterable[Any] | None,
    config: TrainConfig,
    *,
    resume: bool = False,
    extend: bool = False,
    loggers: Logger | Iterable[Logger] = (),
    callbacks: Callback | Iterable[Callback] = (),
) -> Checkpoint:
    """Train a network from its beginning, or from the weights that `model.init` names.

    Parameters
    ----------
    slides
        AnnData, SpatialData, paths, `SectionSpec`, or pairs of a table in memory and the `SectionSpec` that says how
        it is read; None takes those that `config.data` names.
    config
        The run.
    resume
        Go on from the last sound checkpoint in `config.out`, where there is one.
    extend
        Go on likewise, but perhaps with another number of steps or processes or another batch size: a new phase of the
        run, with its optimiser and the schedules of a run of that length.
    loggers
        Loggers of Lightning, such as `lightning.pytorch.loggers.WandbLogger`, beside the CSV; they get the
        configuration as hyperparameters.
    callbacks
        Callbacks of Lightning, beside those of this package. What they keep in checkpoints has to be tensors and plain
        values, as checkpoints are read without running anything in them. Validation losses are named `val/total` and
        so on.

    Returns
    -------
    The weights, for `tl.embed(weights=...)`: those of the last step, or with `run.keep_best` of the step with the
    lowest validation loss. Their `path` is `weights` in `config.out`.

    Raises
    ------
    FileExistsError
        If `config.out` holds checkpoints or weights and neither `resume` nor `extend` is True.
    FileNotFoundError
        If there is no run to extend.
    ValueError
        If no section can be used, with the reason for each; or the checkpoint to resume is of another run.
    RuntimeError
        If a section cannot be read, no checkpoint is sound, or another process trains in `config.out`.
    TypeError
        If a logger or a callback is none of `lightning.pytorch`.
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
    >>> weights.path.name, weights.meta["steps"], sorted(file.name for file in weights.path.iterdir())
    ('weights', 2, ['config.json', 'weights.safetensors'])
    """
    out = Path(config.out)
    folder = out / "checkpoints"
    there = {"checkpoints": bool(found(folder)), "weights": (out / "weights" / CONFIG_FILE).is_file()}
    if any(there.values()) and not (resume or extend):
        hint = "Resume or extend it, or name another `out`"
        some = " and ".join(name for name in there if there[name])
        raise FileExistsError(message(f"Expected no run in {str(out)!r}", found=some, hint=hint))
    check_folder(out)
    more: dict[str, Any] = {
        "loggers": as_list(loggers, Logger, "loggers"),
        "callbacks": as_list(callbacks, Callback, "callbacks"),
    }
    train(lambda: assemble(slides, config), out, resume=resume, extend=extend, **more)
    if first_process():
        export(out)
    if several():
        dist.barrier()  # the first process writes what all read
    return load(out / "weights" if first_process() or several() else out)  # no group where nothing was left to train
