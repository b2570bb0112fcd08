"""Tables of JSON and TOML into frozen dataclasses, with errors that name the wrong key."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from stalign._validate import message


def mapping(data: Any, where: str) -> dict[str, Any]:
    """Return a value that has to be a table of keys and values.

    Parameters
    ----------
    data
        The value.
    where
        Its name, for the message.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not isinstance(data, dict):
        raise ValueError(message(f"Expected a table of keys and values for `{where}`", found=repr(data)))
    return data


def build(cls: type, data: Any, where: str) -> Any:
    """Make a flat dataclass of a table.

    Parameters
    ----------
    cls
        The dataclass.
    data
        Its fields; those left out take their defaults.
    where
        Its name, for the messages.

    Returns
    -------
    The instance.

    Raises
    ------
    ValueError
        If a key is unknown or lacking, or a value of the wrong type.
    """
    data = mapping(data, where)
    known = [f.name for f in fields(cls)]
    unknown = [key for key in data if key not in known]
    if unknown:
        raise ValueError(
            message(f"Expected only keys of `{where}`", found=", ".join(map(repr, unknown)), available=known)
        )
    for f in fields(cls):
        if f.name in data and not _fits(data[f.name], str(f.type)):
            raise ValueError(message(f"Expected `{where}.{f.name}` to be {f.type}", found=repr(data[f.name])))
    try:
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in data.items()})
    except TypeError as error:
        raise ValueError(message(f"Expected complete values for `{where}`", found=str(error))) from error


def _fits(value: Any, annotation: str) -> bool:
    """Return whether a value read from JSON or TOML is of the annotated kind; only plain annotations are checked."""
    if annotation.startswith("tuple["):
        item = annotation.removeprefix("tuple[").split(",")[0].rstrip("]")
        return isinstance(value, list | tuple) and all(_fits(each, item) for each in value)
    kinds: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    if annotation not in kinds:
        return True
    return isinstance(value, kinds[annotation]) and (annotation == "bool" or not isinstance(value, bool))


def plain(value: Any) -> Any:
    """Return nested values with lists for tuples, as JSON has them.

    Parameters
    ----------
    value
        Dictionaries, tuples and scalars.
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple) else value
