"""Which of the sections at hand were in the training of weights, by what their card lists."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

DONOR: Final = ("donor", "patient", "subject", "individual")  # names of columns of donors, also with "_id"


def trained_on(
    training_data: Iterable[Any], sections: Collection[str], donors: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Find the training sections that have the name of a section at hand, or of its donor.

    Parameters
    ----------
    training_data
        What the weights' card lists: mappings with `section`, and `donor`, `study` and `spots` where they are known, or
        names of sections alone.
    sections
        Names of the sections at hand.
    donors
        Names of their donors, where they are known.

    Returns
    -------
    The entries of the card that match, letter by letter, as mappings.

    Examples
    --------
    >>> from stalign.core.training_data import trained_on
    >>> trained_on([{"section": "S1", "donor": "D"}, {"section": "S10", "donor": "E"}], ["S1"])
    [{'section': 'S1', 'donor': 'D'}]
    """
    entries = [dict(entry) if isinstance(entry, Mapping) else {"section": str(entry)} for entry in training_data]
    return [
        entry for entry in entries if str(entry.get("section")) in sections or str(entry.get("donor")) in set(donors)
    ]
