"""The checkpoints of a training run: found in its folder, and read as weights."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import torch

from stalign._settings import logger
from stalign._validate import message
from stalign.models import checkpoint_files
from stalign.models.checkpoint_files import (
    CONFIG_FILE,
    FORMAT,
    FORMAT_VERSION,
    WEIGHTS_FILE,
    check_record,
    folder_of,
    sha256_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stalign.models.kinds import Network

CHECKPOINTS = "checkpoints"  # folder in that of a run
BEST_FILE = "best.json"  # in it: the step with the lowest validation loss
RECORD = "weights"  # key of a checkpoint under which it says what its weights are
LAST, BEST, ASKED = "last checkpoint", "lowest validation loss", "asked for"
_SUFFIX = ".ckpt"
_NETWORK = "network."  # start of the names of the network's weights in a checkpoint


def as_record(
    network: Network, vocabulary: Sequence[str], ensembl: Sequence[str], meta: dict[str, Any]
) -> dict[str, Any]:
    """Return what a checkpoint in training says of its weights.

    Parameters
    ----------
    network
        The network.
    vocabulary
        V gene symbols, in the order of the network's genes.
    ensembl
        V Ensembl ids without version, "" where unknown; empty where none are known.
    meta
        Training data, licence and recipe, as plain values.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": network.config.to_dict(),
        "meta": meta,
        "vocabulary": list(vocabulary),
        "ensembl": list(ensembl) or None,
    }


def step_file(folder: Path, step: int) -> Path:
    """Return where the checkpoint of a step is.

    Parameters
    ----------
    folder
        The folder of the checkpoints.
    step
        Optimiser steps done.
    """
    return folder / f"step-{step:08d}{_SUFFIX}"


def found(folder: Path) -> list[Path]:
    """List checkpoints, the last first.

    Parameters
    ----------
    folder
        Where they are.

    Returns
    -------
    The files.
    """
    return sorted(folder.glob(f"step-*{_SUFFIX}"), reverse=True)


def best_of(folder: Path) -> dict[str, Any] | None:
    """Read which checkpoint of a run has the lowest validation loss.

    Parameters
    ----------
    folder
        The folder of the checkpoints.

    Returns
    -------
    Its `step` and `validation_loss`; None where the run does not keep the best.
    """
    path = folder / BEST_FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def chosen(folder: Path) -> tuple[Path, str]:
    """Choose the checkpoint whose weights a run is known by: the best where it keeps that, or else the last.

    Parameters
    ----------
    folder
        The folder of the checkpoints.

    Returns
    -------
    The file and why it was chosen.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    files, best = found(folder), best_of(folder)
    path = files[0] if files else None
    if best is not None:
        path = step_file(folder, best["step"])
    if path is None or not path.is_file():
        there = ", ".join(file.name for file in files) or "none"
        expected = f"Expected the checkpoint {path.name} in" if path else "Expected a checkpoint in"
        hint = f"Name one, `stalign.train.export({str(folder.parent)!r}, step=...)`" if files else ""
        raise FileNotFoundError(message(f"{expected} {str(folder)!r}", found=there, hint=hint))
    return path, LAST if best is None else BEST


def source_of(path: Path) -> Path:
    """Return where the weights of a path are.

    Parameters
    ----------
    path
        A folder of weights, one of its two files, the folder of a run, or one of its checkpoints.

    Returns
    -------
    A folder of weights, or the checkpoint of a run.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path, or no checkpoint in the run.
    ValueError
        If the path is something else.
    """
    if path.suffix == _SUFFIX and path.is_file():
        return path
    folder = path if path.name == CHECKPOINTS else path / CHECKPOINTS
    if (path / WEIGHTS_FILE).exists() or not folder.is_dir():
        return folder_of(path)
    exported = folder.parent / "weights"
    if (exported / CONFIG_FILE).is_file():
        return exported
    checkpoint, why = chosen(folder)
    logger.warning("No weights were exported from the run in %s: taking %s (%s).", folder.parent, checkpoint.name, why)
    return checkpoint


def contents(source: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Read weights, of a folder or of a checkpoint in training.

    Parameters
    ----------
    source
        What `source_of` returned.

    Returns
    -------
    What they say of themselves, the tensors by name, and the hash of their file.

    Raises
    ------
    ValueError
        If they are truncated, changed, or of another kind or version.
    """
    if source.is_dir():
        return checkpoint_files.contents(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=True, mmap=True)
        state, record = content["state_dict"], content.get(RECORD)
    except (RuntimeError, EOFError, KeyError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        hint = "It is truncated, or no checkpoint; take another"
        expected = f"Expected a checkpoint of a training run in {str(source)!r}"
        raise ValueError(message(expected, found=f"{type(error).__name__}: {error}"[:200], hint=hint)) from error
    if record is None:
        hint = "Resume its run with `stalign train CONFIG --resume`, and take a checkpoint that it writes"
        expected = f"Expected the checkpoint {str(source)!r} to say what its weights are"
        raise ValueError(message(expected, found="nothing, as of an earlier version or of another network", hint=hint))
    # Copies, so that the file is not kept open: the run deletes it in its turn.
    tensors = {name.removeprefix(_NETWORK): t.clone() for name, t in state.items() if name.startswith(_NETWORK)}
    return check_record(record, source), tensors, sha256_of(source)
