"""Preparation: niches, the windows of patches, and larger bins."""

from __future__ import annotations

from stalign.pp._niches import niches
from stalign.pp._patches import patches
from stalign.pp._rebin import rebin

__all__ = ["niches", "patches", "rebin"]
