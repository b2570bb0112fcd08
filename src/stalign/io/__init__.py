"""Readers of Space Ranger folders, STimage-1K4M, HEST and h5ad files with their images, and of annotations."""

from __future__ import annotations

from stalign.io._annotations import read_annotations, write_annotations
from stalign.io._h5ad import read_h5ad
from stalign.io._hest import read_hest
from stalign.io._stimage import read_stimage
from stalign.io._visium import read_visium
from stalign.io._visium_hd import read_visium_hd

__all__ = [
    "read_annotations",
    "read_h5ad",
    "read_hest",
    "read_stimage",
    "read_visium",
    "read_visium_hd",
    "write_annotations",
]
