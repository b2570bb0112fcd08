"""`stalign embed`: embed files of sections."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._validate import message
from stalign.cli import _cohort
from stalign.core.files import sha256_of

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.models.checkpoint import Checkpoint

DONE = "embedded"
HELP = "embed a section, or a folder of sections"
DESCRIPTION = (
    "Write each section with its embedding to a file of its own: NAME.stalign.h5ad, or NAME.stalign.zarr for a zarr "
    f"store, beside the section or in --out. {_cohort.RESUMED}"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    _cohort.add_arguments(parser)
    parser.add_argument(
        "--weights", default="stalign-mini", help="name, or a checkpoint's folder (default: %(default)s)"
    )
    parser.add_argument(
        "--precision", default="fp32", choices=["fp32", "bf16"], help="of the encoders of images (default: %(default)s)"
    )
    parser.add_argument("--aliases", type=Path, help="table of further names of genes, as `stalign.tl.embed` takes it")


def run(arguments: argparse.Namespace) -> int:
    """Embed the sections."""
    from stalign.models.weights import REGISTRY, load_weights, of_kind

    if arguments.weights not in REGISTRY and (path := Path(arguments.weights).expanduser()).exists():
        arguments.weights = str(path.resolve())  # workers run in other folders
    facts = {}
    if arguments.aliases is not None:
        arguments.aliases = arguments.aliases.expanduser().resolve()
        facts["aliases"] = sha256_of(arguments.aliases)
    _weights.cache_clear()
    arguments.sha256 = of_kind(load_weights(arguments.weights), "st-align").sha256
    return _cohort.each(arguments, __name__, ".stalign", weights=arguments.sha256, **facts)


def made(data: AnnData | SpatialData, arguments: argparse.Namespace) -> AnnData | SpatialData:
    """Embed a section."""
    import stalign

    stalign.tl.embed(
        data, _weights(arguments.weights, arguments.sha256), layer=arguments.layer, gene_key=arguments.gene_key,
        total_counts=arguments.total_counts, library_key=arguments.library_key, table_key=arguments.table_key,
        image_key=arguments.image_key, mpp=arguments.mpp, device=arguments.device, random_state=arguments.seed,
        aliases=arguments.aliases, precision=arguments.precision,
    )  # fmt: skip
    return data


@lru_cache(maxsize=1)
def _weights(name: str, sha256: str) -> Checkpoint:
    """Load the weights once in each process, and see that they are those of the command."""
    from stalign.models.weights import load_weights

    checkpoint = load_weights(name)
    if checkpoint.sha256 != sha256:
        expected = f"Expected weights {name!r} of sha256 {sha256} on the worker"
        raise ValueError(message(expected, found=checkpoint.sha256))
    return checkpoint
