"""What a run learns of a slide before it reads it: sections, genes, and what is left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign.data import gene_ids, has_counts, read_counts
from stalign.train.patterns import left_out, names_of, takes, warn_unfit
from stalign.train.slides import donor_of
from stalign.train.vocabulary import human_symbols

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened, Slide


@dataclass
class Survey:
    """What is known of a slide before the vocabulary is.

    Parameters
    ----------
    sections
        Names of the sections that can be used.
    donors
        Their donors.
    dropped
        Rows of the report for the others.
    symbols
        Human symbol of each gene, (m,); None where there is none.
    detected
        Spots in which each gene has counts, (m,), for each usable section.
    """

    sections: list[str] = field(default_factory=list)
    donors: list[str | None] = field(default_factory=list)
    dropped: list[dict[str, Any]] = field(default_factory=list)
    symbols: list[str | None] = field(default_factory=list)
    detected: list[NDArray[np.integer]] = field(default_factory=list)


def report_row(slide: Slide, section: str, why: str, **more: Any) -> dict[str, Any]:
    """Make a row of the report.

    Parameters
    ----------
    slide
        The slide.
    section
        Name of the section, or "" for the slide.
    why
        Why it was dropped; "" where it was kept.
    more
        Further columns.

    Returns
    -------
    The row.
    """
    spec = slide.spec
    base = {"section": section, "slide": slide.name, "donor": spec.donor, "study": spec.study, "spots": 0, "inputs": ""}
    return {**base, "kept": not why, "why": why, **more}


def survey(one: Opened, config: DataConfig, by_ensembl: Mapping[str, str]) -> Survey:
    """Say which sections of a slide can be used, and which genes they measure.

    Parameters
    ----------
    one
        The slide.
    config
        What is left out.
    by_ensembl
        Symbol of each Ensembl id.

    Returns
    -------
    The survey.
    """
    table, slide = one.table, one.slide
    found = Survey()
    counted = slide.spec.genes and has_counts(table, layer=slide.spec.layer)
    kept = []
    for view in one.sections:
        donor = donor_of(view, slide)
        why = left_out(slide, view.name, donor, config.exclude)
        n = int(view.valid.sum())
        if why is None and n < config.min_spots:
            why = f"{n} spots, fewer than {config.min_spots}"
        if why is None and not counted and view.image is None:
            why = "neither an image nor counts"
        if why is None:
            kept.append(view)
            found.sections.append(view.name)
            found.donors.append(donor)
        else:
            found.dropped.append(report_row(slide, view.name, why, donor=donor, spots=n))
    if counted and kept:
        given = slide.spec
        counts, _ = read_counts(table, layer=given.layer, total_counts=given.total_counts)
        ids, _ = gene_ids(table, gene_key=given.gene_key)
        found.symbols = human_symbols(ids, slide.orthologs, by_ensembl)
        found.detected = [np.asarray((counts[view.rows] > 0).sum(axis=0)).ravel() for view in kept]
    return found


def use_once(slides: Sequence[Slide], surveys: Sequence[Survey | str], barred: Mapping[int, str]) -> None:
    """Drop sections that are listed again, and all listings of a section if `data.exclude` fits one of them.

    Parameters
    ----------
    slides
        All slides.
    surveys
        What is known of each, or why it is not; the surveys are changed.
    barred
        Why slides were not opened, by their position.
    """
    given = list(zip(slides, surveys, strict=True))
    shut = [(_place(slides[i]), slides[i].spec, why) for i, why in barred.items()]
    banned = {
        (_place(slide), row["section"]): row["why"]
        for slide, found in given
        if isinstance(found, Survey)
        for row in found.dropped
        if row["why"].startswith("excluded by its ") and takes(slide.spec, row["section"])
    }
    seen = set()
    for slide, found in given:
        if not isinstance(found, Survey):
            continue
        place, kept = _place(slide), []
        for i, (section, donor) in enumerate(zip(found.sections, found.donors, strict=True)):
            why = next((w for other, spec, w in shut if other == place and takes(spec, section)), None)
            why = why or banned.get((place, section)) or ("listed more than once" if (place, section) in seen else "")
            seen.add((place, section))
            if why:
                found.dropped.append(report_row(slide, section, why, donor=donor))
            else:
                kept.append(i)
        found.sections, found.donors = [found.sections[i] for i in kept], [found.donors[i] for i in kept]
        found.detected = [found.detected[i] for i in kept] if found.detected else []


def warn_unfit_exclude(slides: Sequence[Slide], surveys: Sequence[Survey | str], exclude: Sequence[str]) -> None:
    """Warn of patterns of `data.exclude` that fit nothing.

    Parameters
    ----------
    slides
        All slides.
    surveys
        What is known of each, or why it is not.
    exclude
        The patterns.
    """
    names: set[str | None] = set()
    for slide, found in zip(slides, surveys, strict=True):
        names |= {name for _, name in names_of(slide, slide.spec.donor)}
        if isinstance(found, Survey):
            names |= {*found.sections, *found.donors}
            names |= {row[key] for row in found.dropped for key in ("section", "donor")}
    warn_unfit(exclude, {name for name in names if name}, kind="exclude", of="slide")


def _place(slide: Slide) -> tuple[str, int | None, str | None, str | None]:
    """Tell tables apart: by their file, or by object where they are in memory."""
    data = slide.data
    path = str(slide.path.resolve()) if data is None else slide.spec.path
    return path, None if data is None else id(data), slide.spec.slide, slide.spec.table_key
