"""Files that are written as a whole or not at all."""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAITS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place to write a file, or a folder, and move it to `path` once that is done.

    Parameters
    ----------
    path
        Where to. A file that is there is replaced, and kept if writing fails.

    Yields
    ------
    Where to write: a path of the same name in a folder beside it.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        move(temporary, path)


def move(source: Path, target: Path) -> None:
    """Move a file into the place of another; on Windows try for some seconds, as scanners keep new files open a while.

    Parameters
    ----------
    source
        The file.
    target
        Where to, on the same disk.

    Raises
    ------
    OSError
        If it cannot be moved.
    """
    for wait in _WAITS if sys.platform == "win32" else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    source.replace(target)


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file by way of `whole_file`, and give its path."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def sha256_of(path: Path) -> str:
    """Hash a file: sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
