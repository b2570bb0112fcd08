"""A simulated section, and public sections that are fetched when asked for."""

from __future__ import annotations

from stalign.datasets._build import build
from stalign.datasets._collections import hest, hest_table, stimage, stimage_table, stnet
from stalign.datasets._fetch import sources
from stalign.datasets._genes import gene_aliases, orthologs
from stalign.datasets._public import dlpfc, her2st, visium
from stalign.datasets._summary import summary
from stalign.datasets._toy import toy
from stalign.datasets._toy_hd import toy_hd
from stalign.datasets._toy_hd_folder import write_toy_hd

__all__ = [
    "build",
    "dlpfc",
    "gene_aliases",
    "her2st",
    "hest",
    "hest_table",
    "orthologs",
    "sources",
    "stimage",
    "stimage_table",
    "stnet",
    "summary",
    "toy",
    "toy_hd",
    "visium",
    "write_toy_hd",
]
