"""The positions file of Space Ranger, in the forms in which it is passed on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from stalign._validate import message
from stalign.io._files import read_errors
from stalign.io.tables import empty, numeric, one_row_each, read_rows

if TYPE_CHECKING:
    from pathlib import Path

FILES = (
    "tissue_positions.csv",
    "tissue_positions_list.csv",
    "tissue_positions.csv.gz",
    "tissue_positions_list.csv.gz",
    "tissue_positions.parquet",
    "tissue_positions*.txt*",
    "tissue_positions*.tsv*",
)
_COLUMNS = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
_IN_TISSUE = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def read_positions(file: Path) -> pd.DataFrame:
    """Read the positions file: in_tissue as bool, the other columns as float, indexed by barcode."""
    if file.suffix == ".parquet":
        with read_errors("a table in parquet", file):
            table = pd.read_parquet(file)
        table = table if "barcode" in table else table.rename_axis("barcode").reset_index()
    else:
        table = _with_header(read_rows(file), file)
    repeated = [name for name in ("barcode", *_COLUMNS) if list(table.columns).count(name) != 1]
    if repeated:
        found = ", ".join(str(name) for name in table.columns if name != "barcode")
        expected = f"Expected columns {', '.join(_COLUMNS)} in {file}, each once"
        raise ValueError(message(expected, found=found, hint="Rename them as Space Ranger does"))
    if table.empty:
        raise empty("spots", file)
    table = table.set_index(table["barcode"].astype(str))[_COLUMNS]
    inside = table["in_tissue"].astype(str).str.lower().map(_IN_TISSUE)
    if inside.isna().any():
        spot = inside.index[inside.isna()][0]
        found = f"{table['in_tissue'][inside.isna().to_numpy()].iloc[0]!r} for spot {spot!r}"
        raise ValueError(
            message(
                f"Expected in_tissue to be 0 or 1 in {file}", found=found, hint="Write 1 for spots in tissue, else 0"
            )
        )
    placed = numeric(table, _COLUMNS[1:], file, required=inside.to_numpy(dtype=bool))
    for name in ("array_row", "array_col"):
        broken = placed[name].notna() & (placed[name] % 1 != 0)
        if broken.any():
            found = f"{placed[name][broken].iloc[0]} for spot {placed.index[broken][0]!r}"
            raise ValueError(message(f"Expected whole numbers in column {name!r} of {file}", found=found))
    placed.insert(0, "in_tissue", inside.to_numpy(dtype=bool))
    return one_row_each(placed, file)


def _with_header(rows: list[list[str]], file: Path) -> pd.DataFrame:
    """Make a table of rows whose first may be a header, in any order and case, also one cell short as R leaves it."""
    if not rows:
        raise empty("spots", file)
    header = [name.lower() for name in rows[0]]
    if len(header) == len(_COLUMNS) + 1 and header[1] in _IN_TISSUE:
        header = ["barcode", *_COLUMNS]
    else:
        rows = rows[1:]
        header = ["barcode", *header] if rows and len(rows[0]) == len(header) + 1 else header
        header = header if "barcode" in header else ["barcode", *header[1:]]
    odd = next((row for row in rows if len(row) != len(header)), None)
    if odd is not None:
        found = f"{len(odd)} cells in the row of {odd[0]!r}"
        expected = f"Expected {len(header)} cells in each row of {file}"
        raise ValueError(message(expected, found=found, hint="Copy or fetch the file again, or mend the row"))
    return pd.DataFrame(rows, columns=header)
