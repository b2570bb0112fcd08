"""A lock on the folder of a run, so that two processes never write to it at once."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

from stalign._settings import logger
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_FILE = "running.lock"
_FAR = 1 << 30  # where Windows locks a byte: what it locks nobody else can read
_BUSY = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}
_held: set[int] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing to the folder of a run.

    The lock is the operating system's: it ends with the process that holds it, however that ends, and holds over NFS.

    Parameters
    ----------
    folder
        The folder; made if absent.

    Raises
    ------
    RuntimeError
        If another process holds the lock; the message says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    file = _opened(path)
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        if sys.platform == "win32":  # which removes no open file
            os.close(file)
        with suppress(OSError):
            path.unlink()
        if sys.platform != "win32":  # first removed, so that nobody locks a file that is about to go
            os.close(file)


def _opened(path: Path) -> int:
    """Open and lock a file that is still there once it is locked."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
            if sys.platform == "win32" or _is(path, file):
                os.ftruncate(file, 0)
                os.write(file, json.dumps(_this_process()).encode())
                return file
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            if error.errno not in _BUSY:
                raise
            hint = "Wait for it to end, or end it"
            raise RuntimeError(
                message(f"Expected no other process to train in {str(path.parent)!r}", found=holder, hint=hint)
            ) from None
        os.close(file)


def _lock(file: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
        return
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            raise
        logger.warning("This file system knows no locks (%s): nothing keeps a second run out of this folder.", error)


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _this_process() -> dict[str, object]:
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"process": os.getpid(), "machine": platform.node(), "since": since}


def _holder(file: int) -> str:
    """Say who holds a lock, as it has written into the file."""
    try:
        os.lseek(file, 0, os.SEEK_SET)
        found = json.loads(os.read(file, 10_000))
        return f"process {found['process']} on {found['machine']}, since {found['since']}"
    except (OSError, ValueError, LookupError, TypeError):
        return "one that has not said which"


def _let_go() -> None:
    """Close the files in a process that was forked, which would keep the lock after its parent has gone."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
