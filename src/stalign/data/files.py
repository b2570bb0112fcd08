"""Which image files that an object names may be opened.

An object can come from a stranger and name any file of this machine, whose pixels would then be in figures and reports.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign._settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED: set[Path] = set()  # files that the user of this process named, or that lie in a folder read as a whole


def allow(path: str | Path) -> Path:
    """Record an image file that the user named, or that lies in a folder that the user named.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Its absolute path, links followed.
    """
    real = Path(path).expanduser().resolve()
    _NAMED.add(real)
    return real


def allowed(path: str | Path) -> bool:
    """Find out whether an image file that an object names may be opened.

    Parameters
    ----------
    path
        The file; relative to the current folder.

    Returns
    -------
    Whether it was recorded by `allow` in this process, or lies below `settings.image_root` or the current folder, links
    followed.
    """
    try:
        real = Path(path).resolve()
    except (OSError, RuntimeError, ValueError):  # too long a name, links in a circle, NUL
        return False
    return real in _NAMED or below(real, [part_of_disk(Path.cwd()), settings.image_root])


def part_of_disk(folder: Path) -> Path | None:
    """Get a folder, or None for the root of the file system, below which everything lies."""
    return None if folder == folder.parent else folder


def below(file: Path, folders: Sequence[Path | None]) -> bool:
    """Find out whether a file lies below one of several folders.

    Parameters
    ----------
    file
        The file.
    folders
        The folders; None is skipped.

    Returns
    -------
    Whether it does, links followed.
    """
    real = file.resolve()
    return any(real.is_relative_to(folder.expanduser().resolve()) for folder in folders if folder is not None)
