"""Windows of the patches of spots and niches."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import N_NEIGHBORS, Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.core.niches import members
from stalign.core.patches import niche_windows_um, spot_windows_um
from stalign.data.sections import sections
from stalign.data.slots import write
from stalign.data.table import table_of
from stalign.pp._niches import check_n_neighbors, niche_slots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

    from stalign.data.sections import SectionView


def patches(
    data: AnnData | SpatialData,
    *,
    spot_diameter: float | None = None,
    n_neighbors: int | None = None,
    mpp: float | Mapping[str, float] | None = None,
    image_key: str | Mapping[str, str] | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Lay a window around each spot and around each niche.

    A spot's window is a square of one spot diameter, and a niche's window the bounding box of the windows of its spots
    and of the spot itself. Windows are made in µm and then converted to px of the section's image. No pixels are
    copied: patches are cut when they are needed.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table and images.
    spot_diameter
        Diameter of a spot in µm; by default that of the technology (55 for Visium, 100 for the older arrays, the bin
        size for Visium HD).
    n_neighbors
        Number of neighbours in a niche. None takes the niches that are there, or those of 3 neighbours where there
        are none; another number than theirs replaces them.
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
    None, or the changed copy.

    Reads
    -----
    - `obsm["spatial"]`, (n_obs, 2) float: x and y of the spots in px; of a SpatialData, the element's coordinates
    - `uns["spatial"]`: scale factors, metadata and the sizes of images; of a SpatialData, the image elements
    - `obsp["niche_connectivities"]`, (n_obs, n_obs) CSR, where it is there

    Writes
    ------
    - `obsm["spot_window"]`, (n_obs, 4) float32: x0, y0, x1, y1 in px of the section's image; NaN for spots without
      coordinates or image
    - `obsm["niche_window"]`, (n_obs, 4) float32: likewise
    - `obs["stalign_valid"]`, (n_obs,) bool: whether a spot has windows
    - `uns["stalign"]["patches"]`: for each section the image's name and µm per px, where that figure comes from, µm per
      coordinate px, image px per coordinate px, and the spot diameter in µm; the number of neighbours
    - `obsp["niche_connectivities"]` and `uns["niches"]` where niches are made, as `pp.niches` does

    Raises
    ------
    TypeError
        If `data` is neither AnnData nor SpatialData, or `n_neighbors` is not a whole number.
    KeyError
        If coordinates, image, table or column are not there, or several sections are not told apart.
    ValueError
        If no section has an image, scale or spot diameter are unknown, spots lie outside the image, niches cross
        sections, or a number is out of range.

    Warns
    -----
    UserWarning
        If spots have no window.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.pp.patches(adata)
    >>> adata.obsm["niche_window"].shape == (adata.n_obs, 4)
    True
    """
    if n_neighbors is not None:
        n_neighbors = check_n_neighbors(n_neighbors)
    table = table_of(data, table_key)
    views = sections(
        data, table_key=table_key, image_key=image_key, library_key=library_key, mpp=mpp, spot_diameter=spot_diameter
    )
    if all(view.image is None for view in views):
        hint = "Put it in `uns['spatial']`, or in the images of a SpatialData; `tl.embed` works from genes alone, too"
        raise ValueError(message("Expected an image to cut patches from", found="none in any section", hint=hint))
    slots: dict[str, dict[str, Any]] = {}
    graph = table.obsp.get(Keys.NICHE_GRAPH)
    params = table.uns.get(Keys.UNS_NICHES, {}).get("params", {})
    if graph is None or n_neighbors not in {None, params.get("n_neighbors")}:
        include_self = bool(params.get("include_self", True))
        graph = niche_slots(
            table,
            views,
            n_neighbors or N_NEIGHBORS,
            include_self=include_self,
            library_key=library_key,
            into=slots,
        )
    spot, _ = window_slots(table, views, graph, into=slots)
    missing = int(np.isnan(spot).any(axis=1).sum())
    if missing:
        without = sum(len(view.rows) for view in views if view.image is None)
        text = (
            f"{missing} of {table.n_obs} spots have no window ({missing - without} without usable coordinates, "
            f"{without} in sections without an image); their rows are NaN and obs[{Keys.VALID!r}] is False."
        )
        warnings.warn(text, UserWarning, stacklevel=2)
    changed = write(data, slots, copy=copy, table_key=table_key)
    logger.info(
        "Windows of %d spots and niches in %d section(s): added obsm[%r] and obsm[%r].",
        table.n_obs - missing,
        len(views),
        Keys.SPOT_WINDOW,
        Keys.NICHE_WINDOW,
    )
    return changed


def window_slots(
    table: AnnData, views: Sequence[SectionView], graph: csr_matrix, *, into: dict[str, dict[str, Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Make windows and put them, with their record, where `data.slots.write` takes them from.

    Parameters
    ----------
    table
        The table; it is not changed.
    views
        Its sections; those without an image get windows of NaN.
    graph
        Niche graph, (n_obs, n_obs) CSR.
    into
        Values by slot and key; `obs`, `obsm` and `uns` are added to.

    Returns
    -------
    Windows of spots and of niches, each (n_obs, 4) float32, x0 y0 x1 y1 in px of the section's image.

    Raises
    ------
    ValueError
        If the graph crosses sections or is of another size, or scale or spot diameter of a section are unknown.
    """
    if graph.shape != (table.n_obs, table.n_obs):
        expected = f"Expected obsp[{Keys.NICHE_GRAPH!r}] of shape {(table.n_obs, table.n_obs)}"
        raise ValueError(message(expected, found=graph.shape, hint="Call `pp.niches` again"))
    niche = members(graph)
    _check_within(niche, views)
    spot_window = np.full((table.n_obs, 4), np.nan, dtype=np.float32)
    niche_window = spot_window.copy()
    record: dict[str, dict[str, Any]] = {}
    made = into.get("uns", {}).get(Keys.UNS_NICHES) or table.uns.get(Keys.UNS_NICHES, {})
    n_neighbors = {key: int(value) for key, value in made.get("params", {}).items() if key == "n_neighbors"}
    position = np.full(table.n_obs + 1, -1, dtype=np.intp)  # in the section; the last is for -1
    for view in views:
        if view.image is None:
            continue
        spots_um = spot_windows_um(view.coords_um, _diameter(view))
        position[view.rows] = np.arange(len(view.rows))
        niches_um = niche_windows_um(spots_um, position[niche[view.rows]])
        for windows, um in ((spot_window, spots_um), (niche_window, niches_um)):
            corners = um.reshape(-1, 2) / view.coord_mpp
            windows[view.rows] = view.image.to_pixels(corners).reshape(-1, 4)
        record[view.library] = {
            "image_key": view.image.key,
            "mpp": float(view.image.mpp),
            "mpp_origin": view.mpp_origin,
            "coord_mpp": float(view.coord_mpp),
            "scale": float(view.image.scale),
            "spot_diameter_um": float(view.spot_diameter_um),
            **n_neighbors,
        }
    into.setdefault("obsm", {}).update({Keys.SPOT_WINDOW: spot_window, Keys.NICHE_WINDOW: niche_window})
    into.setdefault("obs", {})[Keys.VALID] = np.isfinite(spot_window).all(axis=1)
    into.setdefault("uns", {}).setdefault(Keys.UNS, {})["patches"] = {"sections": record}
    return spot_window, niche_window


def _check_within(niche: NDArray[np.intp], views: Sequence[SectionView]) -> None:
    section = np.full(len(niche) + 1, -1, dtype=np.intp)
    for index, view in enumerate(views):
        section[view.rows] = index
    crossing = int(((niche >= 0) & (section[niche] != section[:-1, None])).any(axis=1).sum())
    if crossing:
        raise ValueError(
            message(
                f"Expected the niches in obsp[{Keys.NICHE_GRAPH!r}] to lie within sections",
                found=f"{crossing} that cross them",
                hint="Call `pp.niches` again with the same `library_key`",
            )
        )


def _diameter(view: SectionView) -> float:
    if not np.isfinite(view.spot_diameter_um):
        hint = "Pass `spot_diameter=`, in µm"
        expected = f"Expected section {view.library!r} to have a known spot diameter"
        raise ValueError(message(expected, found=f"technology {view.technology}", hint=hint))
    return view.spot_diameter_um
