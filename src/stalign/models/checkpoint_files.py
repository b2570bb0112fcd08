"""The two files of a checkpoint on disk: found, read, and both of one `save`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from stalign._validate import message

if TYPE_CHECKING:
    from pathlib import Path

    import torch

FORMAT = "stalign"
FORMAT_VERSION = 1
WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"
SAVING = ".saving-"  # start of the name of the folder in which `save` prepares both files
_TRIES = 5  # how often reading starts again where another process saves at the same time


def folder_of(path: Path) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    path
        The folder, or one of its two files.

    Returns
    -------
    The folder.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If a file is lacking, or the path is another file.
    """
    if not path.exists():
        hint = (
            "Packaged weights are loaded by name, with `stalign.models.load_weights`" if path.name == str(path) else ""
        )
        raise FileNotFoundError(message("Expected a checkpoint folder", found=f"nothing at {path}", hint=hint))
    folder = path.parent if path.name in (WEIGHTS_FILE, CONFIG_FILE) else path
    if not folder.is_dir():
        hint = "Weights of this package come as a folder; save one with `stalign.models.save`"
        raise ValueError(
            message(f"Expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}", found=f"the file {path}", hint=hint)
        )
    lacking = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
    if lacking:
        found = f"no {' and no '.join(lacking)} in {folder}"
        raise ValueError(message(f"Expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}", found=found))
    return folder


def contents(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """Read a checkpoint, all of one `save`.

    Parameters
    ----------
    folder
        Its folder.

    Returns
    -------
    What `config.json` holds, the weights by name, and the hash of their file.

    Raises
    ------
    ValueError
        If a file is no part of a checkpoint, was made by a later version, or is truncated or changed.
    """
    path = folder / WEIGHTS_FILE
    for last in (*[False] * (_TRIES - 1), True):
        before = _identity(path)
        record = _record(folder / CONFIG_FILE)
        try:
            found = sha256_of(path)
            if record.get("weights", {}).get("sha256", found) != found:
                record = _pending(folder, found) or record
            state = _state(path, record.get("weights", {}), found)
        except (ValueError, FileNotFoundError):
            if last or (_identity(path) == before and _record(folder / CONFIG_FILE) == record):
                raise
            continue  # another process has saved in the meantime
        if last or _identity(path) == before:
            return record, state, found
    raise AssertionError


def _identity(path: Path) -> tuple[int, int, int]:
    """Tell a file from another that is moved into its place."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def _pending(folder: Path, sha256: str) -> dict[str, Any] | None:
    """Find the configuration of these weights that a `save` has not moved into place, or not yet."""
    for path in folder.glob(f"{SAVING}*/{CONFIG_FILE}"):
        try:
            record = _record(path)
        except (ValueError, OSError):  # half of a file, or moved away in the meantime
            continue
        if record.get("weights", {}).get("sha256") == sha256:
            return record
    return None


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            message(f"Expected JSON in {path}", found=str(error), hint="The file is truncated or changed")
        ) from error
    return check_record(record, path)


def check_record(record: Any, path: Path) -> dict[str, Any]:
    """See that what a file says of its weights can be used.

    Parameters
    ----------
    record
        What it says.
    path
        The file, for messages.

    Returns
    -------
    The record.

    Raises
    ------
    ValueError
        If it is of something else or of a later version, or lacks something.
    """
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = repr(record.get("format")) if isinstance(record, dict) else type(record).__name__
        raise ValueError(
            message(f'Expected "format": "{FORMAT}" in {path}', found=found, hint="This is no stalign checkpoint")
        )
    version = record.get("format_version")
    if not isinstance(version, int) or version < 1 or version > FORMAT_VERSION:
        expected = f"Expected format_version 1 to {FORMAT_VERSION} in {path}"
        made = record.get("stalign_version", "unknown")
        raise ValueError(
            message(expected, found=version, hint=f"It was made by stalign {made}: upgrade to that version")
        )
    for name in ("weights", "meta"):
        if not isinstance(record.get(name, {}), dict):
            raise ValueError(message(f'Expected an object under "{name}" in {path}', found=repr(record[name])[:80]))
    vocabulary, ensembl = record.get("vocabulary"), record.get("ensembl")
    if not isinstance(vocabulary, list) or not vocabulary or not all(isinstance(name, str) for name in vocabulary):
        raise ValueError(
            message(f'Expected a list of gene symbols under "vocabulary" in {path}', found=repr(vocabulary)[:80])
        )
    if ensembl is not None and (not isinstance(ensembl, list) or len(ensembl) != len(vocabulary)):
        raise ValueError(
            message(f'Expected as many ids under "ensembl" as symbols in {path}', found=repr(ensembl)[:80])
        )
    return record


def _state(path: Path, recorded: dict[str, Any], found: str) -> dict[str, torch.Tensor]:
    """Read the weights of a file with the hash `found`, if it is the one that was recorded."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    size = path.stat().st_size
    if recorded.get("bytes", size) != size:
        expected = f"Expected {recorded['bytes']} bytes in {path}"
        raise ValueError(
            message(expected, found=f"{size} bytes", hint="The file is truncated or another; copy it again")
        )
    if recorded.get("sha256", found) != found:
        expected = f"Expected sha256 {recorded['sha256']} of {path}"
        raise ValueError(message(expected, found=found, hint="The file was changed or is another; copy it again"))
    try:
        # Windows replaces no file that is mapped, as by weights that are loaded and then saved to the same folder.
        return load(path.read_bytes()) if sys.platform == "win32" else load_file(path)
    except SafetensorError as error:
        raise ValueError(
            message(f"Expected safetensors in {path}", found=str(error), hint="Truncated or another kind of file")
        ) from error


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file is on disk. It is opened for writing, as Windows flushes no other.

    Parameters
    ----------
    path
        The file.
    """
    with path.open("rb+") as file:
        os.fsync(file.fileno())
