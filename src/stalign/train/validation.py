"""Sections to validate on, set apart from those to train on, with nothing on both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._settings import logger
from stalign._validate import message
from stalign.train.duplicates import alike
from stalign.train.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stalign.train.loaders import Split
    from stalign.train.store import SectionStore, StoredSection

_COLUMNS = ("section", "slide", "donor", "study")
_APART = "Name all that belongs together in `data.validation`, or leave the rest out with `data.exclude`"


def split(
    store: SectionStore, patterns: Sequence[str], content: Sequence[Sequence[Any]] | None = None
) -> tuple[Split, Split | None]:
    """Set the sections apart whose section, slide, donor or study matches.

    Parameters
    ----------
    store
        All sections.
    patterns
        Patterns of the names of those to validate on.
    content
        What the sections hold, `store.fingerprint()`, where that is known already.

    Returns
    -------
    Sections and spots to train on, and those to validate on or None.

    Raises
    ------
    ValueError
        If a pattern fits nothing, nothing is left to train on, or a donor or one tissue is on both sides.

    Notes
    -----
    Two sections are of one donor if the donor has the same name and the study does not differ.
    """
    _check_patterns(store, patterns)
    held = [s for s in store.sections if s.fits(patterns)]
    kept = [s for s in store.sections if not s.fits(patterns)]
    if not kept:
        raise ValueError(message("Expected sections to train on", found="all of them held out by `data.validation`"))
    _check_donors(kept, held)
    content = store.fingerprint() if content is None else content
    _check_tissues(kept, held, {name: parts for name, _, parts in content})
    if held:
        names = ", ".join(s.name for s in held)
        logger.info("Validation on %d of %d sections: %s.", len(held), len(store.sections), names)
    return (kept, [s.rows for s in kept]), ((held, [s.rows for s in held]) if held else None)


def _check_patterns(store: SectionStore, patterns: Sequence[str]) -> None:
    """See that each pattern fits a section that is used; a mistyped one would train on what it should hold out."""
    for pattern in patterns:
        if any(s.fits([pattern]) for s in store.sections):
            continue
        out = [
            f"{row['section'] or row['slide']} is left out: {row['why']}"
            for row in store.report
            if not row["kept"] and any(row[key] and matches(row[key], [pattern]) for key in _COLUMNS)
        ]
        found = "; ".join([f"{pattern!r}", *out])
        names = sorted({name for s in store.sections for name in (s.name, *s.names)})
        expected = "Expected each pattern of `data.validation` to fit a section, slide, donor or study"
        raise ValueError(message(expected, found=found, available=names))


def _check_donors(kept: Sequence[StoredSection], held: Sequence[StoredSection]) -> None:
    pairs = [(a, b) for b in held for a in kept if _one_donor(a, b)]
    if pairs:
        found = "; ".join(f"{b.donor!r} of {b.name} (validation) and {a.name} (training)" for a, b in pairs[:5])
        rest = f" and {len(pairs) - 5} more" if len(pairs) > 5 else ""
        raise ValueError(message("Expected no donor in both training and validation", found=found + rest, hint=_APART))


def _one_donor(a: StoredSection, b: StoredSection) -> bool:
    if not a.donor or not b.donor or a.donor.casefold() != b.donor.casefold():
        return False
    return not a.study or not b.study or a.study.casefold() == b.study.casefold()


def _check_tissues(
    kept: Sequence[StoredSection], held: Sequence[StoredSection], content: Mapping[str, Mapping[str, str]]
) -> None:
    """See that no tissue is on both sides under two names, and tell of one that is trained on twice."""
    sections = [*kept, *held]
    for i, j, what in alike(sections, [content[s.name] for s in sections]):
        a, b = sections[i].label, sections[j].label
        if i < len(kept) <= j:
            found = f"{a} (training) and {b} (validation) hold the same {what}"
            raise ValueError(message("Expected no section in both training and validation", found=found, hint=_APART))
        if j < len(kept):
            logger.warning("Sections %s and %s hold the same %s and are both trained on.", a, b, what)
