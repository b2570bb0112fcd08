"""Plots of what tl wrote: they read, draw and change nothing."""

from __future__ import annotations

from stalign.pl._annotate import annotate
from stalign.pl._domains import domains
from stalign.pl._embedding import embedding
from stalign.pl._few_shot import few_shot
from stalign.pl._genes import genes
from stalign.pl._niches import niches
from stalign.pl._patches import patches
from stalign.pl._regions import regions
from stalign.pl._report import report
from stalign.pl._scores import scores
from stalign.pl._slide import slide
from stalign.pl._training import training

__all__ = [
    "annotate",
    "domains",
    "embedding",
    "few_shot",
    "genes",
    "niches",
    "patches",
    "regions",
    "report",
    "scores",
    "slide",
    "training",
]
