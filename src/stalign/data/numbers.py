"""Numbers of scale factors and metadata, in the forms that other writers leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping


def number(values: Mapping[str, Any], key: str, *, where: str) -> float | None:
    """Read a length, scale or size.

    Parameters
    ----------
    values
        Scale factors or metadata.
    key
        Name of the number.
    where
        File or section that they are of, for the message.

    Returns
    -------
    The number, also of text, an array or list of one, or a numpy scalar; None where it is not there or None.

    Raises
    ------
    ValueError
        If it is no number, several, a bool, not finite, 0 or negative.
    """
    value = values.get(key)
    if value is None:
        return None
    single = value
    try:
        array = np.asarray(value)
        if array.size == 1:
            single = array.ravel()[0]
        single = single.decode() if isinstance(single, bytes) else single
        found = float("nan") if isinstance(single, bool | np.bool_) or np.iscomplexobj(single) else float(single)
    except (TypeError, ValueError):
        found = float("nan")
    if not (np.isfinite(found) and found > 0):
        raise ValueError(
            message(
                f"Expected {key!r} of {where} to be a positive number",
                found=repr(value.item() if isinstance(value, np.generic) else value)[:80],
                hint="Correct the number there",
            )
        )
    return found
