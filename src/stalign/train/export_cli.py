"""The command line `stalign train export RUN --step N`: weights of a run at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

HELP = "write the weights of a run that goes on, was stopped or has ended"
DESCRIPTION = (
    "Write the weights of a checkpoint: that with the lowest validation loss where the run keeps it "
    "(`run.keep_best`), or else the last."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of the run, `out` of its configuration")
    parser.add_argument("--step", type=int, metavar="N", help="the checkpoint after N steps")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where to; RUN/weights, or RUN/weights-N with --step")


def run(given: argparse.Namespace) -> int:
    """Export the weights."""
    from rich.console import Console

    from stalign._optional import require

    require("lightning.pytorch", purpose="Training")
    from stalign.train._export import export

    weights = export(given.run_folder, given.step, folder=given.to)
    Console().print(f"Weights: {weights}", markup=False, highlight=False, soft_wrap=True)
    return 0
