"""The tables by name, and the module in this folder that makes each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

TABLES = {
    "st-align-table1": "st_align_table1",
    "st-align-table2": "st_align_table2",
    "st-align-table3": "st_align_table3",
    "st-align-figure3": "st_align_figure3",
    "st-align-sensitivity": "st_align_sensitivity",
    "stimage-probe": "stimage_probe",
    "stimage-tsne": "stimage_tsne",
    "hest-bench": "hest_bench",
    "peers": "peers",
    "speed": "speed",
    "scale": "scale",
}


def table(name: str) -> ModuleType:
    """Import the module of a table."""
    return import_module(f"benchmarks.tables.{TABLES[name]}")
