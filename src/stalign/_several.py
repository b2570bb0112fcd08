"""Calls that take a list of tables, one after the other."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

D = TypeVar("D")
P = ParamSpec("P")
R = TypeVar("R")


def each(function: Callable[Concatenate[D, P], R]) -> Callable[Concatenate[D | Sequence[D], P], R | list[R] | None]:
    """Let a call that writes into its first argument, `data`, take a list of them; it returns a list of copies."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        data = args[0] if args else kwargs.get("data")
        if not isinstance(data, list | tuple):
            return function(*args, **kwargs)
        if not data:
            raise ValueError(message("Expected at least one section", found="an empty list"))
        rest = {name: value for name, value in kwargs.items() if name != "data"}
        changed = [cast("Callable[..., R]", function)(one, *args[1:], **rest) for one in data]
        return changed if kwargs.get("copy") else None

    return run
