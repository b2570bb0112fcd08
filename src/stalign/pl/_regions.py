"""Regions over the tissue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign.pl._domains import domains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


def regions(data: AnnData | SpatialData, key: str | Sequence[str] | None = None, **options: Any) -> Any:
    """Draw regions over the H&E image, one panel per section and column: one column, or those of several updates.

    Parameters
    ----------
    data
        One or more sections. It is not changed.
    key
        Column of obs, or several in the order in which they are drawn; None for the regions that `tl.regions` wrote.
    options
        Those of `pl.domains`.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Raises
    ------
    KeyError
        If a column does not exist.
    ValueError
        As `pl.domains`.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.regions(adata)
    >>> ax = stalign.pl.regions(adata, show=False)
    """
    return domains(data, Keys.REGION if key is None else key, **options)
