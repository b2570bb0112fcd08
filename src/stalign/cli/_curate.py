"""`stalign curate`: which slides of a public collection a run may see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign.cli._demo import count

if TYPE_CHECKING:
    import argparse

HELP = "choose slides of STimage-1K4M or HEST-1k for training"
DESCRIPTION = "Write a manifest, a row for each slide: what is kept, what is dropped and why."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("collection", choices=["stimage", "hest"])
    parser.add_argument("root", type=Path, help="the collection's folder, or its metadata table")
    parser.add_argument("--out", type=Path, default=Path("manifest.csv"), help="default: %(default)s")
    parser.add_argument("--species", action="append", help="species to keep; repeatable (default: human)")
    parser.add_argument("--technology", action="append", help="technology to keep; repeatable (default: Visium)")
    parser.add_argument(
        "--min-spots", type=count, default=50, help="spots of the smallest slide (default: %(default)s)"
    )
    parser.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN",
        help="name, donor, study or title of slides that may not be used; repeatable",
    )  # fmt: skip
    parser.add_argument("--no-files", action="store_true", help="judge the table alone, before anything is fetched")


def run(arguments: argparse.Namespace) -> int:
    """Write the manifest."""
    from stalign.train import curate_hest, curate_stimage

    curate = curate_stimage if arguments.collection == "stimage" else curate_hest
    chosen = {key: value for key in ("species", "technology") if (value := getattr(arguments, key)) is not None}
    manifest = curate(
        arguments.root,
        arguments.out,
        min_spots=arguments.min_spots,
        exclude=arguments.exclude,
        files=not arguments.no_files,
        **chosen,
    )
    print(f"{arguments.out}: {int(manifest['kept'].sum())} of {len(manifest)} slides are kept")
    return 0
