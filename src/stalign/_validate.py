"""Errors that say what was expected, what was found, what is available and what to call next."""

from __future__ import annotations

import sys
import warnings
from numbers import Integral, Real
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType


def message(expected: str, *, found: object = None, available: Iterable[object] | None = None, hint: str = "") -> str:
    """Compose an error message.

    Parameters
    ----------
    expected
        What was expected, as a sentence without the full stop.
    found
        What was found instead.
    available
        The names that would have worked; the first ten are listed.
    hint
        What to call or change next, as a sentence without the full stop.

    Returns
    -------
    The message, one line.

    Examples
    --------
    >>> from stalign._validate import message
    >>> message("Expected a layer", found="'raw'", available=["counts"], hint="Pass `layer='counts'`")
    "Expected a layer. Found: 'raw'. Available: 'counts'. Pass `layer='counts'`."
    """
    parts = [expected]
    if found is not None:
        parts.append(f"Found: {found}")
    if available is not None:
        names = [repr(str(name)) for name in available]
        rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
        parts.append(f"Available: {', '.join(names[:10]) + rest if names else 'none'}")
    if hint:
        parts.append(hint)
    text = ". ".join(part.rstrip(".") for part in parts)
    return text if text.endswith("?") else f"{text}."


def one_of(value: object, allowed: Iterable[object], *, name: str, hint: str = "") -> None:
    """Raise unless a value is one of those allowed.

    Parameters
    ----------
    value
        The value given.
    allowed
        The values that would be right.
    name
        The parameter's name, for the message.
    hint
        What to do next.

    Raises
    ------
    ValueError
        If `value` is not in `allowed`.
    """
    allowed = list(allowed)
    if value not in allowed:
        raise ValueError(
            message(f"Expected `{name}` to be one of those available", found=repr(value), available=allowed, hint=hint)
        )


def whole(value: object, *, name: str, least: int = 1) -> int:
    """Check a whole number.

    Parameters
    ----------
    value
        The value given.
    name
        The parameter's name, for the message.
    least
        The smallest value that is right.

    Returns
    -------
    The number.

    Raises
    ------
    TypeError
        If `value` is not a whole number.
    ValueError
        If it is below `least`.
    """
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(message(f"Expected `{name}` to be a whole number", found=repr(value)))
    if value < least:
        raise ValueError(message(f"Expected `{name}` to be at least {least}", found=value))
    return int(value)


def positive(value: object, *, name: str, unit: str = "") -> float:
    """Check a positive number.

    Parameters
    ----------
    value
        The value given.
    name
        The parameter's name, for the message.
    unit
        Unit of the number, for the message.

    Returns
    -------
    The number.

    Raises
    ------
    ValueError
        If `value` is no number, 0, negative, infinite or NaN.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 < float(value) < float("inf"):
        of = f" of {unit}" if unit else ""
        raise ValueError(message(f"Expected `{name}` to be a positive number{of}", found=repr(value)))
    return float(value)


def opacity(value: object, *, name: str) -> float:
    """Check an opacity.

    Parameters
    ----------
    value
        The value given.
    name
        The parameter's name, for the message.

    Returns
    -------
    The opacity; 1 for True and 0 for False.

    Raises
    ------
    ValueError
        If `value` is no number from 0 to 1.
    """
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise ValueError(message(f"Expected `{name}` to be True, False or an opacity from 0 to 1", found=repr(value)))
    return float(value)


def warn(text: str) -> None:
    """Warn the user, at the line outside of stalign that led here.

    Parameters
    ----------
    text
        The warning.

    Warns
    -----
    UserWarning
        Always.
    """
    level, outermost = 2, 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).split(".")[0] == "stalign":
            outermost = level
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=outermost + 1)


def text_of(error: BaseException) -> str:
    """Get what an error says, on one line."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split()) or "no reason given"
