"""Reading configurations: TOML and overrides into frozen dataclasses, with errors that name the wrong key."""

from __future__ import annotations

import difflib
import tomllib
import types
from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from stalign._validate import message
from stalign.train.config import TrainConfig, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

T = TypeVar("T")


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
    if not path.is_file():
        raise FileNotFoundError(message("Expected a configuration file", found=f"no file {str(path)!r}"))
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a mark at the start
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(message(f"Expected {str(path)!r} to be TOML", found=str(error))) from error
    root = Path(str(values.get("data", {}).get("root", "."))) if isinstance(values.get("data", {}), dict) else Path()
    if isinstance(values.setdefault("data", {}), dict):
        values["data"]["root"] = str(resolve(path.parent, root))
    return build(TrainConfig, override(values, overrides))


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
    >>> from stalign.train.parse import override
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


def build(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Make a configuration dataclass of nested tables.

    Parameters
    ----------
    cls
        The dataclass.
    values
        Its fields, nested tables for fields that are dataclasses.
    where
        What the values come from, for messages.

    Returns
    -------
    The instance.

    Raises
    ------
    ValueError
        If a key is unknown or missing, or a value has the wrong type.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            table = f"`{where}`" if where else "the configuration"
            raise ValueError(message(f"Expected a known key in {table}", found=repr(key), available=known, hint=hint))
    for key, f in known.items():
        if key not in values and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(message(f"Expected the key `{key}` in `{where}`", found=f"only {sorted(values)}"))
    return cls(**{key: _convert(hints[key], value, f"{where}.{key}".strip(".")) for key, value in values.items()})


def update(instance: T, values: Mapping[str, Any], *, where: str) -> T:
    """Replace fields of a frozen configuration dataclass, nested tables included.

    Parameters
    ----------
    instance
        The dataclass.
    values
        The fields to replace.
    where
        What the values come from, for messages.

    Returns
    -------
    The changed copy.

    Raises
    ------
    ValueError
        If a key is unknown or a value has the wrong type.
    """
    cls = type(instance)
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls) if f.init}  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    for key, value in values.items():
        inner = getattr(instance, key, None)
        if key in known and is_dataclass(inner) and not isinstance(inner, type) and isinstance(value, dict):
            changes[key] = update(inner, value, where=f"{where}.{key}")
        elif key in known:
            changes[key] = _convert(hints[key], value, f"{where}.{key}")
        else:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            names = sorted(known)
            raise ValueError(message(f"Expected a known key in `{where}`", found=repr(key), available=names, hint=hint))
    return replace(instance, **changes)  # type: ignore[type-var]


def _convert(hint: Any, value: Any, where: str) -> Any:
    """Check a value against a type hint and return it in that type (lists become tuples, ints floats)."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, hint):
            return value
        if isinstance(value, dict):
            return build(hint, value, where=where)
    elif origin in (Union, types.UnionType):
        # The exact type first, so that "2" stays a string and 2 an integer.
        for option in sorted(args, key=lambda a: a is not type(value)):
            try:
                return _convert(option, value, where)
            except ValueError:
                if is_dataclass(option) and isinstance(value, dict):
                    raise
    elif origin is Literal:
        if value in args:
            return value
        near = difflib.get_close_matches(str(value), [str(a) for a in args], n=1)
        found = repr(value)
        raise ValueError(
            message(f"Expected `{where}` to be one of those available", found=found, available=args)
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    elif origin is tuple and isinstance(value, (list, tuple)):
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(args) == len(value):
            return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    elif origin is dict and isinstance(value, dict):
        return {_convert(args[0], k, where): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    elif hint is type(None) and value is None:
        return None
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint in (int, str, bool) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint)) if origin is None else str(hint)
    raise ValueError(message(f"Expected `{where}` to be {name}", found=f"{value!r} ({type(value).__name__})"))
