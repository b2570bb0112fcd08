"""`stalign predict`: predict the genes of files of sections from their images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign.cli import _cohort
from stalign.core.files import sha256_of

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData
    from spatialdata import SpatialData

DONE = "predicted"
HELP = "predict genes of a section, or a folder of sections, from their images"
DESCRIPTION = (
    "Write the predicted genes of each section to a file of its own, NAME.stalign-genes.h5ad (.zarr for a zarr store), "
    f"beside the section or in --out. {_cohort.RESUMED}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    _cohort.add_arguments(parser)
    parser.add_argument(
        "--reference", type=Path, action="append", required=True,
        help="a section with an image and raw counts to predict from; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--genes", default="reliable",
        help="a number of variable genes, names with commas between, or reliable (default)",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Predict the genes of the sections."""
    arguments.reference = [path.expanduser().resolve() for path in arguments.reference]
    files = [file for path in arguments.reference for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    facts = {"reference_sha256": " ".join(sha256_of(file) for file in files if file.is_file())}
    return _cohort.each(arguments, __name__, ".stalign-genes", **facts)


def made(data: AnnData | SpatialData, arguments: argparse.Namespace) -> AnnData:
    """Predict the genes of a section."""
    import stalign

    genes = arguments.genes
    if genes.isdecimal():
        genes = int(genes)
    elif genes != "reliable":
        genes = [name.strip() for name in genes.split(",")]
    return stalign.tl.predict_genes(
        data, [_cohort.read(path) for path in arguments.reference], genes=genes, layer=arguments.layer,
        total_counts=arguments.total_counts, library_key=arguments.library_key, table_key=arguments.table_key,
        random_state=arguments.seed,
    )  # fmt: skip
