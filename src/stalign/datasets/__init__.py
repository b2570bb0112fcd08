"""A simulated section, and public sections that are fetched when asked for."""

from __future__ import annotations

from stalign.datasets._toy import toy

__all__ = ["toy"]
