"""python -m benchmarks list | run NAME [NAME ...] [options] | report [options]

`run all` runs every table of what is there; a cell that exists for the same weights, data and version is not computed
again. `report` sets report.md and report.html of the cells in the folder --out.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from benchmarks.config import add_options, from_options
from benchmarks.report import write_report
from benchmarks.run import run
from benchmarks.tables import TABLES, table

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the tables")
    runner = commands.add_parser("run", help="compute tables")
    runner.add_argument("names", nargs="+", metavar="NAME", choices=["all", *TABLES], help=f"all, {', '.join(TABLES)}")
    add_options(runner)
    reporter = commands.add_parser("report", help="set the report of what is there")
    add_options(reporter)
    options = parser.parse_args(arguments)
    if options.command == "list":
        for name in TABLES:
            print(f"{name:24} {table(name).TITLE}")
        return
    config = from_options(options)
    if options.command == "report":
        print(write_report(config.out))
        return
    if not config.data.is_dir():
        print(f"There is no folder {config.data}; name one with --data. Fetchers and paths work.", file=sys.stderr)
    run(TABLES if "all" in options.names else options.names, config)


if __name__ == "__main__":
    main()
