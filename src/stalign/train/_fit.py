"""Pretraining: from slides and a configuration to a folder of weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from stalign._validate import message
from stalign.models.checkpoint import save
from stalign.models.checkpoint_files import CONFIG_FILE
from stalign.train._history import history
from stalign.train.assemble import assemble
from stalign.train.callbacks import found
from stalign.train.loop import first_process, train
from stalign.train.trainer import as_list, check_folder, explained_workers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stalign.train.config import TrainConfig
    from stalign.train.run import SectionRun


@explained_workers()
def fit(
    slides: Iterable[Any] | None,
    config: TrainConfig,
    *,
    resume: bool = False,
    loggers: Logger | Iterable[Logger] = (),
    callbacks: Callback | Iterable[Callback] = (),
) -> Path:
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
    loggers
        Loggers of Lightning, such as `lightning.pytorch.loggers.WandbLogger`, beside the CSV; they get the
        configuration as hyperparameters.
    callbacks
        Callbacks of Lightning, beside those of this package. What they keep in checkpoints has to be tensors and plain
        values, as checkpoints are read without running anything in them. Validation losses are named `val/total` and
        so on.

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
    more: dict[str, Any] = {
        "loggers": as_list(loggers, Logger, "loggers"),
        "callbacks": as_list(callbacks, Callback, "callbacks"),
    }
    run = train(lambda: assemble(slides, config), out, resume=resume, **more)
    if first_process():
        export(run, out / "weights", metrics=_losses(out))
    return out / "weights"


def export(run: SectionRun, folder: Path, *, metrics: dict[str, float]) -> Path:
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
        "steps": run.done,
        **run.module.values(),
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
