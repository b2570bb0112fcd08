"""A store of sections, not of patches: readers of all sections of a run, and what was left out and why."""

from __future__ import annotations

import hashlib
import os
import zlib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from stalign._settings import logger, progress
from stalign._validate import message
from stalign.train.patterns import excluded, matches, warn_unfit
from stalign.train.reading import (
    Survey,
    features_of,
    read,
    report_row,
    survey,
    use_once,
    warn_unfit_exclude,
    weights_of,
)
from stalign.train.shelf import NotKeptError, Shelf, hash_of, key_of
from stalign.train.slides import open_slide
from stalign.train.vocabulary import GeneCensus, choose, read_gene_file

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data import Vocabulary
    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened, Slide

T = TypeVar("T")
_UNREADABLE = (OSError, ValueError, LookupError, TypeError, EOFError, AttributeError, RuntimeError, zlib.error)


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
    given
        Its name as its table has it, which sections of other tables may have too; "" where `name` is that.
    """

    name: str
    reader: SpotReader
    rows: NDArray[np.intp]
    clusters: NDArray[np.intp] | None = None
    donor: str | None = None
    study: str | None = None
    given: str = ""

    def fits(self, patterns: str | Sequence[str]) -> bool:
        """Say whether its name, in the run or in its table, fits one of some patterns."""
        return any(matches(name, patterns) for name in (self.name, self.given or self.name))

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
        """Return name, number of spots and a hash of what each section holds, to compare a resumed run with."""
        return [[s.name, len(s.rows), _content(s.reader)] for s in self.sections]


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
    reasons = [excluded(slide, config.exclude) for slide in slides]
    barred = {i: why for i, why in enumerate(reasons) if why}
    wanted = [slide for i, slide in enumerate(slides) if i not in barred]
    in_turn = iter(opener.each(wanted, "Reading slides", lambda slide: opener.survey(slide, by_ensembl)))
    surveys = [why or next(in_turn) for why in reasons]
    warn_unfit_exclude(slides, surveys, config.exclude)
    use_once(slides, surveys, barred)
    for slide, found in zip(slides, surveys, strict=True):
        report.extend(found.dropped if isinstance(found, Survey) else [report_row(slide, "", found)])
        if isinstance(found, Survey):
            census.add(found.symbols, found.detected)
    if vocabulary is None and census.tables:
        vocabulary = choose(census, config.max_genes, extra)
    usable = [(slide, found) for slide, found in zip(slides, surveys, strict=True) if isinstance(found, Survey)]
    usable = [(slide, found) for slide, found in usable if found.sections]
    surveyed = {id(slide): found for slide, found in usable}
    opener.opened = {key: one for key, one in opener.opened.items() if key in surveyed}
    readers = opener.each(
        [slide for slide, _ in usable],
        "Reading sections",
        lambda slide: opener.readers(slide, surveyed[id(slide)], vocabulary),
    )
    sections: dict[str, StoredSection] = {}
    for (slide, found), made in zip(usable, readers, strict=True):
        if isinstance(made, str):
            report.append(report_row(slide, "", made))
            continue
        for given, donor, reader in zip(found.sections, found.donors, made, strict=True):
            name, rows = _unique(given, sections), np.flatnonzero(reader.valid)
            stored = StoredSection(name, reader, rows, donor=donor, study=slide.spec.study, given=given)
            n = len(stored.rows)
            why = f"{n} spots that can be embedded, fewer than {config.min_spots}" if n < config.min_spots else ""
            report.append(report_row(slide, name, why, donor=donor, spots=n, inputs=stored.stratum))
            if not why:
                sections[name] = stored
    if not sections:
        causes = "; ".join(f"{r['section'] or r['slide']}: {r['why']}" for r in report) or "no slide was given"
        raise ValueError(message("Expected at least one usable section", found=f"none ({causes})"))
    if vocabulary is None:
        raise ValueError(
            message("Expected counts in at least one section", found="images alone", hint="Start from trained weights")
        )
    names = {name for s in sections.values() for name in (s.name, s.given)}
    warn_unfit(config.validation, names, kind="validation", of="section")
    store = SectionStore(list(sections.values()), vocabulary, report)
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
            except _UNREADABLE as error:
                cause = _cause(error)
                if self.config.on_error == "stop":
                    hint = 'Mend it, list it under `exclude`, or set `data.on_error = "skip"`'
                    raise RuntimeError(message(f"Cannot read slide {slide.name!r}", found=cause, hint=hint)) from error
                logger.warning("Cannot read slide %s: %s", slide.name, cause)
                made[i] = f"cannot be read: {cause}"
        return [made[i] for i in range(len(slides))]

    def survey(self, slide: Slide, by_ensembl: Mapping[str, str]) -> Survey:
        """Survey a slide."""
        names = hash_of(sorted(by_ensembl.items()))
        key = self._key(slide, {"exclude": self.config.exclude, "least": self.config.min_spots, "names": names})
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
        features: dict[str, NDArray[np.float32]] = {}
        out = []
        for name in found.sections:
            key = None if base is None else f"section-{base}-{hash_of(name)}"
            reader = None if key is None or self.shelf is None else self.shelf.get(key, self.spec)
            if reader is None:
                if one is None:
                    one = self._open(slide)
                    features = features_of(one, self.config, self.spec)
                reader = read(one, name, self.spec, vocabulary, features, self.seed)
                if key is not None and self.shelf is not None:
                    self.shelf.put(key, reader)
                    reader = self.shelf.get(key, self.spec) or reader
            out.append(reader)
        self.opened.pop(id(slide), None)
        return out

    def _open(self, slide: Slide) -> Opened:
        if id(slide) not in self.opened:
            self.opened[id(slide)] = open_slide(slide)
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
            locate(get(encoder), weights_of(config, encoder))


def _unique(name: str, taken: Container[str]) -> str:
    """Number a name that another section of the run has already."""
    count, new = 1, name
    while new in taken:
        count += 1
        new = f"{name} ({count})"
    return new


def _cause(error: Exception) -> str:
    """Say what went wrong, with the kind of error where its text alone would not tell."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    told = text.startswith("Expected") or (isinstance(error, (OSError, ValueError)) and " " in text)
    kind = type(error)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return text if told else f"{name}: {text}".rstrip(": ")


def _content(reader: SpotReader) -> str:
    """Hash positions, counts and size of the image of a section."""
    image, expression = reader.image, reader.expression
    arrays = [reader.coords]
    if expression is not None:
        counts = expression.counts
        arrays += [expression.totals, counts.data, counts.indices, counts.indptr]
    sha = hashlib.sha256(repr(None if image is None else [int(n) for n in image.shape[:2]]).encode())
    for array in arrays:
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()[:32]
