"""Niches of the spots of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stalign._constants import N_NEIGHBORS, Keys
from stalign._settings import logger
from stalign._several import each
from stalign._validate import warn
from stalign.core.niches import Niche
from stalign.data import check_writable, niche_slots, open_sections, table_of, write

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@each
def niches(
    data: AnnData | SpatialData,
    n_neighbors: int = N_NEIGHBORS,
    *,
    include_self: bool = True,
    ties: str = "position",
    library_key: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Find the niche of each spot: the spot and its nearest neighbours.

    Neighbours are nearest by Euclidean distance, in the same section. The order of the spots makes no difference. The
    niche graph holds the weights of the mean over each niche, so that `graph @ counts` are the niches' mean counts.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table, or a list of several.
    n_neighbors
        Number of neighbours. A section with fewer spots uses all of them, and a lone spot is its own niche.
    include_self
        Whether the spot itself counts in the mean over its niche.
    ties
        Which of equally near spots are neighbours: `position` takes those that come first from top to bottom and from
        left to right, so that every niche has `n_neighbors`; `all` takes every spot as near as the last neighbour
        (within 5 %), so that niches on a grid are symmetric, and have six neighbours on a hexagonal one.
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

    Writes
    ------
    - `obsp["niche_connectivities"]`, (n_obs, n_obs) CSR float32: weights of the mean over each niche; rows sum to 1,
      and rows of spots without coordinates are empty
    - `uns["niches"]`: the name of the graph and the parameters

    Raises
    ------
    TypeError
        If `data` is neither AnnData nor SpatialData, or `n_neighbors` is not a whole number.
    KeyError
        If coordinates, table or column are not there, or several sections are not told apart.
    ValueError
        If `n_neighbors` is below 1, `ties` is unknown, the table is not in memory, a section has no coordinates at all,
        or uns["niches"] holds something else.

    Warns
    -----
    UserWarning
        If spots have no coordinates.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.pp.niches(adata)
    >>> niche_counts = adata.obsp["niche_connectivities"] @ adata.X
    >>> niche_counts.shape == adata.shape
    True
    """
    niche = Niche(n_neighbors, include_self, ties)
    table = table_of(data, table_key)
    check_writable(table, Keys.UNS_NICHES)
    sections = open_sections(data, table_key=table_key, library_key=library_key, image=False)
    slots = niche_slots(sections, niche, library_key)
    missing = sum(int((~section.valid).sum()) for section in sections)
    if missing:
        warn(f"{missing} of {table.n_obs} spots have no coordinates: they have no niche and belong to none.")
    changed = write(data, slots, copy=copy, table_key=table_key)
    logger.info(
        "Niches of %d spots with %d neighbours in %d section(s): added obsp[%r].",
        table.n_obs - missing,
        niche.n_neighbors,
        len(sections),
        Keys.NICHE_GRAPH,
    )
    return changed
