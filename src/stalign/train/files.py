"""Files that are written as a whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from stalign._files import move


def write_text(path: Path, text: str) -> None:
    """Write a text under a temporary name beside its place, then move it there.

    Parameters
    ----------
    path
        The file; its folder is made if absent.
    text
        What goes into it.

    Raises
    ------
    OSError
        If it cannot be written; what was there before is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        temporary = Path(folder) / path.name
        temporary.write_text(text, encoding="utf-8")
        move(temporary, path)
