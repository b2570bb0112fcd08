"""Names against patterns, as `exclude` and `validation` hold them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from stalign._settings import logger

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from stalign.train.config import SectionSpec
    from stalign.train.slides import Slide


def as_patterns(given: str | Iterable[object]) -> tuple[str, ...]:
    """Take a text for one pattern, not for its letters.

    Parameters
    ----------
    given
        One pattern or several; numbers are taken as they are written.

    Returns
    -------
    The patterns.
    """
    return (given,) if isinstance(given, str) else tuple(str(pattern) for pattern in given)


def matches(name: str, patterns: str | Iterable[object]) -> bool:
    """Say whether a name fits one of some patterns, whatever the case of its letters.

    Parameters
    ----------
    name
        The name.
    patterns
        Of `fnmatch`, one or several. A name also fits itself, whatever brackets it has.

    Returns
    -------
    Whether it does.

    Examples
    --------
    >>> from stalign.train.patterns import matches
    >>> matches("151673", ["1516*"]), matches("br8100", ["Br8100"]), matches("151507", ["1516*"])
    (True, True, False)
    """
    folded = str(name).casefold()
    return any(folded == p or fnmatchcase(folded, p) for p in (q.casefold() for q in as_patterns(patterns)))


def warn_unfit(patterns: str | Iterable[object], names: Collection[str], *, kind: str, of: str) -> None:
    """Warn of patterns that no name fits, as a mistyped one lets in what it should keep out.

    Parameters
    ----------
    patterns
        Of `fnmatch`, one or several.
    names
        All names that there are.
    kind
        What the patterns are for.
    of
        What they should fit.
    """
    for pattern in as_patterns(patterns):
        if not any(matches(name, pattern) for name in names):
            logger.warning("The %s pattern %r fits no %s.", kind, pattern, of)


def names_of(slide: Slide, donor: str | None) -> list[tuple[str, str]]:
    """List the names that a slide goes by.

    Parameters
    ----------
    slide
        The slide.
    donor
        Who it is from, as far as that is known.

    Returns
    -------
    Kind and name of each, for `exclude`.
    """
    spec, path = slide.spec, Path(slide.spec.path)
    names = [("slide", name) for name in (spec.slide, slide.name, path.name, path.stem)]
    return [(kind, name) for kind, name in (*names, ("donor", donor), ("study", spec.study)) if name]


def excluded(slide: Slide, exclude: Iterable[str]) -> str | None:
    """Say why a slide need not be opened, if it need not.

    Parameters
    ----------
    slide
        The slide.
    exclude
        Patterns of slide, donor and study names.

    Returns
    -------
    The reason, or None.
    """
    return _fits(names_of(slide, None if slide.spec.donor_key else slide.spec.donor), exclude)


def takes(spec: SectionSpec, section: str) -> bool:
    """Say whether a table's own `include` and `exclude` let a section in.

    Parameters
    ----------
    spec
        How the table is read.
    section
        Name of the section.

    Returns
    -------
    Whether they do.
    """
    return (not spec.include or matches(section, spec.include)) and not matches(section, spec.exclude)


def left_out(slide: Slide, section: str, donor: str | None, exclude: Iterable[str]) -> str | None:
    """Say why a section may not be used, if it may not.

    Parameters
    ----------
    slide
        Its slide.
    section
        Its name.
    donor
        Who it is from.
    exclude
        Patterns of section, slide, donor and study names.

    Returns
    -------
    The reason, or None.
    """
    spec = slide.spec
    if not takes(spec, section):
        return "excluded by its table's `exclude`" if matches(section, spec.exclude) else "not among those to include"
    return _fits([("section", section), *names_of(slide, donor or spec.donor)], exclude)


def _fits(names: Iterable[tuple[str, str]], exclude: Iterable[str]) -> str | None:
    return next((f"excluded by its {kind} {name!r}" for kind, name in names if matches(name, exclude)), None)
