"""A store of sections, not of patches: readers of all sections of a run, and what was left out and why."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from stalign._settings import logger, progress
from stalign._validate import message
from stalign.train.reading import Survey, read, report_row, survey, with_features
from stalign.train.shelf import NotKeptError, Shelf, hash_of, key_of
from stalign.train.slides import open_slide
from stalign.train.vocabulary import GeneCensus, choose, read_gene_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data.expression import Vocabulary
    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened, Slide

T = TypeVar("T")


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
    """

    name: str
    reader: SpotReader
    rows: NDArray[np.intp]
    clusters: NDArray[np.intp] | None = None
    donor: str | None = None
    study: str | None = None

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
    """

    sections: list[StoredSection]
    vocabulary: Vocabulary
    report: list[dict[str, Any]]

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
        """Return name and number of spots of each section, to compare a resumed run with."""
        return [[s.name, len(s.rows)] for s in self.sections]


def open_store(
    slides: Sequence[Slide],
    config: DataConfig,
    spec: InputSpec,
    *,
    vocabulary: Vocabulary | None = None,
    seed: int = 0,
    folder: Path | None = None,
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
        The genes of weights that are trained further; None chooses them from the sections.
    seed
        Seed of the subsample that a section's gene basis is fitted to.
    folder
        Where `config.store = "disk"` keeps sections as arrays.

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
    _find_encoders(slides, config)
    opener = _Opener(config, spec, seed, Shelf(folder) if config.store == "disk" and folder is not None else None)
    extra = read_gene_file(Path(config.root) / config.vocabulary) if config.vocabulary and vocabulary is None else []
    by_ensembl = {ensembl: symbol for symbol, ensembl in extra if ensembl}
    report: list[dict[str, Any]] = []
    census = GeneCensus()
    surveys = opener.each(slides, "Reading slides", lambda slide: opener.survey(slide, by_ensembl))
    for slide, found in zip(slides, surveys, strict=True):
        report.extend(found.dropped if isinstance(found, Survey) else [report_row(slide, "", found)])
        if isinstance(found, Survey):
            census.add(found.symbols, found.detected)
    if vocabulary is None and census.tables:
        vocabulary = choose(census, config.max_genes, extra)
    usable = [(slide, found) for slide, found in zip(slides, surveys, strict=True) if isinstance(found, Survey)]
    surveyed = {id(slide): found for slide, found in usable}
    readers = opener.each(
        [slide for slide, _ in usable],
        "Reading sections",
        lambda slide: opener.readers(slide, surveyed[id(slide)], vocabulary),
    )
    sections: list[StoredSection] = []
    for (slide, found), made in zip(usable, readers, strict=True):
        if isinstance(made, str):
            report.append(report_row(slide, "", made))
            continue
        for name, donor, reader in zip(found.sections, found.donors, made, strict=True):
            stored = StoredSection(name, reader, np.flatnonzero(reader.valid), donor=donor, study=slide.spec.study)
            n = len(stored.rows)
            why = f"{n} spots that can be embedded, fewer than {config.min_spots}" if n < config.min_spots else ""
            report.append(report_row(slide, name, why, donor=donor, spots=n, inputs=stored.stratum))
            if not why:
                sections.append(stored)
    if not sections:
        reasons = "; ".join(f"{r['section'] or r['slide']}: {r['why']}" for r in report) or "no slide was given"
        raise ValueError(message("Expected at least one usable section", found=f"none ({reasons})"))
    if vocabulary is None:
        raise ValueError(
            message("Expected counts in at least one section", found="images alone", hint="Start from trained weights")
        )
    store = SectionStore(_unique(sections), vocabulary, report)
    dropped = sum(not r["kept"] for r in report)
    logger.info("%d sections with %d spots; %d left out.", len(store.sections), store.n_spots, dropped)
    return store


class _Opener:
    """Opens slides once in memory, or twice where what is made of them is kept on disk in between."""

    def __init__(self, config: DataConfig, spec: InputSpec, seed: int, shelf: Shelf | None) -> None:
        self.config, self.spec, self.seed, self.shelf = config, spec, seed, shelf
        self.opened: dict[int, Opened] = {}

    def each(self, slides: Sequence[Slide], what: str, make: Callable[[Slide], T]) -> list[T | str]:
        """Make something of each slide, or say why it cannot be read.

        Processes that share a shelf start at different slides, so that each finds what the others have made.
        """
        first = 0
        if self.shelf is not None:
            rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1)))
            first = len(slides) * rank // world
        made: dict[int, T | str] = {}
        for i in progress([*range(first, len(slides)), *range(first)], desc=what, unit="slide"):
            slide = slides[i]
            try:
                made[i] = make(slide)
            except NotKeptError:  # nothing is wrong with the slide
                raise
            except (OSError, ValueError, KeyError, TypeError) as error:
                cause = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
                if self.config.on_error == "stop":
                    hint = 'Mend it, list it under `exclude`, or set `data.on_error = "skip"`'
                    raise RuntimeError(message(f"Cannot read slide {slide.name!r}", found=cause, hint=hint)) from error
                logger.warning("Cannot read slide %s: %s", slide.name, cause)
                made[i] = f"cannot be read: {cause}"
        return [made[i] for i in range(len(slides))]

    def survey(self, slide: Slide, by_ensembl: Mapping[str, str]) -> Survey:
        """Survey a slide."""
        key = self._key(
            slide, {"exclude": self.config.exclude, "least": self.config.min_spots, "names": len(by_ensembl)}
        )
        if key is not None and self.shelf is not None:
            kept = self.shelf.get(f"survey-{key}", self.spec)
            if kept is not None:
                return Survey(**{name: list(value) for name, value in kept.items()})
        one = self._open(slide)
        found = survey(one, self.config, by_ensembl)
        if key is not None and self.shelf is not None:
            self.shelf.put(f"survey-{key}", {f.name: getattr(found, f.name) for f in fields(found)})
            self.opened.pop(id(slide))
        return found

    def readers(self, slide: Slide, found: Survey, vocabulary: Vocabulary | None) -> list[SpotReader]:
        """Make the readers of a slide's usable sections, and let the slide go."""
        genes = None if vocabulary is None else hash_of([vocabulary.symbols, vocabulary.ensembl])
        base = self._key(slide, {"input": asdict(self.spec), "genes": genes, "seed": self.seed})
        one: Opened | None = None
        features: dict[str, str] = {}
        out = []
        for name in found.sections:
            key = None if base is None else f"section-{base}-{hash_of(name)}"
            reader = None if key is None or self.shelf is None else self.shelf.get(key, self.spec)
            if reader is None:
                if one is None:
                    one, features = with_features(self._open(slide), self.config)
                reader = read(one, name, self.spec, vocabulary, features, self.seed)
                if key is not None and self.shelf is not None:
                    self.shelf.put(key, reader)
                    reader = self.shelf.get(key, self.spec) or reader
            out.append(reader)
        self.opened.pop(id(slide), None)
        return out

    def _open(self, slide: Slide) -> Opened:
        if id(slide) not in self.opened:
            self.opened[id(slide)] = open_slide(slide, self.spec)
        return self.opened[id(slide)]

    def _key(self, slide: Slide, more: dict[str, Any]) -> str | None:
        if self.shelf is None or not slide.path.exists():
            return None
        niche = {"n_neighbors": self.spec.n_neighbors, "include_self": self.spec.include_self}
        encoders = {"encoders": self.config.encoders, "weights": self.config.encoder_weights}
        return key_of(slide, {**niche, **encoders, **more})


def _find_encoders(slides: Sequence[Slide], config: DataConfig) -> None:
    """Look for the weights of encoders before any slide is opened, so that what lacks is not said for each slide."""
    from stalign.encoders.loading import locate
    from stalign.encoders.registry import get

    for branch, encoder in config.encoders.items():
        if any(branch not in slide.spec.features for slide in slides):
            locate(get(encoder), config.encoder_weights.get(encoder))


def _unique(sections: list[StoredSection]) -> list[StoredSection]:
    """Number the sections whose names come more than once."""
    seen: dict[str, int] = {}
    out = []
    for section in sections:
        seen[section.name] = seen.get(section.name, 0) + 1
        count = seen[section.name]
        out.append(section if count == 1 else replace(section, name=f"{section.name} ({count})"))
    return out
