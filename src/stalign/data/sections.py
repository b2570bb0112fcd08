"""The only way from a container to its sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import VISIUM_SPOT_UM
from stalign._validate import message, warn
from stalign.data.library import Library, only_library
from stalign.data.regions import Region, region_rows
from stalign.data.section import Given, Section
from stalign.data.table import is_spatialdata, library_column, table_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def open_sections(
    data: AnnData | SpatialData,
    *,
    table_key: str | None = None,
    library_key: str | None = None,
    image: bool = True,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_diameter: float | None = None,
    spot_window: float | None = None,
    niche_window: float | None = None,
    want_mpp: float | Callable[[Section], float | None] | None = None,
    as_noted: bool = True,
) -> list[Section]:
    """Open the sections of a container.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table_key
        Name of the table in a SpatialData.
    library_key
        Column of obs with the section of each spot. Needed for an AnnData of several sections; the regions of a
        SpatialData's table are its sections by themselves.
    image
        Whether images are asked for. If not, none is opened, chosen or complained about.
    image_key
        Image to use, one for all sections or one per section. By default the H&E image of the section at the highest
        resolution.
    mpp
        µm per coordinate px, one for all sections or one per section; overrides what is stated or derived.
    spot_diameter
        Diameter of a spot in µm; overrides that of the technology.
    spot_window, niche_window
        Side of the windows of spots and of niches in µm; overrides the size that the network was trained on.
    want_mpp
        µm per image px that will be needed, or how to tell it from the section: of an image with smaller copies of
        itself, the coarsest that is at least as fine is taken.
    as_noted
        Whether what an earlier `pp.patches` was given of `mpp`, `spot_diameter`, `spot_window` and `niche_window`
        holds where these are None.

    Returns
    -------
    The sections: in the order of the categories of a categorical column, sorted by name otherwise.

    Raises
    ------
    KeyError
        If table or column are not there, or there are several sections and no column is named.
    ValueError
        If a spot has no section, or the table is not in memory.
    TypeError
        If `data` is neither AnnData nor SpatialData.

    Notes
    -----
    Positions, scale, image, niches, windows and counts of a section are read when they are first asked for, and raise
    their errors then.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import open_sections
    >>> section = open_sections(stalign.datasets.toy(n_rows=8))[0]
    >>> section.name, section.technology, round(section.coord_mpp, 2), section.image.key
    ('toy', 'visium', 0.5, 'hires')
    """
    table = table_of(data, table_key)
    if is_spatialdata(data):
        parts = region_rows(table, library_key)
    else:
        names, codes = library_column(table, library_key)
        names = [only_library(table)] if library_key is None else names
        parts = [(name, np.flatnonzero(codes == index)) for index, name in enumerate(names)]
    known = [name for name, _ in parts]
    _check_names(image_key, known, "image_key")
    _check_names(mpp, known, "mpp")
    alone, read = len(parts) == 1, dict[Any, Any]()
    sections = []
    for name, rows in parts:
        place = (Region(data, table, rows, name, alone=alone) if is_spatialdata(data)
                 else Library(table, rows, name, alone=alone))  # fmt: skip
        given = Given(
            image, _of(image_key, name), _of(mpp, name), spot_diameter, want_mpp, as_noted, spot_window, niche_window
        )
        sections.append(Section(table, rows, name, place, given, read))
    return sections


def warn_small_spots(sections: Sequence[Section], weights: str) -> None:
    """Warn where spots are smaller than those that weights were trained on: all packaged ones, on 55 µm and more.

    Parameters
    ----------
    sections
        The sections to embed.
    weights
        Name of the weights.

    Warns
    -----
    UserWarning
        If there are bins or cells of a known size below that.
    """
    small = [section for section in sections if section.smaller_than(VISIUM_SPOT_UM)]
    small = [section for section in small if np.isfinite(section.spot_diameter_um)]
    if small:
        expected = f"Expected spots of {VISIUM_SPOT_UM:g} µm or more, as the weights {weights!r} were trained on"
        found = f"{small[0].spot_diameter_um:.3g} µm in {small[0].name!r}"
        found += f" and such in {len(small) - 1} more" if len(small) > 1 else ""
        hint = "Compare with a baseline, such as PCA, before relying on embeddings; `pp.rebin` makes larger bins"
        warn(message(expected, found=found, hint=hint))


def _of(value: Any, name: str) -> Any:
    """The value for a section, of one for all or a mapping."""
    return value.get(name) if isinstance(value, Mapping) else value


def _check_names(value: object, known: Iterable[str], what: str) -> None:
    """See that a mapping names sections that are there."""
    unknown = [name for name in value if name not in set(known)] if isinstance(value, Mapping) else []
    if unknown:
        raise KeyError(message(f"Expected `{what}` to name sections", found=repr(unknown[0]), available=known))
