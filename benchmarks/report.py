"""The report: every table with its best and second best cells, what weights have seen, and why cells are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jinja2 import Environment

import stalign
from benchmarks.cells import read
from benchmarks.tables import TABLES, table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MARKS = {"section": "†", "donor": "‡", "study": "§", "unknown": "?"}
LEGEND = (
    "Best **bold**, second best <u>underlined</u>, over rows that are ranked. The weights have seen † the section, "
    "‡ another section of its donor, § another donor of its study; ? their card does not say. Values are means ± the "
    "standard deviation over seeds and, where the table says so, sections; – is missing, with the reason below; · has "
    "not been run."
)
UNRANKED = ("random", "no result")  # words in the names of rows
_MARKDOWN = """\
{{ legend }}

{% for part in parts %}
## {{ part.title }}

{{ part.note }}

{% for block in part.blocks %}
| {{ block.metric }} | {{ block.columns | join(" | ") }} |
|{{ "---|" * (block.columns | length + 1) }}
{% for row in block.rows %}
| {{ row.name }} | {{ row.cells | join(" | ") }} |
{% endfor %}

{% endfor %}
{% for figure in part.figures %}
![{{ part.title }}]({{ figure }})

{% endfor %}
{% if part.missing %}
Missing:

{% for reason in part.missing %}
- {{ reason }}
{% endfor %}

{% endif %}
{{ part.source }}

{% endfor %}
{% if not parts %}
No table has been run.

{% endif %}
{% if commands %}
## Tables that need files from elsewhere

| table | command |
|---|---|
{% for name, command in commands %}
| {{ name }} | {{ command }} |
{% endfor %}
{% endif %}"""
_HTML = """\
<!doctype html><meta charset="utf-8"><title>Benchmarks of stalign</title>
<style>body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto}table{border-collapse:collapse;margin:1em 0}
td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:left}img{max-width:100%}</style>
<h1>Benchmarks of stalign</h1><p>{{ legend | inline }}</p>
{% for part in parts %}<h2>{{ part.title | inline }}</h2><p>{{ part.note | inline }}</p>
{% for block in part.blocks %}<table><tr><th>{{ block.metric | inline }}</th>
{% for name in block.columns %}<th>{{ name | inline }}</th>{% endfor %}</tr>
{% for row in block.rows %}<tr><td>{{ row.name | inline }}</td>
{% for cell in row.cells %}<td>{{ cell | inline }}</td>{% endfor %}</tr>{% endfor %}</table>{% endfor %}
{% for figure in part.figures %}<img src="{{ figure }}" alt="{{ part.title | inline }}">{% endfor %}
{% if part.missing %}<p>Missing:</p><ul>{% for reason in part.missing %}<li>{{ reason | inline }}</li>{% endfor %}</ul>
{% endif %}<p>{{ part.source | inline }}</p>{% endfor %}
{% if commands %}<h2>Tables that need files from elsewhere</h2><table><tr><th>table</th><th>command</th></tr>
{% for name, command in commands %}<tr><td>{{ name | inline }}</td><td>{{ command | inline }}</td></tr>
{% endfor %}</table>{% endif %}"""


def write_report(folder: Path) -> Path:
    """Write report.md and report.html of the cells in a folder, and a report-PAGE.md each of tables that have a page.

    Returns the path of the first.
    """
    parts = [part(name, folder) for name in TABLES if (folder / f"{name}.csv").is_file()]
    commands = [(f"`{name}`", f"`{table(name).COMMAND}`") for name in TABLES if hasattr(table(name), "COMMAND")]
    names = dict.fromkeys(getattr(table(name), "PAGE", "") for name in TABLES)
    pages = {page: [one for one in parts if one["page"] == page] for page in names}
    environment = Environment(trim_blocks=True, autoescape=False)
    environment.filters["inline"] = _inline
    folder.mkdir(parents=True, exist_ok=True)
    files = [("report.html", _HTML, parts), ("report.md", _MARKDOWN, pages.pop("", []))]
    files += [(f"report-{page}.md", _MARKDOWN, of) for page, of in pages.items()]
    for name, template, shown in files:
        more = {} if name.startswith("report-") else {"legend": LEGEND, "commands": commands}
        text = environment.from_string(template).render(parts=shown, **more)
        (folder / name).write_text(text.strip() + "\n", encoding="utf-8")
    return folder / "report.md"


def part(name: str, folder: Path) -> dict[str, Any]:
    """Set one table: title, note, a block for each metric, figures, and the reasons of missing cells."""
    cells, module = read(folder / f"{name}.csv"), table(name)
    there = cells[cells["value"].notna()]
    best = getattr(module, "BEST", {})
    order = getattr(module, "ROWS", ()), getattr(module, "COLUMNS", ())
    ends = {name: best if isinstance(best, str) else best.get(name, "max") for name in dict.fromkeys(there["metric"])}
    blocks = [block(cells, metric, end, *order) for metric, end in ends.items()]
    origins = [text for text in dict.fromkeys(there["origin"]) if text]
    source = f"{there['seconds'].groupby(_keys(there)).first().sum():.0f} CPU seconds in all."
    made = sorted({text.split(",")[0] for text in there.loc[there["origin"] == "", "versions"]})
    source += (
        f" Computed by {', '.join(made).replace('), stalign ' + stalign.__version__ + ' (', ', ')}." if made else ""
    )
    source += f" Taken over: {'; '.join(origins)}." if origins else ""
    figures = sorted(file.name for file in folder.glob(f"{name}*.png"))
    return {
        "title": f"{module.TITLE} (`{name}`)", "note": module.NOTE.strip(), "blocks": blocks, "figures": figures,
        "missing": reasons(cells), "source": source, "page": getattr(module, "PAGE", ""),
    }  # fmt: skip


def _keys(cells: pd.DataFrame) -> list[pd.Series]:
    return [cells[key] for key in ("row", "column", "seed", "settings")]


def block(
    cells: pd.DataFrame, metric: str, best: str, first_rows: Sequence[str] = (), first_columns: Sequence[str] = ()
) -> dict[str, Any]:
    """Rows by columns of one metric, as texts; `best` is max, min or none."""
    cells = cells[(cells["metric"] == metric) | cells["value"].isna()]
    there = cells[cells["value"].notna()]
    rows, columns = _ordered(cells["row"], first_rows), _ordered(cells["column"], first_columns)
    grouped = there.groupby(["row", "column"])
    mean, sd = (getattr(grouped["value"], how)().unstack().reindex(rows, columns=columns) for how in ("mean", "std"))
    seen = grouped["seen"].first().unstack().reindex(rows, columns=columns)
    whole = mean.drop(index=[row for row in rows if any(word in row for word in UNRANKED)])
    rank = whole.rank(ascending=best != "max", method="min") if best != "none" else whole * np.nan
    run = set(zip(cells["row"], cells["column"], strict=True))
    texts = []
    for row in rows:
        line = [_text(mean.at[row, c], sd.at[row, c], seen.at[row, c]) if (row, c) in run else "·" for c in columns]
        ranks = rank.loc[row] if row in rank.index else pd.Series(np.nan, index=columns)
        texts.append({"name": row, "cells": [_mark(text, ranks[c]) for text, c in zip(line, columns, strict=True)]})
    return {"metric": metric, "columns": columns, "rows": texts}


def _ordered(names: pd.Series, first: Sequence[str]) -> list[str]:
    """Names in the order of the table, then in that in which they came."""
    there = dict.fromkeys(names)
    return [*(name for name in first if name in there), *(name for name in there if name not in first)]


def _text(mean: float, sd: float, seen: object) -> str:
    if np.isnan(mean):
        return "–"
    whole = np.isnan(sd) and abs(mean) > 1 and mean == round(mean)  # a count
    digits = 0 if abs(mean) >= 100 or whole else 3
    spread = "" if np.isnan(sd) else f" ± {sd:.{digits}f}"
    return f"{mean:.{digits}f}{spread}{MARKS.get(str(seen), '')}"


def _mark(text: str, rank: float) -> str:
    if text in "–·" or np.isnan(rank):
        return text
    return f"**{text}**" if rank == 1 else f"<u>{text}</u>" if rank == 2 else text


def reasons(cells: pd.DataFrame) -> list[str]:
    """Why cells are missing, each reason once with the rows and columns that it keeps out."""
    found = []
    for reason, part_of in cells[cells["value"].isna()].groupby("reason", sort=False):
        rows, columns = (list(dict.fromkeys(part_of[key])) for key in ("row", "column"))
        of = "all rows" if set(rows) == set(cells["row"]) and len(rows) > 1 else ", ".join(rows)
        at = "" if set(columns) == set(cells["column"]) else f" ({', '.join(columns)})"
        found.append(f"{of}{at}: {reason or 'no reason was given'}")
    return found


def _inline(text: str) -> str:
    """Turn the few marks of Markdown that cells and notes use into HTML."""
    import re

    escaped = text.replace("&", "&amp;").replace("<u>", "\0").replace("</u>", "\1").replace("<", "&lt;")
    escaped = escaped.replace("\0", "<u>").replace("\1", "</u>")
    escaped = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", escaped)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", escaped)
