"""Names against patterns, as `exclude` and `validation` hold them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Say whether a name fits one of some patterns, whatever the case of its letters.

    Parameters
    ----------
    name
        The name.
    patterns
        Of `fnmatch`.

    Returns
    -------
    Whether it does.

    Examples
    --------
    >>> from stalign.train.patterns import matches
    >>> matches("151673", ["1516*"]), matches("br8100", ["Br8100"]), matches("151507", ["1516*"])
    (True, True, False)
    """
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)
