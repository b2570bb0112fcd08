"""Slides on disk or in memory: opened, made ready, and left out with a reason."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._validate import message
from stalign.data import CountKeys, open_sections, read_orthologs
from stalign.train.config import SectionSpec, resolve

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

    from stalign.data import Section


@dataclass(frozen=True)
class Slide:
    """One table and how it is read.

    Parameters
    ----------
    spec
        How it is read.
    data
        AnnData or SpatialData that is in memory already; None to read `spec.path`.
    root
        Folder that relative paths start from.
    orthologs
        Human symbol of each gene of another species.
    """

    spec: SectionSpec
    data: Any = None
    root: Path = field(default_factory=Path)
    orthologs: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        """What messages and manifests call the slide."""
        return f"{self.spec.path}/{self.spec.slide}" if self.spec.slide else self.spec.path

    @property
    def path(self) -> Path:
        """Where the slide lies."""
        return resolve(self.root, self.spec.path)


def as_slides(
    given: Iterable[Any], *, root: str | Path = ".", features: Mapping[str, str] | None = None
) -> list[Slide]:
    """Make slides of tables, paths and specifications.

    Parameters
    ----------
    given
        AnnData, SpatialData, paths, `SectionSpec`, pairs of a table and its `SectionSpec`, or slides; or one path,
        `SectionSpec` or slide alone.
    root
        Folder that relative paths start from.
    features
        Features of those that do not name their own; see `DataConfig`.

    Returns
    -------
    The slides.

    Raises
    ------
    FileNotFoundError
        If an ortholog table does not exist.
    """
    slides: list[Slide] = []
    tables: dict[tuple[str, tuple[str, ...]], Mapping[str, str]] = {}
    for index, item in enumerate([given] if isinstance(given, (str, Path, SectionSpec, Slide)) else given):
        if isinstance(item, Slide):
            slides.append(item)
            continue
        if isinstance(item, (str, Path)):
            data, spec = None, SectionSpec(str(item))
        elif isinstance(item, SectionSpec):
            data, spec = None, item
        else:
            data, spec = item if isinstance(item, tuple) else (item, SectionSpec(f"table {index}"))
        key = (spec.orthologs or "", spec.ortholog_columns)
        if spec.orthologs and key not in tables:
            tables[key] = read_orthologs(resolve(root, spec.orthologs), spec.ortholog_columns)
        name = spec.slide or Path(spec.path).stem
        more = {branch: where.replace("{slide}", name) for branch, where in (features or {}).items()}
        spec = replace(spec, features={**more, **spec.features})
        slides.append(Slide(spec, data=data, root=Path(root), orthologs=tables.get(key)))
    return slides


def read_slide(slide: Slide) -> Any:
    """Read a slide.

    Parameters
    ----------
    slide
        The slide.

    Returns
    -------
    AnnData or SpatialData.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If the kind of file cannot be told.
    """
    if slide.data is not None:
        return slide.data
    if not slide.path.exists():
        raise FileNotFoundError(message(f"Expected a slide at {str(slide.path)!r}", found="nothing"))
    kind = slide.spec.format if slide.spec.format != "auto" else _kind(slide)
    if kind == "spatialdata":
        from spatialdata import read_zarr

        return read_zarr(slide.path)
    from stalign import io

    if kind == "h5ad":
        return io.read_h5ad(slide.path, image=slide.spec.image)
    if kind == "visium":
        return io.read_visium(slide.path)
    if slide.spec.slide is None:
        raise ValueError(message(f"Expected the `slide` to read from {str(slide.path)!r}", found="none"))
    if kind == "stimage":
        return io.read_stimage(slide.path, slide.spec.slide, mpp=slide.spec.mpp, image=slide.spec.image)
    return io.read_hest(slide.path, slide.spec.slide)


def _kind(slide: Slide) -> str:
    path = slide.path
    if path.suffix == ".h5ad":
        return "h5ad"
    if path.suffix == ".zarr":
        return "spatialdata"
    if path.is_dir() and (path / "spatial").is_dir():
        return "visium"
    raise ValueError(
        message(
            f"Expected {str(path)!r} to be an h5ad file, a zarr store or a Space Ranger folder",
            hint="Name its `format`",
        )
    )


@dataclass(frozen=True)
class Opened:
    """A slide that has been read.

    Parameters
    ----------
    slide
        How it is read.
    data
        AnnData or SpatialData.
    sections
        Its sections.
    """

    slide: Slide
    data: Any
    sections: list[Section]

    @cached_property
    def keys(self) -> CountKeys:
        """Where its counts are."""
        given = self.slide.spec
        return CountKeys(given.layer, given.total_counts, given.gene_key, self.slide.orthologs)

    @property
    def table(self) -> AnnData:
        """Its table."""
        return self.sections[0].table


def open_slide(slide: Slide) -> Opened:
    """Read a slide and open its sections. A table that is in memory already is not changed.

    Parameters
    ----------
    slide
        The slide.

    Returns
    -------
    The opened slide.

    Raises
    ------
    OSError, ValueError, KeyError, TypeError
        If it cannot be read.
    """
    data, given = read_slide(slide), slide.spec
    sections = open_sections(
        data,
        table_key=given.table_key,
        library_key=given.library_key,
        image=given.image,
        image_key=given.image_key,
        mpp=given.mpp,
    )
    for section in sections:
        _ = section.coords  # what is wrong with scale, positions or image is said now
    return Opened(slide, data, sections)


def donor_of(section: Section, slide: Slide) -> str | None:
    """Name the donor of a section.

    Parameters
    ----------
    section
        The section.
    slide
        Its slide.

    Returns
    -------
    The donor, or None where nothing says who it is.

    Raises
    ------
    KeyError
        If `donor_key` is no column of obs.
    ValueError
        If the section's spots come from several donors.
    """
    key = slide.spec.donor_key
    if key is None:
        return slide.spec.donor
    obs = section.table.obs
    if key not in obs:
        raise KeyError(message("Expected `donor_key` to name an obs column", found=repr(key), available=obs))
    donors = list(dict.fromkeys(str(value) for value in obs[key].iloc[section.rows]))
    if len(donors) != 1:
        raise ValueError(message(f"Expected one donor in section {section.name!r}", found=", ".join(donors)))
    return donors[0]
