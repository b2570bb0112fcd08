"""`stalign datasets`: licences of public data, counts of a collection, and the folder that the benchmarks read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "list public data, count a collection, make the folder that the benchmarks read"
DESCRIPTION = (
    "`list` shows data that can be fetched, with licences. `summary TABLE` counts slides and spots of STimage-1K4M or "
    "HEST-1k by their metadata table. `build DIR --from FOLDER` links or copies the sections that the benchmarks and "
    "configurations read, fetches what can be fetched, and lists what cannot be had and why."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("task", choices=["list", "summary", "build"])
    parser.add_argument("path", type=Path, nargs="?", help="the metadata table, or the folder to make")
    parser.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="of build: where they are")
    parser.add_argument("--copy", action="store_true", help="of build: copy files instead of linking them")
    parser.add_argument("--out", type=Path, help="of list and summary: write a CSV instead of printing")


def run(arguments: argparse.Namespace) -> int:
    """Do the task; 1 where build could not place a file."""
    from stalign import datasets

    if arguments.task != "list" and arguments.path is None:
        what = "the path of a metadata table" if arguments.task == "summary" else "the folder to make"
        raise ValueError(f"Expected {what}. Call next: stalign datasets {arguments.task} PATH")
    if arguments.task == "build":
        table = datasets.build(arguments.path, arguments.source, copy=arguments.copy)
        for row in table.to_dict("records"):
            print(f"{row['state']:8} {row['file']}" + (f": {row['why']}" if row["why"] else ""))
        missing = int((table["state"] == "missing").sum())
        print(f"{len(table) - missing} of {len(table)} are in {arguments.path}")
        return 1 if missing else 0
    listed = arguments.task == "list"
    table = datasets.sources().reset_index(names="name") if listed else datasets.summary(arguments.path)
    if arguments.out is not None:
        table.to_csv(arguments.out, index=False)
        print(arguments.out)
    else:
        print(table.to_string(index=False))
    return 0
