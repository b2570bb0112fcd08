"""Which slides of a public collection a run may see: curators of STimage-1K4M and HEST folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stalign._validate import message
from stalign.io.tables import read_table
from stalign.train.manifest import check_out, write_manifest
from stalign.train.patterns import as_patterns, matches, warn_unfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_DONOR = ("donor", "donor_id", "patient", "patient_id", "subject")


def curate_stimage(
    root: str | Path,
    out: str | Path | None = None,
    *,
    species: Sequence[str] = ("human",),
    technology: Sequence[str] = ("Visium",),
    min_spots: int = 50,
    exclude: Sequence[str] = (),
    donors: Mapping[str, str] | None = None,
    images: bool = True,
    files: bool = True,
) -> pd.DataFrame:
    """Choose slides of an STimage-1K4M copy.

    Parameters
    ----------
    root
        The collection's folder, with `meta`, `ST`, `Visium` and `VisiumHD`; or its metadata table alone.
    out
        CSV to write the manifest to, for `data.manifest` of a training configuration.
    species, technology
        Values of the table's columns `species` and `tech` to keep; empty keeps all.
    min_spots
        Slides with fewer spots are dropped.
    exclude
        Patterns (`fnmatch`) of slide names, donors, PubMed ids and titles that may not be used.
    donors
        Donor of each slide. Else that of a column `donor`, `donor_id`, `patient`, `patient_id` or `subject` of the
        table, if there is one: the table as published has none.
    images
        Whether a slide has to have its image. Without, a slide that has none is trained on its counts.
    files
        Whether the files of a slide have to be on disk. Without, the table alone is judged, before anything is fetched.

    Returns
    -------
    The manifest, one row for each of the table: what was kept, what was dropped and why.

    Raises
    ------
    FileNotFoundError
        If there is no metadata table.
    ValueError
        If the table has no rows, lacks a column or cannot be read, or `out` is a folder.

    Notes
    -----
    The paper names 573 human Visium slides; the table of the collection has 531 with 1,301,755 spots, none of them
    with fewer than 50.

    Examples
    --------
    >>> import stalign as st
    >>> table = st.train.curate_stimage("path/to/STimage-1K4M", "manifest.csv", exclude=["*Maynard*"])  # doctest: +SKIP
    """
    check_out(out)
    root, table = _table(root, "meta", "meta_all_gene*.csv", ("slide", "species", "tech"))
    there, rows = _Folders(), []
    for row in table.to_dict("records"):
        slide, tech = _text(row["slide"]), str(row["tech"])
        where = root / tech
        entry = {
            "slide": slide,
            "format": "stimage",
            "species": row["species"],
            "technology": tech,
            "tissue": row.get("tissue"),
            "donor": (donors or {}).get(slide or "") or next(filter(None, (_text(row.get(c)) for c in _DONOR)), None),
            "study": _pmid(row.get("pmid")),
            "title": row.get("title"),
            "spots": _number(row.get("spot_num")),
        }
        names = {
            "counts": ("gene_exp", f"{slide}_count"),
            "coordinates": ("coord", f"{slide}_coord"),
            "image": ("image", slide or ""),
        }
        missing = [what for what, (part, name) in names.items() if files and name not in there[where / part]]
        entry["image"] = "image" not in missing if files else None
        missing = [what for what in missing if images or what != "image"]
        rows.append(_judge(entry, species, technology, min_spots, exclude, missing))
    return write_manifest(_once(rows, exclude, ("technology", "slide")), root, out)


def curate_hest(
    root: str | Path,
    out: str | Path | None = None,
    *,
    species: Sequence[str] = ("Homo sapiens",),
    technology: Sequence[str] = ("Visium",),
    min_spots: int = 50,
    exclude: Sequence[str] = (),
    files: bool = True,
) -> pd.DataFrame:
    """Choose samples of a HEST-1k copy.

    Parameters
    ----------
    root
        The collection's folder, with `HEST_v*.csv`, `st` and, where they were downloaded, `wsis`; or its table alone.
    out
        CSV to write the manifest to, for `data.manifest` of a training configuration.
    species, technology
        Values of the table's columns `species` and `st_technology` to keep; empty keeps all.
    min_spots
        Samples with fewer spots under tissue are dropped.
    exclude
        Patterns (`fnmatch`) of sample ids, patients, studies and subseries that may not be used. A donor is named
        `study/patient`, as patient numbers are used more than once.
    files
        Whether the counts of a sample have to be on disk. Without, the table alone is judged.

    Returns
    -------
    The manifest, one row for each of the table: what was kept, what was dropped and why.

    Raises
    ------
    FileNotFoundError
        If there is no metadata table.
    ValueError
        If the table has no rows, lacks a column or cannot be read, or `out` is a folder.

    Examples
    --------
    >>> import stalign as st
    >>> table = st.train.curate_hest("path/to/hest", "manifest.csv", exclude=["MISC*"])  # doctest: +SKIP
    """
    check_out(out)
    root, table = _table(root, "", "HEST_v*.csv", ("id", "species", "st_technology"))
    there, rows = _Folders(), []
    for row in table.to_dict("records"):
        sample, study, patient = _text(row["id"]), _text(row.get("dataset_title")), _text(row.get("patient"))
        entry = {
            "slide": sample,
            "format": "hest",
            "species": row["species"],
            "technology": row["st_technology"],
            "tissue": row.get("organ"),
            "donor": f"{study or sample}/{patient}" if patient else None,
            "study": study,
            "title": row.get("subseries"),
            "spots": _number(row.get("spots_under_tissue")),
            "image": None,
        }
        missing = ["counts"] if files and (sample or "") not in there[root / "st"] else []
        rows.append(_judge(entry, species, technology, min_spots, exclude, missing))
    return write_manifest(_once(rows, exclude, ("slide",)), root, out)


class _Folders(dict[Path, set[str]]):
    """Names of the files of folders, each up to each of its dots; a folder is listed once."""

    def __missing__(self, folder: Path) -> set[str]:
        names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
        self[folder] = {name[:i] for name in names for i, letter in enumerate(name) if letter == "."}
        return self[folder]


def _table(given: str | Path, part: str, pattern: str, columns: Iterable[str]) -> tuple[Path, pd.DataFrame]:
    """Read the table of a collection, the newest of its folder or the file that was given, and name the folder."""
    given = Path(given).expanduser()
    folder = given.parent if given.is_file() else given / part
    files = [given] if given.is_file() else sorted(folder.glob(pattern), key=lambda file: (len(file.name), file.name))
    if not files:
        there = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        hint = "Pass the path of the table itself if it lies elsewhere"
        raise FileNotFoundError(
            message(f"Expected {folder / pattern}", found="no such file", available=there, hint=hint)
        )
    table = read_table(files[-1], dtype=str)
    missing = [c for c in columns if c not in table]
    if missing:
        name = files[-1].name
        raise ValueError(message(f"Expected columns {', '.join(missing)} in {name}", available=table.columns))
    if table.empty:
        raise ValueError(message(f"Expected rows in {str(files[-1])!r}", found="a header alone"))
    return folder.parent if part and folder.name == part else folder, table


def _judge(
    entry: dict[str, Any],
    species: Sequence[str],
    technology: Sequence[str],
    min_spots: int,
    exclude: Sequence[str],
    missing: Sequence[str],
) -> dict[str, Any]:
    banned = _banned(entry, exclude)
    why = ""
    if entry["slide"] is None:
        why = "no slide id"
    elif species and entry["species"] not in as_patterns(species):
        why = f"species is {entry['species']}"
    elif technology and entry["technology"] not in as_patterns(technology):
        why = f"technology is {entry['technology']}"
    elif banned:
        why = banned
    elif entry["spots"] is not None and entry["spots"] < min_spots:
        why = f"{entry['spots']} spots, fewer than {min_spots}"
    elif missing:
        why = f"no {' and no '.join(missing)} on disk"
    return {**entry, "kept": not why, "why": why}


def _names(entry: Mapping[str, Any]) -> dict[str, str]:
    """List the names that a pattern may fit, by their kind."""
    return {kind: str(entry[kind]) for kind in ("slide", "donor", "study", "title") if pd.notna(entry[kind])}


def _banned(entry: Mapping[str, Any], exclude: Sequence[str]) -> str:
    return next((f"excluded by its {kind} {n!r}" for kind, n in _names(entry).items() if matches(n, exclude)), "")


def _once(rows: list[dict[str, Any]], exclude: Sequence[str], key: Sequence[str]) -> list[dict[str, Any]]:
    """Take a slide that has several rows once, by its first row, and not at all if one of them is excluded."""
    warn_unfit(exclude, {name for row in rows for name in _names(row).values()}, kind="exclude", of="slide")
    same: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        if row["slide"] is not None:
            same.setdefault(tuple(row[k] for k in key), []).append(row)
    for several in same.values():
        banned = next(filter(None, (_banned(row, exclude) for row in several)), "")
        for i, row in enumerate(several):
            if banned and row["kept"]:
                row.update(kept=False, why=banned)
            elif i and not banned:
                row.update(kept=False, why="listed more than once")
    return rows


def _text(value: Any) -> str | None:
    """Take a cell as text, and None for one that is empty."""
    return None if value is None or pd.isna(value) or not str(value).strip() else str(value)


def _number(value: Any) -> int | None:
    number = pd.to_numeric(value, errors="coerce")
    return None if pd.isna(number) else int(number)


def _pmid(value: Any) -> str | None:
    """Write a PubMed id as text, also where missing ids of the column made floats of the others."""
    if value is None or pd.isna(value):
        return None
    return str(value).removesuffix(".0")
