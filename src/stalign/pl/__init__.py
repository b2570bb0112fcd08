"""Plots of what tl wrote."""

from __future__ import annotations

from stalign.pl._domains import domains
from stalign.pl._niches import niches
from stalign.pl._patches import patches

__all__ = ["domains", "niches", "patches"]
