"""Columns of labels: what counts as a label, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import ArrayLike, NDArray

# What files and annotators write where a spot has no label.
NO_LABEL: Final = (
    "", "nan", "NaN", "NAN", "None", "none", "NA", "N/A", "n/a", "<NA>", "NaT", "null", "NULL", "undetermined",
    "Undetermined", "exclude", "Exclude", "unlabelled", "Unlabelled", "unlabeled", "Unlabeled",
)  # fmt: skip
NO_LABEL_OR_UNKNOWN: Final = (*NO_LABEL, "unknown", "Unknown")  # what no classifier is to learn
_MISSING: Final = ("nan", "None", "<NA>", "NaT")  # how Python writes a missing value that is no text


def as_labels(values: ArrayLike, *, ignore: Collection[Any] = NO_LABEL) -> NDArray[np.object_]:
    """Read labels as text, with None where there is none.

    Parameters
    ----------
    values
        Labels, (n,): text, bytes, numbers, booleans, or a column of a table, categorical or not.
    ignore
        Labels that mean "no label" beside missing values.

    Returns
    -------
    (n,) object: a string without spaces around it, or None. A whole number is written without decimals, as a column of
    integers becomes one of floats where values are missing.

    Examples
    --------
    >>> from stalign.core.labels import as_labels
    >>> as_labels(["L1", "", None, 2.0, "undetermined"]).tolist()
    ['L1', None, None, '2', None]
    """
    left_out = {as_text(value) for value in ignore}
    values = np.asarray(values, dtype=object)
    texts = [as_text(value) for value in values]
    found = np.empty(len(texts), dtype=object)
    found[:] = [None if text in left_out else text for text in texts]
    return found


def as_text(value: Any) -> str | None:
    """Write one label as text without spaces around it; None where it is missing."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    return None if text in _MISSING else text
