"""A simulated section, and public sections that are fetched when asked for."""

from __future__ import annotations

from stalign.datasets._public import dlpfc, her2st, visium
from stalign.datasets._toy import toy

__all__ = ["dlpfc", "her2st", "toy", "visium"]
