"""Configurations: frozen dataclasses checked by pydantic, with errors that name a key by its path."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import textwrap
import types
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, dataclass_transform, get_args, get_origin

from pydantic import AllowInfNan, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stalign._validate import message

T = TypeVar("T")
Int = Annotated[int, Strict()]  # neither 1.0 nor True
Float = Annotated[float, Strict(), AllowInfNan(allow_inf_nan=False)]  # neither "1" nor True
Bool = Annotated[bool, Strict()]  # neither 1 nor "yes"
_TABLE = "a table of keys and values"
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "greater_than": ("above", "gt")}
_BOUNDS |= {"less_than_equal": ("at most", "le"), "less_than": ("below", "lt")}


def key(text: str, unit: str = "", origin: str = "", **more: Any) -> Any:
    """Describe a key of a configuration, for `Annotated`.

    Parameters
    ----------
    text
        What it is, for docstrings, messages and `docs/training-keys.md`.
    unit
        Its unit.
    origin
        Who chose its default.
    more
        Bounds and other arguments of pydantic's `Field`.

    Returns
    -------
    The annotation.
    """
    return Field(description=text, json_schema_extra={"unit": unit, "origin": origin}, **more)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def configuration(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass that pydantic checks, and document its keys.

    Parameters
    ----------
    cls
        The class; `Annotated` types of its fields may hold a `key`.

    Returns
    -------
    The class. It raises ValueError in the words of this package, and refuses keys that it does not know.
    """
    made = dataclass(frozen=True, config=ConfigDict(extra="forbid"))(cls)
    init = made.__init__

    @functools.wraps(init)
    def checked(self: Any, *given: Any, **named: Any) -> None:
        try:
            init(self, *given, **named)
        except ValidationError as error:
            raise ValueError(_explained(made, error, "")) from None

    made.__init__ = checked  # type: ignore[method-assign]
    keys = [f"{name}\n    {described(f)}." for name, f in made.__pydantic_fields__.items() if f.description]
    table = textwrap.indent("\n".join(["Parameters\n----------", *keys]), "    ")
    text, examples, rest = (cls.__doc__ or "").rstrip().partition("\n\n    Examples")
    made.__doc__ = f"{text}\n\n{table}{examples}{rest}\n    "
    return made  # type: ignore[return-value]


def described(field: Any) -> str:
    """Return what a field is, with its unit.

    Parameters
    ----------
    field
        One of pydantic's.
    """
    unit = (field.json_schema_extra or {}).get("unit")
    return f"{field.description} [{unit}]" if unit else str(field.description or "")


def build(cls: type[T], values: Any, *, where: str = "") -> T:
    """Make a configuration of nested tables.

    Parameters
    ----------
    cls
        Its class.
    values
        Its fields, nested tables for fields that are configurations; those left out take their defaults.
    where
        What the values come from, for messages.

    Returns
    -------
    The configuration.

    Raises
    ------
    ValueError
        If a key is unknown or lacking, or a value is wrong; the message names its path.
    """
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        raise ValueError(_explained(cls, error, where)) from None


def update(instance: T, values: Mapping[str, Any], *, where: str = "") -> T:
    """Replace fields of a configuration, nested tables included.

    Parameters
    ----------
    instance
        The configuration.
    values
        The fields to replace. A nested table with a `kind` replaces the whole of what was there.
    where
        What the values come from, for messages.

    Returns
    -------
    The changed copy.

    Raises
    ------
    ValueError
        As `build`.
    """
    return build(type(instance), _merged(instance, values), where=where)


def _merged(instance: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    out = {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance)}
    for name, value in values.items():
        inside = isinstance(value, Mapping) and "kind" not in value and dataclasses.is_dataclass(out.get(name))
        out[name] = _merged(out[name], value) if inside else value
    return out


def plain(instance: Any) -> dict[str, Any]:
    """Return a configuration as nested dictionaries and lists, as JSON has them.

    Parameters
    ----------
    instance
        The configuration.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(instance)))
    return plain


class _Place(NamedTuple):
    """Where something is wrong: its path and its type, the field that it is in, and the class with that field."""

    path: str
    hint: Any
    field: Any
    owner: Any
    above: str


def _place(cls: Any, location: tuple[int | str, ...], where: str) -> _Place:
    """Follow pydantic's location of an error, which names the kinds of unions too."""
    place = _Place(where, cls, None, cls, where)
    for part in location:
        path, hint = place.path, _bare(place.hint)
        kinds = {kind: option for option in get_args(hint) for kind in _kinds(option)}
        if part in kinds:
            place = place._replace(hint=kinds[part])
        elif dataclasses.is_dataclass(hint):
            fields = hint.__pydantic_fields__  # type: ignore[union-attr]
            name = list(fields)[part] if isinstance(part, int) and part < len(fields) else str(part)
            inner = fields.get(name)
            place = _Place(f"{path}.{name}".strip("."), inner.annotation if inner else None, inner, hint, path)
        elif get_origin(hint) is tuple and isinstance(part, int):
            place = place._replace(path=f"{path}[{part}]", hint=get_args(hint)[0])
        elif get_origin(hint) is dict:
            place = place._replace(path=f"{path}.{part}", hint=get_args(hint)[1])
    return place


def _explained(cls: Any, error: ValidationError, where: str) -> str:
    """Say the first thing that is wrong: what was expected at which path, what was found, what would have worked."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "unexpected_keyword_argument"), problems[0])
    kind, location, found = problem["type"], problem["loc"], problem["input"]
    if kind == "missing" and isinstance(location[-1], int):  # a list that is too short
        kind, location = "tuple_type", location[:-1]
    place = _place(cls, location, where)
    path, inside = place.path, f"`{place.above}`" if place.above else "the configuration"
    shown = f"{found!r} ({type(found).__name__})"
    hint = f"{path.rpartition('.')[2]}: {described(place.field)}" if place.field and place.field.description else ""
    if kind == "unexpected_keyword_argument":
        name = str(location[-1])
        known = sorted(place.owner.__pydantic_fields__)
        said = {"found": repr(name), "available": known, "hint": _nearest(name, known)}
        return message(f"Expected a known key in {inside}", **said)  # type: ignore[arg-type]
    if kind == "missing":
        given = found if isinstance(found, Mapping) else getattr(found, "kwargs", None) or {}
        return message(f"Expected the key `{location[-1]}` in {inside}", found=f"only {sorted(given)}", hint=hint)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        kinds = [name for option in get_args(_bare(place.hint)) for name in _kinds(option)]
        tag = problem.get("ctx", {}).get("tag")
        return _one_of(f"{path}.kind", kinds, tag)
    if kind == "literal_error":
        return _one_of(path, get_args(_bare(place.hint)), found)
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        return text if text.startswith("Expected") else message(f"Expected `{path}` to be {text}", found=repr(found))
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return message(f"Expected `{path}` to be {words} {problem['ctx'][bound]:g}", found=repr(found), hint=hint)
    words = "finite" if kind == "finite_number" else _words(place.hint)
    return message(f"Expected `{path or 'the configuration'}` to be {words}", found=shown, hint=hint)


def _one_of(path: str, options: Any, found: Any) -> str:
    names = [str(option) for option in options]
    words = "one of those available" if isinstance(found, str | None) else "str, one of those available"
    expected = f"Expected `{path}` to be {words}"
    return message(expected, found=repr(found), available=names, hint=_nearest(str(found), names))


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else ""


def _kinds(option: Any) -> tuple[Any, ...]:
    """Return the names that tell an option of a union apart."""
    fields = getattr(_bare(option), "__pydantic_fields__", {})
    return get_args(_bare(fields["kind"].annotation)) if "kind" in fields else ()


def _bare(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return hint


def _words(hint: Any) -> str:
    """Name a type."""
    hint = _bare(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        tables = any(_kinds(option) for option in args)
        return _TABLE if tables else " or ".join(_words(option) for option in args)
    if origin is tuple:
        count = "" if args[-1] is Ellipsis else f"{len(args)} "
        return f"a list of {count}{_words(args[0])}"
    if origin is Literal:
        return " or ".join(map(repr, args))
    if origin is dict or dataclasses.is_dataclass(hint):
        return _TABLE
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))
