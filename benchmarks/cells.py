"""Cells of tables, and the file that keeps them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

import stalign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

COLUMNS = (
    "table", "row", "column", "metric", "seed", "value", "seconds", "reason", "seen", "settings", "weights_sha256",
    "data_sha256", "versions", "origin",
)  # fmt: skip
_TEXT = [name for name in COLUMNS if name not in ("seed", "value", "seconds")]
_SAME = ["row", "column", "seed", "settings", "weights_sha256", "data_sha256"]
_FAILURES = (ImportError, KeyError, OSError, ValueError)  # of which a cell is missing; others end the run


class Missing(Exception):
    """A cell can't be had; the message is the reason, with the command that would change it."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table, computed when it is asked for."""

    row: str
    column: str
    compute: Callable[[], Mapping[str | tuple[str, str], float]]  # metric: value, or (another column, metric): value
    seed: int = 0
    settings: str = ""  # what else tells it from others, such as the number of steps; averaged over in the report
    weights: str = ""  # sha256 of what was trained elsewhere
    data: str = ""  # sha256 of the section
    seen: str = ""  # what of the section the weights have seen: section, donor, study or unknown
    columns: tuple[str, ...] = ()  # that it fills, where it fills several


@dataclass
class Results:
    """The cells of one table in a CSV file, which is replaced as a whole after each."""

    table: str
    folder: Path
    rows: pd.DataFrame = field(init=False)

    def __post_init__(self) -> None:
        self.rows = read(self.file)

    @property
    def file(self) -> Path:
        return self.folder / f"{self.table}.csv"

    def has(self, cell: Cell) -> bool:
        """Whether there are values of this cell for the same weights, data and version of stalign."""
        same = self._rows_of(cell)
        version = same["versions"].str.extract(r"^stalign ([^\s,]+)", expand=False)
        return bool((same["value"].notna() & (version == stalign.__version__)).any())

    def run(self, cell: Cell) -> str:
        """Compute a cell and write it; return the reason where it is missing."""
        start = sum(os.times()[:4])
        reason, found = "", {}
        try:
            found = dict(cell.compute())
        except Missing as error:
            reason = str(error)
        except _FAILURES as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        shared = {
            "table": self.table, "row": cell.row, "column": cell.column, "seed": cell.seed,
            "seconds": round(sum(os.times()[:4]) - start, 3),  # of the processor, with those of subprocesses
            "reason": reason, "seen": cell.seen, "settings": cell.settings, "weights_sha256": _hash(cell.weights),
            "data_sha256": _hash(cell.data), "versions": versions(), "origin": "",
        }  # fmt: skip
        lines = []
        for name, value in found.items():
            column, metric = name if isinstance(name, tuple) else (cell.column, name)
            other = {} if column == cell.column else {"column": column, "seconds": 0.0}  # are told once
            lines.append({**shared, **other, "metric": metric, "value": value})
        empty = {**shared, "metric": "", "value": float("nan")}
        self.add(pd.DataFrame(lines or [{**empty, "column": name} for name in cell.columns or (cell.column,)]))
        return reason

    def add(self, rows: pd.DataFrame) -> None:
        """Put rows in the place of those of the same cells, and of all taken over for their places; write the file."""
        rows = rows.reindex(columns=list(COLUMNS))
        rows[_TEXT] = rows[_TEXT].fillna("").astype(str)
        keys = ["row", "column", "seed", "settings"]
        new = set(rows[keys].itertuples(index=False, name=None))
        places = {key[:2] for key in new}
        old = zip(self.rows[keys].itertuples(index=False, name=None), self.rows["origin"], strict=True)
        kept = [key not in new and not (origin and key[:2] in places) for key, origin in old]
        parts = [part for part in (self.rows[kept], rows) if len(part)]
        self.rows = pd.concat(parts, ignore_index=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.file.with_suffix(".csv.part")
        self.rows.to_csv(temporary, index=False)
        temporary.replace(self.file)

    def _rows_of(self, cell: Cell) -> pd.DataFrame:
        wanted = (cell.row, cell.column, cell.seed, cell.settings, _hash(cell.weights), _hash(cell.data))
        same = pd.Series(data=True, index=self.rows.index)
        for name, value in zip(_SAME, wanted, strict=True):
            same &= self.rows[name] == value
        return self.rows[same]


def read(file: Path) -> pd.DataFrame:
    """Read a file of cells; an empty table where there is none."""
    if not file.is_file():
        return pd.DataFrame({name: pd.Series(dtype=str if name in _TEXT else float) for name in COLUMNS})
    empty = {"value": [""], "seconds": [""]}
    table = pd.read_csv(file, dtype=dict.fromkeys(_TEXT, str), keep_default_na=False, na_values=empty)
    absent = sorted(set(COLUMNS) - set(table))
    if absent:
        raise ValueError(f"Expected the columns {', '.join(COLUMNS)} in {file}; found none called {', '.join(absent)}.")
    return table[list(COLUMNS)]


def _hash(digits: str) -> str:
    """Hash as it is written: pandas crashes where it takes 5e1557… for a number."""
    return f"sha256:{digits}" if digits else ""


def versions() -> str:
    """Say which code made a cell."""
    parts = [f"stalign {stalign.__version__}{_commit()}", f"python {platform.python_version()}"]
    parts += [f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scikit-learn", "torch")]
    return ", ".join(parts)


def _commit() -> str:
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f" ({found})"
