"""A store of sections, not of patches: readers of all sections of a run, and what was left out and why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from stalign._settings import logger, progress
from stalign._validate import message
from stalign.data.expression import Vocabulary
from stalign.data.spots import read_section
from stalign.data.table import gene_ids, has_counts, read_counts, table_of
from stalign.train.slides import donor_of, left_out, open_slide
from stalign.train.vocabulary import GeneCensus, choose, human_symbols, read_gene_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data.sections import SectionView
    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
    from stalign.train.config import DataConfig
    from stalign.train.slides import Opened, Slide


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

    Returns
    -------
    The store.

    Raises
    ------
    RuntimeError
        If a slide cannot be read; the message names it and the cause.
    ValueError
        If no section is left; the message says why for each.
    """
    report: list[dict[str, Any]] = []
    opened: list[tuple[Opened, list[SectionView]]] = []
    census = GeneCensus()
    extra = read_gene_file(Path(config.root) / config.vocabulary) if config.vocabulary and vocabulary is None else []
    by_ensembl = {ensembl: symbol for symbol, ensembl in extra if ensembl}
    for slide in progress(slides, desc="Reading slides", unit="slide"):
        try:
            one = open_slide(slide, spec)
            views = _usable(one, config, report)
            if vocabulary is None and views:
                _count_genes(census, one, views, by_ensembl)
        except (OSError, ValueError, KeyError, TypeError) as error:
            _cannot_read(slide, error, config, report)
            continue
        if views:
            opened.append((one, views))
    if vocabulary is None and census.tables:
        vocabulary = choose(census, config.max_genes, extra)
    sections: list[StoredSection] = []
    while opened:  # tables are let go one by one, as readers keep what they need
        one, views = opened.pop(0)
        features: dict[str, str] | None = None
        for view in views:
            try:
                if features is None:
                    one, features = _with_features(one, config)
                stored = _read(one, view, spec, vocabulary, features, seed)
            except (OSError, ValueError, KeyError, TypeError) as error:
                _cannot_read(one.slide, error, config, report, section=view.library)
                continue
            if _enough(stored, one.slide, config, report):
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


def _row(report: list[dict[str, Any]], slide: Slide, section: str, why: str, **more: Any) -> None:
    spec = slide.spec
    base = {"section": section, "slide": slide.name, "donor": spec.donor, "study": spec.study, "spots": 0, "inputs": ""}
    report.append({**base, "kept": not why, "why": why, **more})


def _cannot_read(
    slide: Slide, error: Exception, config: DataConfig, report: list[dict[str, Any]], *, section: str = ""
) -> None:
    where = f"section {section!r} of {slide.name!r}" if section else f"slide {slide.name!r}"
    cause = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if config.on_error == "stop":
        hint = 'Mend it, list it under `exclude`, or set `data.on_error = "skip"`'
        raise RuntimeError(message(f"Cannot read {where}", found=cause, hint=hint)) from error
    logger.warning("Cannot read %s: %s", where, cause)
    _row(report, slide, section, f"cannot be read: {cause}")


def _usable(one: Opened, config: DataConfig, report: list[dict[str, Any]]) -> list[SectionView]:
    table, slide = one.table, one.slide
    kept = []
    for view in one.views:
        donor = donor_of(table, view, slide)
        why = left_out(slide, view.library, donor, config.exclude)
        n = int(np.isfinite(view.coords).all(axis=1).sum())
        if why is None and n < config.min_spots:
            why = f"{n} spots, fewer than {config.min_spots}"
        counts = slide.spec.genes and has_counts(table, layer=slide.spec.layer)
        if why is None and not counts and view.image is None:
            why = "neither an image nor counts"
        if why is None:
            kept.append(view)
        else:
            _row(report, slide, view.library, why, donor=donor, spots=n)
    return kept


def _enough(stored: StoredSection, slide: Slide, config: DataConfig, report: list[dict[str, Any]]) -> bool:
    n = len(stored.rows)
    why = f"{n} spots that can be embedded, fewer than {config.min_spots}" if n < config.min_spots else ""
    _row(report, slide, stored.name, why, donor=stored.donor, spots=n, inputs=stored.stratum)
    return not why


def _count_genes(census: GeneCensus, one: Opened, views: Sequence[SectionView], by_ensembl: Mapping[str, str]) -> None:
    table, given = one.table, one.slide.spec
    if not given.genes or not has_counts(table, layer=given.layer):
        return
    counts, _ = read_counts(table, layer=given.layer, total_counts=given.total_counts)
    ids, _ = gene_ids(table, gene_key=given.gene_key)
    detected = [np.asarray((counts[view.rows] > 0).sum(axis=0)).ravel() for view in views]
    census.add(human_symbols(ids, one.slide.orthologs, by_ensembl), detected)


def _read(
    one: Opened,
    view: SectionView,
    spec: InputSpec,
    vocabulary: Vocabulary | None,
    features: Mapping[str, str],
    seed: int,
) -> StoredSection:
    given = one.slide.spec
    reader = read_section(
        one.table,
        view,
        spec,
        vocabulary or Vocabulary(()),
        graph=one.graph,
        windows=one.windows,
        image=given.image,
        genes=given.genes and vocabulary is not None,
        layer=given.layer,
        total_counts=given.total_counts,
        gene_key=given.gene_key,
        orthologs=one.slide.orthologs,
        features=features,
        random_state=seed,
    )
    donor = donor_of(one.table, view, one.slide)
    return StoredSection(view.library, reader, np.flatnonzero(reader.valid), donor=donor, study=given.study)


def _with_features(one: Opened, config: DataConfig) -> tuple[Opened, dict[str, str]]:
    """Add frozen features, given as arrays or computed by an encoder and cached, to a copy of the table."""
    found: dict[str, str] = {}
    arrays: dict[str, NDArray[np.float32]] = {}
    table, given = one.table, one.slide.spec
    for branch, where in given.features.items():
        found[branch] = where.removeprefix("obsm:")
        if not where.startswith("obsm:"):
            found[branch] = f"stalign_{branch}"
            arrays[found[branch]] = values = np.load(one.slide.root / where)
            if len(values) != table.n_obs:
                expected = f"Expected {table.n_obs} rows of features for {branch!r} in {where!r}"
                raise ValueError(message(expected, found=len(values)))
    for branch, encoder in config.encoders.items():
        if branch in found:
            continue
        level = branch.split("_")[0]
        found[branch] = f"X_{encoder}_{level}"
        if found[branch] not in table.obsm:
            arrays[found[branch]] = _encoded(one, encoder, level, found[branch])
    if arrays:
        slim = AnnData(X=table.X, obs=table.obs, var=table.var, layers=dict(table.layers))
        slim.obsm.update({key: table.obsm[key] for key in found.values() if key in table.obsm})
        slim.obsm.update(arrays)
        one = replace(one, table=slim)
    return one, found


def _encoded(one: Opened, encoder: str, level: str, key: str) -> NDArray[np.float32]:
    from stalign import tl

    given = one.slide.spec
    encoded = tl.encode(
        one.data,
        encoder,
        level=level,
        layer=given.layer,
        total_counts=given.total_counts,
        gene_key=given.gene_key,
        orthologs=one.slide.orthologs,
        mpp=given.mpp,
        library_key=given.library_key,
        table_key=given.table_key,
        image_key=given.image_key,
        key_added=key,
        copy=True,
    )
    return table_of(encoded, given.table_key).obsm[key]


def _unique(sections: list[StoredSection]) -> list[StoredSection]:
    """Number the sections whose names come more than once."""
    seen: dict[str, int] = {}
    out = []
    for section in sections:
        seen[section.name] = seen.get(section.name, 0) + 1
        count = seen[section.name]
        out.append(section if count == 1 else replace(section, name=f"{section.name} ({count})"))
    return out
