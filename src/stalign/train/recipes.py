"""Recipes: configurations of runs read from TOML files, with replacements from the command line."""

from __future__ import annotations

import codecs
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._validate import message
from stalign.models.schema import build
from stalign.train.config import TrainConfig, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BACKSLASH = r"Write a path with backslashes in single quotes, 'C:\slides', or with /"


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Parameters
    ----------
    path
        The TOML file, or the `config.json` of a run. A relative `data.root` in it starts from its folder.
    overrides
        `key.sub=value` each, with the value written as in TOML; a bare word is taken as a string.

    Returns
    -------
    The configuration.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is no TOML or JSON, or a key is unknown or of the wrong type; the message names the nearest key.
    """
    path = Path(path).expanduser()
    values = read_toml(path)
    data = values.setdefault("data", {})
    if isinstance(data, dict):
        data["root"] = str(resolve(path.parent, str(data.get("root", "."))))
    return build(TrainConfig, override(values, overrides))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or a JSON file of the same content.

    Parameters
    ----------
    path
        The file, in UTF-8 or UTF-16.

    Returns
    -------
    Its tables.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is neither.
    """
    if not path.is_file():
        raise FileNotFoundError(message("Expected a configuration file", found=f"no file {str(path)!r}"))
    content, hint, kind = path.read_bytes(), "", "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = content.decode(_encoding(content))
        hint = _BACKSLASH if kind == "TOML" and "\\" in text else ""
        return json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found, hint = f"bytes in line {line} that are not {error.encoding}", "Save it as UTF-8"
        raise ValueError(message(f"Expected {str(path)!r} to be {kind} in UTF-8", found=found, hint=hint)) from error
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(message(f"Expected {str(path)!r} to be {kind}", found=str(error), hint=hint)) from error


def _encoding(content: bytes) -> str:
    """Tell UTF-16 and UTF-32, which editors and shells on Windows write, from UTF-8."""
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    nul = content[:2].find(0)  # TOML starts with a letter of ASCII
    return "utf-8-sig" if nul < 0 else "utf-16-be" if nul == 0 else "utf-16-le"


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return nested values with `key.sub=value` replaced.

    Parameters
    ----------
    values
        Nested tables.
    overrides
        The replacements.

    Returns
    -------
    A changed copy.

    Raises
    ------
    ValueError
        If an override has no `=`, or goes through a value that is no table.

    Examples
    --------
    >>> from stalign.train.recipes import override
    >>> override({"optim": {"lr": 0.1}}, ["optim.lr=1e-3", "name=mine"])
    {'optim': {'lr': 0.001}, 'name': 'mine'}
    """
    out = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise ValueError(message("Expected an override of the form `key.sub=value`", found=repr(item)))
        *tables, last = key.strip().split(".")
        at = out
        for table in tables:
            inner = at.get(table, {})
            if not isinstance(inner, dict):
                raise ValueError(message(f"Expected `{table}` in the override `{item}` to be a table", found=inner))
            at[table] = dict(inner)
            at = at[table]
        try:
            at[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            at[last] = text.strip()
    return out
