"""What a collection holds: slides, spots, organs, species and technologies, from its metadata table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stalign._validate import message
from stalign.io.tables import read_table

_COLUMNS = {
    "STimage-1K4M": {"slide": "slide", "organ": "tissue", "species": "species", "technology": "tech",
                     "spots": "spot_num", "study": "pmid"},
    "HEST-1k": {"slide": "id", "organ": "organ", "species": "species", "technology": "st_technology",
                "spots": "spots_under_tissue", "study": "dataset_title"},
}  # fmt: skip


def summary(table: str | Path | pd.DataFrame) -> pd.DataFrame:
    """Count what STimage-1K4M or HEST-1k holds.

    Parameters
    ----------
    table
        The collection's metadata table or the path of it: `meta_all_gene*.csv` of STimage-1K4M, `HEST_v*.csv` of
        HEST-1k. `stimage_table` and `hest_table` fetch them. Some rows of it, such as those of humans, count alone.

    Returns
    -------
    A row for `all`, and for each technology, species and organ, by number of slides: `by`, `value`, `slides`, `spots`
    and `studies` (that are named). A slide with several rows counts once. `attrs["collection"]` is the collection's
    name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the table is of neither collection, or empty.

    Examples
    --------
    >>> import pandas as pd
    >>> import stalign as st
    >>> table = pd.DataFrame({"slide": ["a", "b"], "tissue": "brain", "species": "human", "tech": "Visium",
    ...                       "spot_num": [10, 20], "pmid": "1"})
    >>> int(st.datasets.summary(table)["spots"].iloc[0])
    30
    """
    if not isinstance(table, pd.DataFrame):
        path = Path(table).expanduser()
        if not path.is_file():
            raise FileNotFoundError(message("Expected a metadata table", found=f"no file {str(path)!r}"))
        table = read_table(path, dtype=str)
    found = next((name for name, columns in _COLUMNS.items() if set(columns.values()) <= set(table.columns)), None)
    if found is None or table.empty:
        wanted = " or ".join(f"{', '.join(columns.values())} ({name})" for name, columns in _COLUMNS.items())
        raise ValueError(message(f"Expected rows with the columns {wanted}", available=table.columns))
    own = table[list(_COLUMNS[found].values())].set_axis(list(_COLUMNS[found]), axis=1)
    own = own.assign(spots=pd.to_numeric(own["spots"], errors="coerce"))
    own = own.drop_duplicates(["slide", "technology"])
    rows = [_row("all", "", own)]
    for by in ("technology", "species", "organ"):
        parts = own.assign(**{by: own[by].fillna("not stated")}).groupby(by, sort=True)
        rows += sorted((_row(by, str(value), part) for value, part in parts), key=lambda row: -int(row["slides"]))
    counted = pd.DataFrame(rows)
    counted.attrs["collection"] = found
    return counted


def _row(by: str, value: str, part: pd.DataFrame) -> dict[str, str | int]:
    return {
        "by": by,
        "value": value,
        "slides": len(part),
        "spots": int(part["spots"].sum()),
        "studies": int(part["study"].nunique()),
    }
