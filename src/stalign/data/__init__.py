"""What stalign reads from AnnData and SpatialData: tables, sections and their images."""

from __future__ import annotations

from stalign.data.genes import gene_ids
from stalign.data.images import SectionImage
from stalign.data.sections import SectionView, groups, library_names, sections
from stalign.data.slots import write
from stalign.data.table import has_counts, read_counts, read_totals, table_of

__all__ = [
    "SectionImage",
    "SectionView",
    "gene_ids",
    "groups",
    "has_counts",
    "library_names",
    "read_counts",
    "read_totals",
    "sections",
    "table_of",
    "write",
]
