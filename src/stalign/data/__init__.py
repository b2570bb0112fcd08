"""What stalign reads from AnnData and SpatialData, and how it writes: sections, their images, slots."""

from __future__ import annotations

from stalign.data.counts import CountKeys
from stalign.data.derived import log_changes, niche_of, niche_slots, window_slots
from stalign.data.gene_tables import aliases_of, read_aliases, read_orthologs
from stalign.data.genes import gene_ids
from stalign.data.images import SectionImage
from stalign.data.records import check_key, check_writable, facts, record, result_record, section_row, section_table
from stalign.data.section import Section
from stalign.data.sections import open_sections, warn_small_spots
from stalign.data.slots import merged, write
from stalign.data.table import (
    check_labels,
    has_counts,
    label_columns,
    library_column,
    read_counts,
    read_totals,
    table_of,
)
from stalign.data.vocabulary import Vocabulary

__all__ = [
    "CountKeys",
    "Section",
    "SectionImage",
    "Vocabulary",
    "aliases_of",
    "check_key",
    "check_labels",
    "check_writable",
    "facts",
    "gene_ids",
    "has_counts",
    "label_columns",
    "library_column",
    "merged",
    "niche_of",
    "niche_slots",
    "open_sections",
    "read_aliases",
    "read_counts",
    "read_orthologs",
    "read_totals",
    "record",
    "result_record",
    "log_changes",
    "section_row",
    "section_table",
    "table_of",
    "warn_small_spots",
    "window_slots",
    "write",
]
