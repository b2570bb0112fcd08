"""placeholder"""

from __future__ import annotations

from pathlib import Path


def allowed(path: Path) -> bool:
    """Placeholder"""
    return bool(path)
