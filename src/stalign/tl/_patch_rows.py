"""Patches of the spots of a table, cut when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message
from stalign.data import open_sections

if TYPE_CHECKING:
    from os import PathLike

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data import Section


@dataclass(frozen=True)
class PatchRows:
    """The patches of some spots.

    Parameters
    ----------
    sections
        All sections of the table.
    section
        The section of each spot of the table, or -1 where it has no patch.
    windows
        The window of each spot of the table in its image, (n_obs, 4).
    px
        Side of a patch.
    rows
        The spots.
    """

    sections: list[Section]
    section: NDArray[np.intp]
    windows: NDArray[np.float64]
    px: int
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Cut the patches of some of these spots, (b, 3, px, px) uint8."""
        rows = self.rows[some]
        out = np.empty((len(rows), 3, self.px, self.px), dtype=np.uint8)
        for number in np.unique(self.section[rows]):
            own = self.section[rows] == number
            image = self.sections[number].image
            out[own] = image.patches(self.windows[rows[own]], self.px).transpose(0, 3, 1, 2)
        return out

    def of(self, rows: NDArray[np.intp]) -> PatchRows:
        """Return those of other spots of the table."""
        return replace(self, rows=rows)


def patch_rows(
    data: AnnData | SpatialData,
    weights: str | PathLike[str],
    *,
    library_key: str | None = None,
    table_key: str | None = None,
) -> PatchRows:
    """Lay the windows that weights of HiBio-ST were trained on around all spots.

    Parameters
    ----------
    data
        One or more sections with images.
    weights
        Name or folder.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    The patches of all spots of the table that have one.

    Raises
    ------
    ValueError
        If the weights are of another network, or no section has an image.
    """
    from stalign.models.weights import load_weights, of_kind

    spec = of_kind(load_weights(weights), "hibio").config.input
    sections = open_sections(data, library_key=library_key, table_key=table_key, image=True, want_mpp=spec.um / spec.px)
    n = sections[0].table.n_obs
    where, windows = np.full(n, -1, dtype=np.intp), np.full((n, 4), np.nan)
    for number, section in enumerate(sections):
        if section.image is not None:
            windows[section.rows] = section.windows("spot", width_um=spec.um)
            where[section.rows] = number
    where[~np.isfinite(windows).all(axis=1)] = -1
    if (where < 0).all():
        hint = "Put it in `uns['spatial']`, or leave out `tower`, to use features"
        raise ValueError(message("Expected an image to train a tower on", found="none", hint=hint))
    return PatchRows(sections, where, windows, spec.px, np.flatnonzero(where >= 0))
