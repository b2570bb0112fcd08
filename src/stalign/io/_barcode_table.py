"""Tables of barcodes and labels, as Loupe Browser and spreadsheets write them."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._settings import logger
from stalign._validate import message

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

    from stalign.data import Section

_SUFFIX = re.compile(r"-\d+$")


def read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Read names of columns, and rows, of a CSV with commas, semicolons or tabs; empty lines are left out."""
    expected = f"Expected a table of barcodes and labels in {path}"
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(message(expected, found=str(error), hint="Save it as UTF-8")) from error
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=head.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise ValueError(message(expected, found=str(error))) from error
    filled = [(number, [cell.strip() for cell in line]) for number, line in enumerate(lines, start=1) if any(line)]
    names = filled[0][1] if filled else []
    if len(names) < 2:
        expected = f"Expected a column of barcodes and one of labels in {path}"
        raise ValueError(message(expected, found=f"columns {', '.join(names)}" if names else "an empty file"))
    for number, row in filled[1:]:
        if len(row) != len(names):
            found = f"{len(row)} in row {number}: {separator.join(row)!r}"
            hint = "Put labels that hold the separator in quotes"
            raise ValueError(message(f"Expected {len(names)} cells in each row of {path}", found=found, hint=hint))
    return names, [row for _, row in filled[1:]]


def table_labels(path: Path, table: AnnData, view: Section) -> tuple[np.ndarray, str]:
    """Labels of the section's spots by barcode, and the name of the column."""
    names, rows = read_rows(path)
    first = next((i for i, name in enumerate(names) if name.lower() in {"barcode", "barcodes"}), 0)
    second = next(i for i in range(len(names)) if i != first)
    barcodes = pd.Series([row[first] for row in rows], dtype=object)
    if barcodes.duplicated().any():
        twice = barcodes[barcodes.duplicated()].iloc[0]
        raise ValueError(message(f"Expected each barcode once in {path}", found=f"{twice!r} twice"))
    own = pd.Index(barcodes_of(table)[view.rows])
    if names[first] in own:
        hint = "Add a first line such as Barcode,label"
        raise ValueError(
            message(f"Expected names of columns in the first line of {path}", found=names[first], hint=hint)
        )
    place = own.get_indexer(barcodes)
    if (place < 0).any():
        bare, given = own.str.replace(_SUFFIX, "", regex=True), barcodes.str.replace(_SUFFIX, "", regex=True)
        if bare.is_unique and given.is_unique:
            place = bare.get_indexer(given)
    labels = np.full(len(own), None, dtype=object)
    hit = place >= 0
    labels[place[hit]] = [row[second] or None for row, there in zip(rows, hit, strict=True) if there]
    if not hit.any():
        found = f"{', '.join(barcodes[:3]) or 'none'} in the file and {', '.join(own[:3])} in the section"
        raise ValueError(message("Expected barcodes of the section", found=found))
    if not hit.all():
        logger.warning("%d of %d barcodes of %s are not in the section.", (~hit).sum(), len(hit), path.name)
    if all(label is None for label in labels):
        raise ValueError(message(f"Expected labels in the column {names[second]!r} of {path}", found="none"))
    return labels, names[second] or "annotation"


def barcodes_of(table: AnnData) -> np.ndarray:
    """Barcodes of the spots as the instrument wrote them: `obs["barcode"]` where there is one, else the names."""
    values = table.obs["barcode"] if "barcode" in table.obs else table.obs_names
    return np.array([str(value) for value in values], dtype=object)
