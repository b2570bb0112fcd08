"""Pieces of a self-contained HTML page that needs no script and escapes what it is given."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONG = 12  # values of a list that are written out
_NUMBER = ' class="number"'
_STYLE = """
:root { color-scheme: light dark; }
:root { --ink: #1b2229; --ground: #ffffff; --soft: #f2f5f7; --line: #c3ccd4; --link: #00528a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8edf1; --ground: #14191e; --soft: #20272e; --line: #46525d; --link: #8cc8f2; }
}
* { box-sizing: border-box; }
body { margin: 0; font: 1rem/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); }
header, nav, main, footer { max-width: 68rem; margin: 0 auto; padding: 0 1.25rem; }
h1 { margin: 1.5rem 0 .25rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
h3 { margin: 1.5rem 0 .5rem; font-size: 1.05rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -100vw; padding: .5rem 1rem; background: var(--ground); }
.skip:focus { left: 0; top: 0; z-index: 1; }
nav ol { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: .75rem 0; margin: 0; list-style: none; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #ffffff; border: 1px solid var(--line); border-radius: .25rem; }
figcaption, .note { font-size: .92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0; font-weight: 600; }
th, td { padding: .3rem .75rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
thead th { background: var(--soft); }
.number { text-align: right; }
thead th { vertical-align: bottom; }
td { overflow-wrap: anywhere; }
.scroll td { overflow-wrap: normal; }
.warnings { background: var(--soft); border-left: .3rem solid #d55e00; padding: .5rem 1rem .5rem 2rem; }
summary { cursor: pointer; padding: .3rem 0; font-weight: 600; }
footer { padding: 2rem 1.25rem; font-size: .9rem; }
@media print { nav, .skip { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """Put a page together.

    Parameters
    ----------
    title
        Title, plain text.
    subtitle
        One sentence, plain text.
    sections
        Identifier, heading (plain text) and content (HTML) of each section.
    footer
        Last line, plain text.

    Returns
    -------
    HTML.
    """
    digest = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    contents = "".join(f'<li><a href="#{escape(key)}">{escape(heading)}</a></li>' for key, heading, _ in sections)
    body = "".join(
        f'<section aria-labelledby="{escape(key)}"><h2 id="{escape(key)}">{escape(heading)}</h2>{content}</section>\n'
        for key, heading, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>\n"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n'
        f'<main id="main" tabindex="-1">\n{body}</main>\n<footer><p>{escape(footer)}</p></footer>\n</body>\n</html>\n'
    )


def paragraph(text: str) -> str:
    """Wrap plain text in a paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(items: Sequence[str], *, kind: str = "") -> str:
    """List plain texts.

    Parameters
    ----------
    items
        The texts.
    kind
        Class of the list.

    Returns
    -------
    HTML.
    """
    mark = f' class="{escape(kind)}"' if kind else ""
    return f"<ul{mark}>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def table(frame: pd.DataFrame, caption: str, *, digits: int | None = None) -> str:
    """Write a table whose first column heads its rows.

    Parameters
    ----------
    frame
        The table.
    caption
        What it shows, plain text.
    digits
        Decimals of every number that is not whole; None for four digits in all.

    Returns
    -------
    HTML: a region that the keyboard can scroll.
    """
    right = [False, *(all(map(_is_number, frame[column])) for column in frame.columns[1:])]
    head = "".join(
        f'<th scope="col"{_NUMBER * number}>{escape(str(column))}</th>'
        for column, number in zip(frame.columns, right, strict=True)
    )
    rows = []
    for values in frame.itertuples(index=False):
        first, *others = values
        cells = "".join(
            f"<td{_NUMBER * _is_number(value)}>{escape(text(value, digits=digits))}</td>" for value in others
        )
        rows.append(f'<tr><th scope="row">{escape(text(first))}</th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def facts(values: Mapping[str, Any], caption: str) -> str:
    """Write names and values, nested ones with dotted names.

    Parameters
    ----------
    values
        Values by name.
    caption
        What they are, plain text.

    Returns
    -------
    HTML.
    """
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(text(value))}</td></tr>' for name, value in flat(values)
    )
    return f"<table><caption>{escape(caption)}</caption><tbody>{rows}</tbody></table>"


def fold(summary: str, content: str) -> str:
    """Fold something long away until it is asked for.

    Parameters
    ----------
    summary
        What it is, plain text.
    content
        HTML.

    Returns
    -------
    HTML.
    """
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings and tables.

    Parameters
    ----------
    values
        Values by name.
    prefix
        What stands before every name.

    Returns
    -------
    Dotted names and values.
    """
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, pd.DataFrame):  # a row per section
            for number, row in enumerate(value.to_dict(orient="records")):
                rows += flat(row, f"{prefix}{name}.{row.pop('section', number)}.")
        elif isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows


def picture(figure: Figure, alt: str, caption: str, *, dpi: float) -> str:
    """Draw a figure into the page.

    Parameters
    ----------
    figure
        The figure.
    alt
        What it shows, for readers who do not see it, plain text.
    caption
        Caption, plain text.
    dpi
        Px per inch.

    Returns
    -------
    HTML.
    """
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight")
    data = base64.b64encode(stream.getvalue()).decode()
    width, height = (int.from_bytes(stream.getvalue()[at : at + 4], "big") for at in (16, 20))  # of the PNG's header
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" height="{height}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def text(value: Any, *, digits: int | None = None) -> str:
    """Write a value as a reader wants it."""
    if value is None:
        return "not set"
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float):
        return "not known" if np.isnan(value) else f"{value:.4g}" if digits is None else f"{value:.{digits}f}"
    if isinstance(value, int):
        return f"{value:,}" if abs(value) >= 10_000 else str(value)
    if isinstance(value, np.ndarray) and value.size > _LONG:
        return f"array of shape {value.shape}"
    if isinstance(value, np.ndarray | list | tuple | set):
        items = list(value)
        if items and all(isinstance(item, Mapping) for item in items):
            return f"{len(items)} entries"
        more = f" and {len(items) - _LONG} more" if len(items) > _LONG else ""
        return ", ".join(text(item) for item in items[:_LONG]) + more if items else "none"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
