"""Manifests: which slides of a collection a run may see, as a CSV that a curator writes and a run reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from stalign._settings import logger
from stalign._validate import message
from stalign.train.config import SectionSpec
from stalign.train.files import write_text

COLUMNS = (
    "slide",
    "format",
    "root",
    "species",
    "technology",
    "tissue",
    "donor",
    "study",
    "title",
    "spots",
    "image",
    "kept",
    "why",
)


def kept_slides(manifest: str | Path) -> list[SectionSpec]:
    """Read a manifest back.

    Parameters
    ----------
    manifest
        CSV that a curator wrote.

    Returns
    -------
    How each kept slide is read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no manifest.
    """
    path = Path(manifest).expanduser()
    if not path.is_file():
        raise FileNotFoundError(message("Expected a manifest", found=f"no file {str(path)!r}"))
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    needed = {"slide", "format", "root", "kept"}
    if not needed <= set(table.columns):
        raise ValueError(message(f"Expected a manifest in {str(path)!r}", found=f"columns {', '.join(table)}"))
    kept = table[table["kept"].str.casefold() == "true"]
    return [
        SectionSpec(
            path=str(row["root"]),
            format=row["format"],
            slide=str(row["slide"]),
            donor=str(row.get("donor") or "") or None,
            study=str(row.get("study") or "") or None,
            image=str(row.get("image")).casefold() != "false",
        )
        for row in table.loc[kept.index].to_dict("records")
    ]


def write_manifest(rows: list[dict[str, Any]], root: Path, out: str | Path | None) -> pd.DataFrame:
    """Make a manifest.

    Parameters
    ----------
    rows
        One dictionary a slide, with all columns but `root`.
    root
        Folder of the collection.
    out
        CSV to write; None writes none.

    Returns
    -------
    The manifest.
    """
    table = pd.DataFrame(rows)
    table["root"] = str(root.resolve())
    table["spots"] = table["spots"].astype("Int64")
    table = table[list(COLUMNS)]
    kept = table["kept"]
    logger.info("Kept %d of %d slides, %d spots.", kept.sum(), len(table), int(table.loc[kept, "spots"].sum()))
    if out is not None:
        write_text(Path(out).expanduser(), table.to_csv(index=False))
    return table


def check_out(out: str | Path | None) -> None:
    """See that a manifest can be written to a file, before the work.

    Parameters
    ----------
    out
        The file, or None.

    Raises
    ------
    ValueError
        If it is a folder.
    """
    if out is not None and Path(out).expanduser().is_dir():
        expected = "Expected `out` to be a file to write the manifest to"
        raise ValueError(message(expected, found=f"the folder {str(out)!r}", hint="Add a file name to it"))
