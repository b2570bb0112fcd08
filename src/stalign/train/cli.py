"""The command line: `stalign-train config.toml --resume --dry-run key.sub=value`, `stalign-train export RUN`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._validate import text_of
from stalign.train import export_cli

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from stalign.train.dryrun import Estimate


HELP = "train a network"
DESCRIPTION = (
    "Train a network on the sections that a configuration names. On several GPUs: "
    "`torchrun --nproc-per-node 4 -m stalign.train.cli config.toml`, or `run.devices=4` alone. "
    "`export RUN` in the place of a configuration writes the weights of a run at any moment; see `export --help`."
)
EXPORT = "export"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("config", type=Path, help="a TOML file")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value", help="what to change in it")
    parser.add_argument("--resume", action="store_true", help="go on from the last sound checkpoint")
    parser.add_argument(
        "--extend",
        action="store_true",
        help="go on from it with more steps, other processes or another batch size, as a new phase",
    )
    parser.add_argument("--dry-run", action="store_true", help="measure a few steps and say what the run would cost")


def run(given: argparse.Namespace) -> int:
    """Train, or measure what it would cost."""
    from rich.console import Console

    from stalign._optional import require
    from stalign._settings import settings

    console = Console()
    require("lightning.pytorch", purpose="Training")
    from stalign.train.recipes import load_config

    config = load_config(given.config, given.overrides)
    from stalign.train._fit import fit
    from stalign.train.loop import first_process

    if not first_process():  # one of several says how far they are
        console.quiet = True
        settings.verbosity, settings.show_progress = "error", False
    if given.dry_run:
        from stalign.train.dryrun import dry_run

        _show(dry_run(None, config), console)
        return 0
    weights = fit(None, config, resume=given.resume, extend=given.extend)
    console.print(f"Weights: {weights}", markup=False, highlight=False, soft_wrap=True)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments
        The arguments; None for those of the process.

    Returns
    -------
    0, 1 after an error that was said, or 130 after an interruption.
    """
    from rich.console import Console

    arguments = sys.argv[1:] if arguments is None else list(arguments)
    command, name = sys.modules[__name__], "stalign-train"
    if arguments[:1] == [EXPORT]:
        command, name, arguments = export_cli, f"{name} {EXPORT}", arguments[1:]
    parser = argparse.ArgumentParser(prog=name, description=command.DESCRIPTION)
    command.add_arguments(parser)
    given = parser.parse_intermixed_args(arguments)
    errors = Console(stderr=True)
    try:
        return int(command.run(given))
    except (ValueError, KeyError, RuntimeError, OSError, FloatingPointError, ImportError) as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(text_of(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        errors.print("Interrupted; --resume goes on from the last checkpoint.", highlight=False)
        return 130


def _show(estimate: Estimate, console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, title="Dry run: no weights were written")
    for name, value in estimate.lines():
        table.add_row(name, value)
    console.print(table)
    dropped = estimate.manifest[~estimate.manifest["kept"]]
    if len(dropped):
        reasons = Table("Left out", "Why")
        for row in dropped.itertuples():
            reasons.add_row(Text(str(row.section or row.slide)), Text(str(row.why)))
        console.print(reasons)


if __name__ == "__main__":
    sys.exit(main())
