"""Files that are written as a whole or not at all."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._files import move

if TYPE_CHECKING:
    from collections.abc import Iterator


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


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file by way of `whole_file`, and give its path."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return path


def sha256_of(path: Path) -> str:
    """Hash a file: sha256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
