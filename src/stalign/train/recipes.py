"""Recipes: configurations of runs read from TOML files, with replacements from the command line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._validate import message
from stalign.models.schema import build
from stalign.train.config import TrainConfig, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a configuration file.

    Parameters
    ----------
    path
        The TOML file. A relative `data.root` in it starts from its folder.
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
        If the file is not TOML, or a key is unknown or of the wrong type; the message names the nearest key.
    """
    path = Path(path)
    values = read_toml(path)
    data = values.setdefault("data", {})
    if isinstance(data, dict):
        data["root"] = str(resolve(path.parent, str(data.get("root", "."))))
    return build(TrainConfig, override(values, overrides))


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Its tables.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not TOML.
    """
    if not path.is_file():
        raise FileNotFoundError(message("Expected a configuration file", found=f"no file {str(path)!r}"))
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark at the start
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(message(f"Expected {str(path)!r} to be TOML", found=str(error))) from error


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
