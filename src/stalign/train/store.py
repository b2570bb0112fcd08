"""A store of sections, not of patches: readers of all sections of a run, and what was left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._settings import logger
from stalign._validate import message
from stalign.train.cache import SectionCache
from stalign.train.config import resolve
from stalign.train.content import content_of
from stalign.train.patterns import excluded, matches, names_of
from stalign.train.readers import weights_of
from stalign.train.slide_reader import ADVICE, SlideReader
from stalign.train.survey import Survey, report_row, use_once, warn_unfit_exclude
from stalign.train.vocabulary import GeneCensus, choose, read_gene_file

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.data import Vocabulary
    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Slide


@dataclass(frozen=True)
class StoredSection:
    """One section of a run.

    Parameters
    ----------
    name
        Its name, once in a run.
    reader
        Cuts its patches and reads its expression.
    rows
        Positions of the spots that can be used, (n,).
    clusters
        Cluster of each spot for negatives drawn from other clusters, (len(reader),), or None.
    donor, study
        Who it is from.
    slide
        Name of its slide.
    names
        What else patterns find it by: its name in its table, which sections of other tables may have too, and the names
        of its slide, donor and study.
    """

    name: str
    reader: SpotReader
    rows: NDArray[np.intp]
    clusters: NDArray[np.intp] | None = None
    donor: str | None = None
    study: str | None = None
    slide: str = ""
    names: tuple[str, ...] = ()

    def fits(self, patterns: str | Sequence[str]) -> bool:
        """Say whether its name, or that of its slide, donor or study, fits one of some patterns."""
        return any(matches(name, patterns) for name in (self.name, *self.names))

    @property
    def label(self) -> str:
        """Its name with that of its slide, for messages."""
        return f"{self.name} of {self.slide}" if self.slide else self.name

    @property
    def stratum(self) -> str:
        """Sections of one stratum bring the same inputs and can share a batch."""
        return "+".join([self.reader.modality, *sorted(self.reader.features)])


@dataclass
class SectionStore:
    """The sections of a run.

    Parameters
    ----------
    sections
        Those that are used.
    vocabulary
        The genes of the run.
    report
        One row for each section that was found: whether it was kept, and why not.
    encoders
        Hash of the weights of each frozen encoder that computed features.
    """

    sections: list[StoredSection]
    vocabulary: Vocabulary
    report: list[dict[str, Any]]
    encoders: dict[str, str] = field(default_factory=dict)

    @property
    def n_spots(self) -> int:
        """Spots that can be used, in all sections."""
        return sum(len(s.rows) for s in self.sections)

    def manifest(self) -> pd.DataFrame:
        """Return the report as a table."""
        return pd.DataFrame(
            self.report, columns=["section", "slide", "donor", "study", "spots", "inputs", "kept", "why"]
        )

    def fingerprint(self) -> list[list[Any]]:
        """Return name, number of spots and hashes of what each section holds, to compare a resumed run with."""
        return [[s.name, len(s.rows), content_of(s.reader)] for s in self.sections]


def open_store(
    slides: Sequence[Slide],
    config: DataConfig,
    spec: InputSpec,
    *,
    vocabulary: Vocabulary | None = None,
    genes: Sequence[tuple[str, str]] = (),
    seed: int = 0,
    folder: Path | None = None,
    advice: str = ADVICE,
) -> SectionStore:
    """Open the sections of a run.

    Parameters
    ----------
    slides
        The tables.
    config
        What is left out, and how large the vocabulary may be.
    spec
        What the network reads.
    vocabulary
        The genes of weights that are adapted; None chooses them from the sections.
    genes
        Further symbols with their Ensembl ids, such as those of weights that training starts from; they fill what the
        sections leave free.
    seed
        Seed of the subsample that a section's gene basis is fitted to.
    folder
        Where `config.store = "disk"` keeps sections as arrays.
    advice
        What the user can do about a slide that cannot be read.

    Returns
    -------
    The store.

    Raises
    ------
    RuntimeError
        If a slide cannot be read; the message names it and the cause.
    OSError
        If there is no room to keep what was made of a slide, whatever `config.on_error` says.
    ValueError
        If no section is left; the message says why for each.
    """
    encoders = _find_encoders(slides, config)
    cache = SectionCache(folder) if config.store == "disk" and folder is not None else None
    source = SlideReader(config, spec, seed, cache, encoders=encoders, advice=advice)
    extra = read_gene_file(resolve(config.root, config.vocabulary)) if config.vocabulary and vocabulary is None else []
    extra = [*extra, *genes]
    by_ensembl = {ensembl: symbol for symbol, ensembl in extra if ensembl}
    surveys = _survey(slides, config, source, by_ensembl)
    census = GeneCensus()
    for found in surveys:
        if isinstance(found, Survey):
            census.add(found.symbols, found.detected)
    if vocabulary is None and (census.tables or genes):
        vocabulary = choose(census, config.max_genes, extra)
    sections, report = _read(slides, surveys, source, vocabulary, config.min_spots)
    if not sections:
        causes = "; ".join(f"{r['section'] or r['slide']}: {r['why']}" for r in report) or "no slide was given"
        raise ValueError(message("Expected at least one usable section", found=f"none ({causes})"))
    if vocabulary is None:
        raise ValueError(
            message("Expected counts in at least one section", found="images alone", hint="Start from trained weights")
        )
    store = SectionStore(sections, vocabulary, report, encoders)
    dropped = sum(not r["kept"] for r in report)
    logger.info("%d sections with %d spots; %d left out.", len(store.sections), store.n_spots, dropped)
    return store


def _survey(
    slides: Sequence[Slide], config: DataConfig, source: SlideReader, by_ensembl: dict[str, str]
) -> list[Survey | str]:
    """Say what each slide holds, or why it is left out."""
    reasons = [excluded(slide, config.exclude) for slide in slides]
    barred = {i: why for i, why in enumerate(reasons) if why}
    wanted = [slide for i, slide in enumerate(slides) if i not in barred]
    in_turn = iter(source.each(wanted, "Reading slides", lambda slide: source.survey(slide, by_ensembl)))
    surveys = [why or next(in_turn) for why in reasons]
    warn_unfit_exclude(slides, surveys, config.exclude)
    use_once(slides, surveys, barred)
    return surveys


def _read(
    slides: Sequence[Slide],
    surveys: Sequence[Survey | str],
    source: SlideReader,
    vocabulary: Vocabulary | None,
    min_spots: int,
) -> tuple[list[StoredSection], list[dict[str, Any]]]:
    """Read the sections that were found; return those that can be used, and a row of the report for each."""
    report: list[dict[str, Any]] = []
    usable: list[tuple[Slide, Survey]] = []
    for slide, found in zip(slides, surveys, strict=True):
        report.extend(found.dropped if isinstance(found, Survey) else [report_row(slide, "", found)])
        if isinstance(found, Survey) and found.sections:
            usable.append((slide, found))
    surveyed = {id(slide): found for slide, found in usable}
    source.opened = {key: one for key, one in source.opened.items() if key in surveyed}
    readers = source.each(
        [slide for slide, _ in usable],
        "Reading sections",
        lambda slide: source.readers(slide, surveyed[id(slide)], vocabulary),
    )
    sections: dict[str, StoredSection] = {}
    for (slide, found), made in zip(usable, readers, strict=True):
        if isinstance(made, str):
            report.append(report_row(slide, "", made))
            continue
        for given, donor, reader in zip(found.sections, found.donors, made, strict=True):
            name, rows = _unique(given, sections), np.flatnonzero(reader.valid)
            names = (given, *(name for _, name in names_of(slide, donor or slide.spec.donor)))
            more: dict[str, Any] = {"donor": donor, "study": slide.spec.study, "slide": slide.name, "names": names}
            stored = StoredSection(name, reader, rows, **more)
            n = len(stored.rows)
            why = f"{n} spots that can be embedded, fewer than {min_spots}" if n < min_spots else ""
            report.append(report_row(slide, name, why, donor=donor, spots=n, inputs=stored.stratum))
            if not why:
                sections[name] = stored
    return list(sections.values()), report


def _find_encoders(slides: Sequence[Slide], config: DataConfig) -> dict[str, str]:
    """Hash the weights of encoders before any slide is opened, so that what lacks is not said for each slide."""
    from stalign.encoders.loading import identify, locate
    from stalign.encoders.registry import get

    found = {}
    for branch, encoder in config.encoders.items():
        if any(branch not in slide.spec.features for slide in slides):
            card = get(encoder)
            found[encoder] = identify(card, locate(card, weights_of(config, encoder)))[:16]
    return found


def _unique(name: str, taken: Container[str]) -> str:
    """Number a name that another section of the run has already."""
    count, new = 1, name
    while new in taken:
        count += 1
        new = f"{name} ({count})"
    return new
