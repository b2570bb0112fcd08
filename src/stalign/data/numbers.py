"""Numbers as other writers leave them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping


def number(values: Mapping[str, Any], key: str, *, where: str) -> float | None:
    """Placeholder"""
    value = values.get(key)
    if value is None:
        return None
    try:
        found = float(np.asarray(value).reshape(-1)[0] if np.size(value) == 1 else "x")
    except (TypeError, ValueError):
        found = float("nan")
    if not (np.isfinite(found) and found > 0):
        raise ValueError(message(f"Expected {key!r} of {where} to be a number above 0", found=repr(value)))
    return found
