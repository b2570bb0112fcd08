"""Sections of a container: spots, coordinates, physical scale and image of each library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message
from stalign.data import elements, levels
from stalign.data import library as libraries
from stalign.data.bounds import inside, warn_of_overlap
from stalign.data.scale import resolve
from stalign.data.table import is_spatialdata, library_column, table_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data.images import SectionImage


@dataclass(frozen=True)
class SectionView:
    """One library of a container.

    Parameters
    ----------
    library
        Name of the library.
    rows
        Positions of its spots in the table, (n,) intp.
    coords
        Positions of its spots, (n, 2) float64, x and y in coordinate px; NaN rows are invalid spots.
    coord_mpp
        µm per coordinate px; NaN where unknown.
    mpp_origin
        Where `coord_mpp` comes from, in words.
    pitch_um
        Distance between the centres of neighbouring spots in µm; NaN where unknown.
    spot_diameter_um
        Diameter of a spot, or edge of a bin, in µm; NaN where unknown.
    technology
        `visium`, `st` (the older Spatial Transcriptomics arrays), `hd` or `unknown`.
    image
        The image, or None.
    """

    library: str
    rows: NDArray[np.intp]
    coords: NDArray[np.float64]
    coord_mpp: float
    mpp_origin: str
    pitch_um: float
    spot_diameter_um: float
    technology: str
    image: SectionImage | None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether a spot has a position, (n,)."""
        return np.asarray(np.isfinite(self.coords).all(axis=1))

    @property
    def coords_um(self) -> NDArray[np.float64]:
        """Positions (n, 2) in µm.

        Raises
        ------
        ValueError
            If the scale is unknown.
        """
        if not np.isfinite(self.coord_mpp):
            raise ValueError(
                message(
                    f"Expected section {self.library!r} to have a physical scale",
                    found="spots that lie on no hexagonal or square lattice, and no stated scale",
                    hint="Pass `mpp=`, the µm per coordinate px, and `library_key=` if there are several sections",
                )
            )
        return self.coords * self.coord_mpp


def sections(
    data: AnnData | SpatialData,
    *,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    library_key: str | None = None,
    coordinate_system: str | None = None,
    mpp: float | Mapping[str, float] | None = None,
    spot_diameter: float | None = None,
    image: bool = True,
    want_mpp: float | None = None,
) -> list[SectionView]:
    """Resolve the sections of a container.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table_key
        Name of the table in a SpatialData.
    image_key
        Image to use, one for all libraries or one per library. By default a full-resolution image, else hires, else
        lowres.
    library_key
        Column of obs with a library per spot. Needed for an AnnData of several sections; the regions of a SpatialData's
        table are its sections by themselves.
    coordinate_system
        Coordinate system of a SpatialData that spots and image share; chosen by itself where None.
    mpp
        µm per coordinate px, one for all libraries or one per library; overrides what is stated or derived.
    spot_diameter
        Diameter of a spot in µm; overrides that of the technology.
    image
        Whether to look for images.
    want_mpp
        µm per px that will be needed: of a multi-scale image the coarsest level that is at least as fine is taken.

    Returns
    -------
    One view per library.

    Raises
    ------
    KeyError
        If coordinates, library column, image or coordinate system are not there.
    ValueError
        If no spot has coordinates, spots lie outside the image, or an image's transformation is more than scale and
        translation.
    TypeError
        If `data` is neither AnnData nor SpatialData.

    Warns
    -----
    UserWarning
        If a section looks like several on top of each other, a stated scale does not fit the pitch, the coordinates do
        not fit the spot diameter, or a few spots lie outside the image; these become invalid.

    Examples
    --------
    >>> import stalign
    >>> from stalign.data import sections
    >>> view = sections(stalign.datasets.toy(n_rows=8))[0]
    >>> view.library, view.technology, round(view.coord_mpp, 2), view.image.key
    ('toy', 'visium', 0.5, 'hires')
    """
    table = table_of(data, table_key)
    parts = groups(data, table_key=table_key, library_key=library_key)
    views = []
    for library, rows in parts:
        key = image_key.get(library) if isinstance(image_key, Mapping) else image_key
        given = mpp.get(library) if isinstance(mpp, Mapping) else mpp
        entry = libraries.entry_of(table, library, alone=len(parts) == 1, warn=image)
        stated = libraries.stated(table, rows, entry)
        if is_spatialdata(data):
            place = elements.place(data, table, rows, library, coordinate_system, image_key=key)
            coords, stated = place.coords, elements.restate(stated, place)
        else:
            coords = libraries.coordinates(table, rows)
        if len(coords) and not np.isfinite(coords).all(axis=1).any():
            raise ValueError(
                message(f"Expected coordinates for section {library!r}", found=f"NaN for all of its {len(rows)} spots")
            )
        warn_of_overlap(coords, stated.array, library)
        scale = resolve(coords, stated, library=library, mpp=given, spot_diameter=spot_diameter)
        picture = None
        if image and is_spatialdata(data):
            if place.image_key is not None:
                picture = levels.image(data, place.image_key, place.system, mpp=scale.mpp, want_mpp=want_mpp)
        elif image:
            picture = libraries.image(entry, library, key, mpp=scale.mpp, want_mpp=want_mpp)
        if picture is not None:
            coords = inside(coords, picture, library, libraries.factors_of(entry))
        views.append(
            SectionView(
                library, rows, coords, scale.mpp, scale.origin, scale.pitch_um, scale.spot_um, scale.technology, picture
            )
        )
    return views


def groups(
    data: AnnData | SpatialData, *, table_key: str | None = None, library_key: str | None = None
) -> list[tuple[str, NDArray[np.intp]]]:
    """Split a table into its libraries.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table_key
        Name of the table in a SpatialData.
    library_key
        Column of obs with a library per spot.

    Returns
    -------
    Name and rows (n,) intp of each library.

    Raises
    ------
    KeyError
        If the column is missing, or there are several libraries and no column is named.
    ValueError
        If a spot has no library.
    """
    table = table_of(data, table_key)
    if library_key is None and is_spatialdata(data):
        return elements.regions(table)
    names, codes = library_column(table, library_key)
    if library_key is None:
        names = [libraries.only_library(table)]
    return [(name, np.flatnonzero(codes == index)) for index, name in enumerate(names)]


def library_names(
    data: AnnData | SpatialData, *, table_key: str | None = None, library_key: str | None = None
) -> list[str]:
    """List the libraries of a table.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table_key
        Name of the table in a SpatialData.
    library_key
        Column of obs with a library per spot.

    Returns
    -------
    The names: in the order of the categories for a categorical column, sorted otherwise.
    """
    return [library for library, _ in groups(data, table_key=table_key, library_key=library_key)]
