"""From an opened slide to what a run needs of it: a survey of its sections, then a reader for each."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message
from stalign.data import Vocabulary, gene_ids, has_counts, read_counts, table_of, write
from stalign.data.spots import niche_for, read_section
from stalign.train.config import resolve
from stalign.train.patterns import left_out, names_of, takes, warn_unfit
from stalign.train.slides import donor_of
from stalign.train.vocabulary import human_symbols

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data.spots import SpotReader
    from stalign.models.config import InputSpec
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


def read(
    one: Opened,
    section: str,
    spec: InputSpec,
    vocabulary: Vocabulary | None,
    features: Mapping[str, NDArray[np.floating]],
    seed: int,
) -> SpotReader:
    """Make a section ready for the network.

    Parameters
    ----------
    one
        Its slide.
    section
        Its name.
    spec
        What the network reads.
    vocabulary
        The genes of the run; None where no section has counts.
    features
        Frozen features of each branch that takes some, (n_obs, d) each.
    seed
        Seed of the subsample that the gene basis is fitted to.

    Returns
    -------
    The reader.
    """
    given = one.slide.spec
    found = next(found for found in one.sections if found.name == section)
    return read_section(
        found,
        spec,
        vocabulary or Vocabulary(()),
        keys=one.keys,
        image=given.image,
        genes=given.genes and vocabulary is not None,
        features={branch: values[found.rows] for branch, values in features.items()},
        random_state=seed,
    )


def features_of(one: Opened, config: DataConfig, spec: InputSpec) -> dict[str, NDArray[np.float32]]:
    """Get frozen features: given as arrays, in the table, or computed by an encoder and cached.

    Parameters
    ----------
    one
        The slide.
    config
        Which encoders compute features.
    spec
        What the network reads.

    Returns
    -------
    Features (n_obs, d) float32 by branch.

    Raises
    ------
    KeyError
        If the table does not hold features that are named.
    ValueError
        If an array does not have a row for each spot.
    """
    found: dict[str, NDArray[np.float32]] = {}
    table, given = one.table, one.slide.spec
    for branch, where in given.features.items():
        key = where.removeprefix("obsm:")
        if where == key:
            values = np.load(resolve(one.slide.root, where))
            if len(values) != table.n_obs:
                expected = f"Expected {table.n_obs} rows of features for {branch!r} in {where!r}"
                raise ValueError(message(expected, found=len(values)))
        elif key in table.obsm:
            values = table.obsm[key]
        else:
            expected = f"Expected features of {branch} in obsm"
            raise KeyError(message(expected, found=repr(key), available=table.obsm.keys()))
        found[branch] = np.asarray(values, np.float32)
    for branch, encoder in config.encoders.items():
        level = branch.split("_")[0]
        key = f"X_{encoder}_{level}"
        if branch in found:
            continue
        if key in table.obsm:
            found[branch] = np.asarray(table.obsm[key], np.float32)
        else:
            found[branch] = _encoded(one, encoder, weights_of(config, encoder), level, spec)
    return found


def weights_of(config: DataConfig, encoder: str) -> str | None:
    """Find the weights of an encoder that a run names.

    Parameters
    ----------
    config
        Where they are; a relative path starts from `root`.
    encoder
        Name of the encoder.

    Returns
    -------
    A path, `random`, or None for the published ones.
    """
    weights = config.encoder_weights.get(encoder)
    return weights if weights in (None, "random") else str(resolve(config.root, weights))


def _encoded(one: Opened, encoder: str, weights: str | None, level: str, spec: InputSpec) -> NDArray[np.float32]:
    """Features of a slide by an encoder, of the niches of the run."""
    from stalign import tl

    given, key = one.slide.spec, "stalign_features"
    noted = {"uns": {Keys.UNS_NICHES: {"params": asdict(niche_for(spec))}}}
    own: Any = write(one.data, noted, copy=True, table_key=given.table_key)
    tl.encode(
        own,
        encoder,
        level=level,
        weights=weights,
        layer=given.layer,
        total_counts=given.total_counts,
        gene_key=given.gene_key,
        orthologs=one.slide.orthologs,
        mpp=given.mpp,
        library_key=given.library_key,
        table_key=given.table_key,
        image_key=given.image_key,
        key_added=key,
    )
    return np.asarray(table_of(own, given.table_key).obsm[key], np.float32)
