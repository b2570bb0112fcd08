"""The command line: `stalign demo`, `embed`, `encode`, `predict`, `train`, `curate` and `datasets`."""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

from stalign._validate import text_of
from stalign.cli import _curate, _datasets, _demo, _embed, _encode, _predict
from stalign.train import cli as train
from stalign.train import export_cli

if TYPE_CHECKING:
    from collections.abc import Sequence

_EXIT = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. --debug shows the traceback of an error."
_EXPORT = f"train {train.EXPORT}"
_COMMANDS = {
    "demo": _demo,
    "embed": _embed,
    "encode": _encode,
    "predict": _predict,
    "train": train,
    _EXPORT: export_cli,
    "curate": _curate,
    "datasets": _datasets,
}
_TOLD = (ValueError, KeyError, TypeError, OSError, ImportError, RuntimeError, FloatingPointError)


def parser() -> argparse.ArgumentParser:
    """Describe the command line.

    Returns
    -------
    The parser.
    """
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks of errors")
    top = argparse.ArgumentParser(
        prog="stalign", description="ST-Align for the scverse.", epilog=_EXIT, parents=[debug]
    )
    top.add_argument("--version", action="version", version=f"stalign {version('stalign')}")
    commands = top.add_subparsers(dest="command", required=True)
    for name, command in _COMMANDS.items():
        own = commands.add_parser(
            name, help=command.HELP, description=command.DESCRIPTION, epilog=_EXIT, parents=[debug]
        )
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return top


def _joined(argv: Sequence[str]) -> list[str]:
    """Make one word of a command of two."""
    argv = list(argv)
    at = next((i for i, text in enumerate(argv) if not text.startswith("-")), 0)
    return [*argv[:at], _EXPORT, *argv[at + 2 :]] if argv[at : at + 2] == _EXPORT.split() else argv


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; None for those of the process.

    Returns
    -------
    The exit code: 0, 1 after an error, or 130 after an interruption. Wrong usage ends with 2 in a SystemExit.
    """
    top = parser()
    arguments, more = top.parse_known_args(_joined(sys.argv[1:] if argv is None else argv))
    if arguments.command == "train":  # what it changes may stand after options
        arguments.overrides += [text for text in more if not text.startswith("-")]
        more = [text for text in more if text.startswith("-")]
    if more:
        top.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        hint = "; --resume goes on from the last checkpoint" if arguments.command == "train" else ""
        sys.stderr.write(f"stalign: interrupted{hint}\n")
        return 130
    except Exception as error:
        if getattr(arguments, "debug", False):
            raise
        kind = "" if isinstance(error, _TOLD) else f"{type(error).__name__} (--debug shows where): "
        sys.stderr.write(f"stalign: {kind}{text_of(error)}\n")
        return 1
