"""The tables of the papers and of this package as one program: `python -m benchmarks list | run NAME | report`.

A table is a module in `benchmarks/tables` with

- `TITLE` and `NOTE` (Markdown: what was done and what to know), and `COMMAND` where it needs files from elsewhere;
- where they are needed, `SEEDS`, how many where `--seeds` is not given; `BEST`, which end of each metric is the better
  one (max, min or none; max by default; one word for all metrics); `ROWS` and `COLUMNS`, which come first in the
  report; `PAGE`, where it is on a page of its own, report-PAGE.md;
- `cells(config)`, a generator of `benchmarks.cells.Cell`: row, column, seed and a function that returns metrics. It
  raises `Missing` with the reason where a cell can't be had.

Its name goes into `benchmarks.tables.TABLES`. The program does the rest: skips cells that it has, writes each as it
comes, and sets the report.
"""
