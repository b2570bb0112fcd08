"""Checkpoints that a kill cannot spoil, the best state of a short run, and where the time goes."""

from __future__ import annotations

import json
import os
import pickle
import signal
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist

from stalign._files import move
from stalign._settings import logger
from stalign._validate import message
from stalign.models.checkpoint_files import flush
from stalign.models.run_files import BEST_FILE, found, step_file
from stalign.train.best_step import MONITOR
from stalign.train.files import write_text

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from stalign.train.best_step import BestStep

DIVERGED = "Lower `optim.lr`, set `optim.grad_clip`, or train in fp32; then resume from the last checkpoint"
_DAMAGED = (
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    pickle.UnpicklingError,
)


class Checkpoints(pl.Callback):
    """Write a checkpoint every so many steps under a temporary name, move it into place, and keep the last few.

    A checkpoint is moved into place once what was logged up to its step is on disk, so that no checkpoint is ever
    ahead of the loss curve. Lightning's `ModelCheckpoint` does not wait for the log, and does not look at the weights.

    Parameters
    ----------
    folder
        Where to.
    every
        Steps between checkpoints.
    keep
        How many are kept.
    best
        Follows the validation loss: a checkpoint is then written at each validation too.
    keep_best
        Whether that of its step is kept as well.
    """

    def __init__(
        self, folder: Path, *, every: int, keep: int, best: BestStep | None = None, keep_best: bool = False
    ) -> None:
        self.folder = folder
        self.every = every
        self.keep = keep
        self.best = best
        self.keep_best = keep_best
        self._written: tuple[Path, Path] | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Write after every `every` steps, before a validation that is followed, and after the last step.

        Raises
        ------
        FloatingPointError
            If the weights are not finite any more.
        OSError
            If the checkpoint cannot be written.
        """
        step = trainer.global_step
        followed = self.best is not None and step % int(trainer.val_check_batch or 1) == 0
        if step % self.every and step != trainer.num_training_batches and not followed:
            return
        broken = [name for name, value in pl_module.state_dict().items() if not value.isfinite().all()]
        if broken:
            expected = f"Expected finite weights after step {step}, of which no checkpoint is written"
            raise FloatingPointError(message(expected, found=f"values that are not in {broken[0]}", hint=DIVERGED))
        final = step_file(self.folder, step)
        temporary = self.folder / f".saving-{step:08d}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(temporary, weights_only=False)
            if trainer.is_global_zero:
                flush(temporary)
        except OSError as error:
            raise self._failed(error, temporary, final) from error
        self._written = (temporary, final)

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Move what the step before wrote into place."""
        self._publish(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move what the last step wrote into place."""
        self._publish(trainer)

    def _publish(self, trainer: pl.Trainer) -> None:
        if self._written is None:
            return
        temporary, final = self._written
        self._written = None
        try:
            for log in trainer.loggers:
                log.save()
            if trainer.is_global_zero:
                move(temporary, final)
        except OSError as error:
            raise self._failed(error, temporary, final) from error
        if trainer.is_global_zero:
            self._prune()

    def _prune(self) -> None:
        """Delete what is not kept, once it is written down which is the best."""
        old = found(self.folder)[self.keep :]
        best = None if self.best is None or not self.keep_best else step_file(self.folder, self.best.step)
        if self.best is not None and best is not None and best.is_file():
            record = {"step": self.best.step, "validation_loss": self.best.value}
            write_text(self.folder / BEST_FILE, json.dumps(record) + "\n")
        else:  # that of losses which cannot be compared any more
            (self.folder / BEST_FILE).unlink(missing_ok=True)
        old = [path for path in old if path != best]
        for path in old:
            with suppress(PermissionError):  # on Windows, while somebody reads it
                path.unlink(missing_ok=True)

    def _failed(self, error: OSError, temporary: Path, final: Path) -> OSError:
        temporary.unlink(missing_ok=True)
        kept = ", ".join(p.name for p in found(self.folder)) or "none"
        hint = f"Make room and resume; checkpoints that are sound: {kept}"
        msg = message(f"Cannot write the checkpoint {str(final)!r}", found=str(error), hint=hint)
        return OSError(error.errno, msg)


class EndsAtOnce(pl.Callback):
    """End a run at SIGTERM as at SIGKILL, and once torchrun has gone, as it can go on from its last checkpoint.

    Lightning's own handler makes processes wait for each other inside of it, where several of them wait for ever.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the place of Lightning's handler, which Lightning takes away again at the end."""

        def end(number: int, _: object) -> None:
            if trainer.strategy.launcher is not None:
                trainer.strategy.launcher.kill(number)  # the processes that it has started
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, end)
        self._launcher = os.getppid() if dist.is_available() and dist.is_torchelastic_launched() else None

    def on_train_batch_start(self, *_: Any) -> None:
        """See that torchrun, which somebody may have killed to end the run, is still there."""
        if self._launcher is not None and os.getppid() != self._launcher:
            logger.warning("torchrun has gone, and with it this process ends.")
            os.kill(os.getpid(), signal.SIGTERM)


def latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Find the last checkpoint that can be read; a truncated one falls back to the one before.

    Parameters
    ----------
    folder
        Where they are.

    Returns
    -------
    The file and what is in it, or None where there is no checkpoint.

    Raises
    ------
    RuntimeError
        If there are checkpoints and none can be read; the message gives the cause for each.
    """
    causes = []
    for path in found(folder):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content["state_dict"], content["global_step"]
        except _DAMAGED as error:
            reason = f"damaged, {type(error).__name__}"
            causes.append(f"{path.name}: {reason}")
            logger.warning("The checkpoint %s cannot be read (%s); trying the one before.", path, reason)
            continue
        return path, content
    if causes:
        raise RuntimeError(message(f"Expected a sound checkpoint in {str(folder)!r}", found="; ".join(causes)))
    return None


class Best(pl.Callback):
    """Keep the weights with the lowest validation loss in memory, those from before training among them.

    Lightning's `ModelCheckpoint` keeps none from before the first step, and keeps them on disk.
    """

    def __init__(self) -> None:
        self.value = self.first = float("inf")
        self.step = 0
        self.state: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the loss with the best so far."""
        value = float(trainer.callback_metrics[MONITOR])
        if value < self.value:
            self.value, self.step = value, trainer.global_step
            self.state = {k: v.detach().clone() for k, v in pl_module.state_dict().items()}


class Timing(pl.Callback):
    """Measure how long steps take and how much of it is spent waiting for data.

    Parameters
    ----------
    skip
        First steps that are not counted.
    synchronise
        Whether to wait for the GPU after each step, for exact times of single steps.
    """

    def __init__(self, skip: int = 1, *, synchronise: bool = False) -> None:
        self.skip = skip
        self.synchronise = synchronise
        self.steps = 0
        self.spots = 0
        self.seconds = 0.0
        self.waited = 0.0
        self._seen = 0
        self._end = time.perf_counter()
        self._start = self._end

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._end = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """Note when a batch has come."""
        self._start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note when a step has ended."""
        if self.synchronise and trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._seen >= self.skip:
            self.steps += 1
            self.spots += len(batch) * trainer.world_size
            self.seconds += now - self._end
            self.waited += self._start - self._end
            values = {"spots_per_second": self.rate, "share_waiting": self.share_waiting}
            pl_module.log_dict(values, batch_size=len(batch))
        self._seen += 1
        self._end = now

    @property
    def rate(self) -> float:
        """Spots per second over all processes."""
        return self.spots / self.seconds if self.seconds else 0.0

    @property
    def share_waiting(self) -> float:
        """Share of the time in which the training loop waited for data."""
        return self.waited / self.seconds if self.seconds else 0.0
