"""Files moved into place, on any system."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WAITS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds


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
