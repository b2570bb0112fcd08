"""Preparation: niches and the windows of patches."""

from __future__ import annotations

from stalign.pp._niches import niches
from stalign.pp._patches import patches

__all__ = ["niches", "patches"]
