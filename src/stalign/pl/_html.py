"""Pages from the jinja2 templates beside this file: self-contained, without scripts, and escaped by default."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup
    from matplotlib.figure import Figure

_LONG = 12  # values of a list that are written out


@cache
def _template(name: str) -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("stalign.pl"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {"text": text, "flat": flat}
    made.tests |= {"number": _is_number, "numeric": lambda column: all(map(_is_number, column))}
    return made.get_template(name)


def page(title: str, subtitle: str, sections: Sequence[tuple[str, str, Sequence[Markup]]], footer: str) -> str:
    """Put a page together of sections, each with its identifier, heading and content."""
    from markupsafe import Markup

    style = files("stalign.pl").joinpath("templates", "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _template("report.html").render(
        title=title, subtitle=subtitle, sections=sections, footer=footer, style=Markup(style), digest=digest
    )


def part(name: str, *values: Any, **options: Any) -> Markup:
    """Fill in a macro of `parts.html`; what it is given is escaped unless it is the content of another."""
    from markupsafe import Markup

    return Markup(getattr(_template("parts.html").module, name)(*values, **options))


def png_of(figure: Figure, *, dpi: float) -> bytes:
    """Draw a figure."""
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, bbox_inches="tight")
    return stream.getvalue()


def picture(png: bytes, alt: str, caption: str) -> Markup:
    """Put a picture into the page; `alt` says what it shows to readers who do not see it."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of the PNG's header
    return part("figure", base64.b64encode(png).decode(), width, height, alt, caption)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings and tables to dotted names and values."""
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


def text(value: Any, digits: int | None = None) -> str:
    """Write a value as a reader wants it: with four digits, or `digits` decimals if it is not whole."""
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
