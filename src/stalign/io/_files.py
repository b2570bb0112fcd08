"""Finding files in a folder, and saying what was found where one is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL_PX = 25_000_000  # images of up to as many px are put into the object, larger ones stay on disk


def folder(path: str | Path) -> Path:
    """Check that a folder is there.

    Parameters
    ----------
    path
        The folder.

    Returns
    -------
    Its absolute path.

    Raises
    ------
    FileNotFoundError
        If it is not there, or a file.
    """
    found = Path(path).expanduser().resolve()
    if not found.exists():
        parent = found.parent
        there = listing(parent) if parent.is_dir() else ()
        raise FileNotFoundError(message("Expected a folder", found=f"nothing at {found}", available=there))
    if not found.is_dir():
        raise FileNotFoundError(message("Expected a folder", found=f"the file {found}", hint="Pass its folder"))
    return found


def first(where: Path, names: Iterable[str], *, what: str, hint: str = "") -> Path:
    """Find the first of several files.

    Parameters
    ----------
    where
        Folder to look in.
    names
        File names or patterns, the best first.
    what
        What the file is, for the message.
    hint
        What to do where there is none.

    Returns
    -------
    The path.

    Raises
    ------
    FileNotFoundError
        If none is there.
    """
    names = list(names)
    for name in names:
        hits = sorted(where.glob(name))
        if hits:
            return hits[0]
    raise FileNotFoundError(
        message(
            f"Expected {what} in {where} ({' or '.join(names)})",
            found="no such file" if where.is_dir() else "no such folder",
            available=listing(where if where.is_dir() else where.parent),
            hint=hint,
        )
    )


def listing(where: Path) -> list[str]:
    """List a folder, for messages.

    Parameters
    ----------
    where
        The folder.

    Returns
    -------
    Names, sorted, folders with a slash.
    """
    if not where.is_dir():
        return []
    return sorted(path.name + ("/" if path.is_dir() else "") for path in where.iterdir())
