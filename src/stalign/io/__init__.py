"""Readers of Space Ranger, STimage-1K4M, HEST, h5ad files with images, slides without spots, annotations, gene sets."""

from __future__ import annotations

from stalign.data.gene_sets import read_gmt
from stalign.io._annotations import read_annotations, write_annotations
from stalign.io._h5ad import read_h5ad
from stalign.io._hest import read_hest
from stalign.io._slide import read_slide
from stalign.io._stimage import read_stimage
from stalign.io._visium import read_visium
from stalign.io._visium_hd import read_visium_hd

__all__ = [
    "read_annotations",
    "read_gmt",
    "read_h5ad",
    "read_hest",
    "read_slide",
    "read_stimage",
    "read_visium",
    "read_visium_hd",
    "write_annotations",
]
