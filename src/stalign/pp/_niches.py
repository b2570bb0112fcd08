"""Niches of the spots of a table."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import N_NEIGHBORS, Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.core.niches import nearest, niche_graph
from stalign.data.sections import sections
from stalign.data.slots import write
from stalign.data.table import table_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix
    from spatialdata import SpatialData

    from stalign.data.sections import SectionView


def niches(
    data: AnnData | SpatialData,
    n_neighbors: int = N_NEIGHBORS,
    *,
    include_self: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Find the niche of each spot: the spot and its nearest neighbours.

    Neighbours are nearest by Euclidean distance, in the same section; ties are broken by the order of the spots. The
    niche graph holds the weights of the mean over each niche, so that `graph @ counts` are the niches' mean counts.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table.
    n_neighbors
        Number of neighbours. A section with fewer spots uses all of them, and a lone spot is its own niche.
    include_self
        Whether the spot itself counts in the mean over its niche.
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
        If `n_neighbors` is below 1, the table is backed by a file, or a section has no coordinates at all.

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
    n_neighbors = check_n_neighbors(n_neighbors)
    table = table_of(data, table_key)
    views = sections(data, table_key=table_key, library_key=library_key, image=False)
    slots: dict[str, dict[str, Any]] = {"obsp": {}, "uns": {}}
    niche_slots(table, views, n_neighbors, include_self=include_self, library_key=library_key, into=slots)
    missing = sum(int((~view.valid).sum()) for view in views)
    if missing:
        text = f"{missing} of {table.n_obs} spots have no coordinates: they have no niche and belong to none."
        warnings.warn(text, UserWarning, stacklevel=2)
    changed = write(data, slots, copy=copy, table_key=table_key)
    logger.info(
        "Niches of %d spots with %d neighbours in %d section(s): added obsp[%r].",
        table.n_obs - missing,
        n_neighbors,
        len(views),
        Keys.NICHE_GRAPH,
    )
    return changed


def check_n_neighbors(n_neighbors: int) -> int:
    """Check a number of neighbours.

    Parameters
    ----------
    n_neighbors
        The number given.

    Returns
    -------
    The number, as a Python int.

    Raises
    ------
    TypeError
        If it is not a whole number.
    ValueError
        If it is below 1.
    """
    if not isinstance(n_neighbors, Integral) or isinstance(n_neighbors, bool):
        raise TypeError(message("Expected `n_neighbors` to be a whole number", found=repr(n_neighbors)))
    if n_neighbors < 1:
        raise ValueError(message("Expected `n_neighbors` to be at least 1", found=n_neighbors))
    return int(n_neighbors)


def niche_slots(
    table: AnnData,
    views: Sequence[SectionView],
    n_neighbors: int,
    *,
    include_self: bool = True,
    library_key: str | None = None,
    into: dict[str, dict[str, Any]],
) -> csr_matrix:
    """Find niches and put them, with their record, where `data.slots.write` takes them from.

    Parameters
    ----------
    table
        The table; it is not changed.
    views
        Its sections.
    n_neighbors
        Number of neighbours.
    include_self
        Whether the spot itself counts in the mean over its niche.
    library_key
        Column of obs that tells the sections apart, for the record.
    into
        Values by slot and key; `obsp` and `uns` are added to.

    Returns
    -------
    The niche graph, (n_obs, n_obs) CSR float32, rows sum to 1.
    """
    neighbours = np.full((table.n_obs, n_neighbors), -1, dtype=np.intp)
    valid = np.zeros(table.n_obs, dtype=bool)
    for view in views:
        own = nearest(view.coords, n_neighbors)
        neighbours[view.rows, : own.shape[1]] = np.where(own >= 0, view.rows[own], -1)
        valid[view.rows] = view.valid
    graph = niche_graph(neighbours, include_self=include_self, valid=valid)
    params: dict[str, Any] = {"n_neighbors": n_neighbors, "include_self": include_self}
    if library_key is not None:
        params["library_key"] = library_key
    into.setdefault("obsp", {})[Keys.NICHE_GRAPH] = graph
    into.setdefault("uns", {})[Keys.UNS_NICHES] = {"connectivities_key": Keys.NICHE_GRAPH, "params": params}
    return graph
