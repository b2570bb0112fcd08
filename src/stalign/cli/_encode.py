"""`stalign encode`: encode files of sections with a frozen encoder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign.cli import _cohort

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData
    from spatialdata import SpatialData

DONE = "encoded"
HELP = "encode a section, or a folder of sections, with a frozen encoder"
DESCRIPTION = (
    "Write each section with the encoder's features to a file of its own: NAME.stalign-ENCODER.h5ad, or .zarr for a "
    f"zarr store, beside the section or in --out. {_cohort.RESUMED}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    _cohort.add_arguments(parser)
    parser.add_argument("--encoder", required=True, help="one of stalign.encoders.list(), or timm:NAME")
    parser.add_argument("--level", help="spot, niche, native, or the width of a patch in µm (default: spot)")
    parser.add_argument("--weights", type=Path, help="file or folder of the encoder's weights (default: as published)")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"], help="default: %(default)s")


def run(arguments: argparse.Namespace) -> int:
    """Encode the sections."""
    if arguments.weights is not None:
        arguments.weights = arguments.weights.expanduser().resolve()  # workers run in other folders
    mark = f".stalign-{arguments.encoder.replace(':', '-').replace('/', '-')}"
    return _cohort.each(arguments, __name__, mark, weights=str(arguments.weights))


def made(data: AnnData | SpatialData, arguments: argparse.Namespace) -> AnnData | SpatialData:
    """Encode a section."""
    import stalign

    level = arguments.level
    stalign.tl.encode(
        data, arguments.encoder, level=float(level) if level and level[0].isdecimal() else level,
        weights=arguments.weights, precision=arguments.precision, layer=arguments.layer, gene_key=arguments.gene_key,
        total_counts=arguments.total_counts, library_key=arguments.library_key, table_key=arguments.table_key,
        image_key=arguments.image_key, mpp=arguments.mpp, device=arguments.device,
    )  # fmt: skip
    return data
