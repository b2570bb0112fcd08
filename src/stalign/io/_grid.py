"""A grid of spots as a table, and one between the spots of a measured section."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.core.tissue import VISIUM, make_grid
from stalign.data import open_sections, result_record
from stalign.data.table import is_spatialdata
from stalign.io._files import put_entry

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.core.tissue import Grid

_REACH = 0.71  # pitches from a spot up to which the tissue is taken as the spot's: half the diagonal of a square


def between_spots(data: AnnData | SpatialData, mpp: float | None, kind: str | float, name: str | None) -> AnnData:
    """Lay a grid over the spots of a section, on the section's image.

    Parameters
    ----------
    data
        One section.
    mpp
        µm per coordinate px; None for what the section states.
    kind
        As for `make_grid`.
    name
        Name of the result's section; None for that of `data`.

    Returns
    -------
    AnnData without genes. Coordinates are those of an AnnData, and px of the image for a SpatialData.

    Raises
    ------
    TypeError
        If it is no section.
    ValueError
        If there are several sections, or no image.
    """
    from scipy.spatial import cKDTree

    sections = open_sections(data, mpp=mpp)
    image = sections[0].image if len(sections) == 1 else None
    if image is None:
        found = f"{len(sections)} sections" if len(sections) != 1 else "a section without an image"
        raise ValueError(message("Expected one section with its image", found=found, hint="Take a subset of the table"))
    view = sections[0]
    points = view.coords_um[view.valid]
    if not np.isfinite(view.pitch_um):
        hint = "Spots on a hexagonal or square lattice have one"
        raise ValueError(message("Expected the pitch of the spots", found="unknown", hint=hint))
    low, high = points.min(axis=0) - view.pitch_um, points.max(axis=0) + view.pitch_um
    spots = make_grid(kind, *(high - low), origin=(float(low[0]), float(low[1])))
    kept = cKDTree(points).query(spots.coords)[0] <= _REACH * view.pitch_um
    coords, scale = spots.coords / view.coord_mpp, view.coord_mpp
    pixels = image.to_pixels(coords)
    kept &= (pixels >= 0).all(axis=1) & (pixels < np.array(image.shape[::-1])).all(axis=1)
    entry: dict[str, Any]
    if is_spatialdata(data):
        coords, scale = pixels, image.mpp
        source = image.source.transpose(1, 2, 0) if image.channels_first else image.source
        source = source if image.rgb is None else source[..., list(image.rgb)]
        entry = {"images": {"fullres": source}, "scalefactors": {"tissue_fullres_scalef": 1.0}, "metadata": {}}
    else:
        old = view.origin.entry
        entry = {part: dict(old.get(part, {})) for part in ("images", "scalefactors", "metadata")}
        entry["metadata"].pop("name", None)
    entry["scalefactors"].pop("bin_size_um", None)
    entry["metadata"] |= {"um_per_px": float(scale), "mpp_origin": view.mpp_origin}
    params = {"mpp": float(scale), "mpp_origin": view.mpp_origin, "tissue": "spots", "threshold": float("nan"),
              "min_tissue": 1.0}  # fmt: skip
    adata = assemble(spots, kept, np.ones(len(kept)), coords, float(scale), name or view.name, entry, params)
    logger.info("Laid %d spots over the %d spots of %r.", adata.n_obs, len(points), view.name)
    return adata


def assemble(
    spots: Grid,
    kept: NDArray[np.bool_],
    share: NDArray[np.float64],
    coords: NDArray[np.float64],
    mpp: float,
    name: str,
    entry: dict[str, dict[str, Any]],
    params: dict[str, Any],
) -> AnnData:
    """Make the table of a grid.

    Parameters
    ----------
    spots
        The grid.
    kept
        Which of its spots are kept, (n,) bool.
    share
        Share of each spot on tissue, (n,).
    coords
        Centres, (n, 2), x and y in coordinate px.
    mpp
        µm per coordinate px.
    name
        Name of the section.
    entry
        Its part of uns["spatial"]; scale factors are added.
    params
        Parameters to write down beside those of the grid.

    Returns
    -------
    AnnData without genes.
    """
    from anndata import AnnData

    names = [f"r{row}c{column}" for row, column in spots.array[kept]]
    obs = pd.DataFrame(
        {
            "array_row": spots.array[kept, 0].astype(np.int64),
            "array_col": spots.array[kept, 1].astype(np.int64),
            "tissue_fraction": share[kept].astype(np.float64),
        },
        index=pd.Index(names),
    )
    entry["scalefactors"]["spot_diameter_fullres"] = float(spots.spot_um / mpp)
    if spots.square:
        entry["scalefactors"]["bin_size_um"] = spots.pitch_um
    adata = AnnData(obs=obs, obsm={Keys.SPATIAL: np.asarray(coords[kept], dtype=np.float64)})
    put_entry(adata, name, entry)
    adata.uns[Keys.UNS] = {
        "slide": result_record(
            {
                "grid": "square" if spots.square else VISIUM,
                "pitch_um": spots.pitch_um,
                "spot_um": spots.spot_um,
                "version": version("stalign"),
                **params,
            },
            n_grid=len(kept),
        )
    }
    return adata
