"""Windows of the patches of spots and niches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign._constants import Keys
from stalign._settings import logger
from stalign._several import each
from stalign._validate import message, warn
from stalign.data import check_writable, merged, niche_of, niche_slots, open_sections, table_of, window_slots, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from spatialdata import SpatialData


@each
def patches(
    data: AnnData | SpatialData,
    *,
    spot_diameter: float | None = None,
    n_neighbors: int | None = None,
    spot_window: float | None = None,
    niche_window: float | None = None,
    mpp: float | Mapping[str, float] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Lay a window around each spot and around each niche.

    A spot's window is a square of one spot diameter, and a niche's window the bounding box of the windows of its spots
    and of the spot itself. Around bins and cells, which are smaller than the spots of Visium, the windows are squares
    of 55 and 200 µm, about as much as `stalign-mini` saw around a Visium spot and its niche. Windows are made in µm and
    then converted to px of the section's image. No pixels are copied: patches are cut when they are needed.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table and images, or a list of several.
    spot_diameter
        Diameter of a spot, or of a cell, in µm; by default that of the technology (55 for Visium, 100 for the older
        arrays, the bin size for Visium HD).
    n_neighbors
        Number of neighbours in a niche. None takes that of an earlier `pp.niches`, with its other parameters, or else
        3.
    spot_window, niche_window
        Side of a square window around each spot, and for each niche, in µm; by default as said above.
    mpp
        µm per px of the coordinates, one for all sections or one per section; by default as stated, or derived from
        the pitch of the spots.
    image_key
        Image to use, one for all sections or one per section; by default the one of highest resolution.
    library_key
        Column of obs that tells the sections of an AnnData apart.
    table_key
        Name of the table in a SpatialData.
    copy
        Whether to return a changed copy and leave `data` as it is.

    Returns
    -------
    None, or the changed copy, or a list of copies.

    Reads
    -----
    - `obsm["spatial"]`, (n_obs, 2) float: x and y of the spots in px; of a SpatialData, the element's coordinates
    - `uns["spatial"]`: scale factors, metadata and the sizes of images; of a SpatialData, the image elements
    - `uns["niches"]["params"]`: what makes a niche, where it is there

    Writes
    ------
    - `obsm["spot_window"]`, (n_obs, 4) float32: x0, y0, x1, y1 in px of the section's image; NaN for spots without
      coordinates or image
    - `obsm["niche_window"]`, (n_obs, 4) float32: likewise
    - `obs["stalign_valid"]`, (n_obs,) bool: whether a spot has windows
    - `uns["stalign"]["patches"]`: params, what makes a niche; sections, a DataFrame with a row per section: section,
      image_key, mpp (µm per image px), mpp_origin, coord_mpp (µm per coordinate px), scale (image px per coordinate
      px), spot_diameter_um, spot_window_um and niche_window_um (edge in µm, the median where it varies), and whether
      `mpp`, `spot_diameter`, `spot_window` and `niche_window` were given, which then hold for later calls
    - `obsp["niche_connectivities"]` and `uns["niches"]`, as `pp.niches` does

    Raises
    ------
    TypeError
        If `data` is neither AnnData nor SpatialData, or `n_neighbors` is not a whole number.
    KeyError
        If coordinates, image, table or column are not there, or several sections are not told apart.
    ValueError
        If no section has an image or several can be it, scale or spot diameter are unknown, spots lie outside the
        image, a number is out of range, or uns["stalign"] or uns["niches"] hold something else.

    Warns
    -----
    UserWarning
        If spots have no window, or the only image seems to be no H&E image.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.pp.patches(adata)
    >>> adata.obsm["niche_window"].shape == (adata.n_obs, 4)
    True
    """
    table = table_of(data, table_key)
    check_writable(table, Keys.UNS, Keys.UNS_NICHES)
    niche = niche_of(table, n_neighbors)
    sections = open_sections(
        data,
        table_key=table_key,
        library_key=library_key,
        image_key=image_key,
        mpp=mpp,
        spot_diameter=spot_diameter,
        spot_window=spot_window,
        niche_window=niche_window,
        as_noted=False,
    )
    if all(section.image is None for section in sections):
        hint = "Put it in `uns['spatial']`, or in the images of a SpatialData; `tl.embed` works from genes alone, too"
        raise ValueError(message("Expected an image to cut patches from", found="none in any section", hint=hint))
    slots = merged(niche_slots(sections, niche, library_key), window_slots(sections, niche))
    missing = int((~slots["obs"][Keys.VALID]).sum())
    if missing:
        without = sum(len(section) for section in sections if section.image is None)
        warn(
            f"{missing} of {table.n_obs} spots have no window ({missing - without} without usable coordinates, "
            f"{without} in sections without an image); their rows are NaN and obs[{Keys.VALID!r}] is False."
        )
    changed = write(data, slots, copy=copy, table_key=table_key)
    logger.info(
        "Windows of %d spots and niches in %d section(s): added obsm[%r] and obsm[%r].",
        table.n_obs - missing,
        len(sections),
        Keys.SPOT_WINDOW,
        Keys.NICHE_WINDOW,
    )
    return changed
