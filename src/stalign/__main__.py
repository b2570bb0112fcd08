"""`python -m stalign`, which is the command `stalign`."""

from __future__ import annotations

import sys

from stalign.cli import main, parser

__all__ = ["main", "parser"]

if __name__ == "__main__":
    sys.exit(main())
