"""Regions of spots that are near each other in space and alike in features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._threads import few_threads
from stalign._validate import message, positive, whole
from stalign.core.palette import palette
from stalign.core.regions import regions as cut
from stalign.data import check_writable, open_sections, result_record, table_of, write
from stalign.tl._domains import features_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


@few_threads
def regions(
    data: AnnData | SpatialData,
    *,
    use_rep: str | Sequence[str] = (Keys.EMBED_IMAGE, Keys.EMBED_GENE),
    n_neighbors: int = 15,
    resolution: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Cut each section into regions by a distance of both space and features (HiBio-ST, eq. 7 and 8).

    Each spot is joined with those nearest to it in the sum of the distance in space and one less the cosine of the
    features, both scaled to the range that they have in the section, and the graph is cut by Leiden. Sections are cut
    one by one, and no region lies in two.

    Parameters
    ----------
    data
        One or more sections.
    use_rep
        Keys of obsm, usually one of images and one of genes, each taken at unit length; those of `tl.embed` by default.
        A spot that has NaN in some is placed by the others.
    n_neighbors
        Spots that each is joined with.
    resolution
        Resolution of the modularity; higher means more regions.
    alpha, beta
        Weights of the distance in space and of that in features.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.
    random_state
        Seed; None for `settings.seed`.
    key_added
        The column of obs; None for `stalign_region`.
    copy
        Whether to return a changed copy and leave `data` alone.

    Returns
    -------
    None, or the changed copy where `copy` is True.

    Reads
    -----
    - `obsm["spatial"]`
    - `obsm["X_stalign_image"]` and `obsm["X_stalign_gene"]`, or those of `use_rep`

    Writes
    ------
    - `obs["stalign_region"]`, categorical: "1", "2", …, section by section, the largest first; NaN for spots without a
      position or features
    - `uns["stalign_region_colors"]`, list of str: `#RRGGBB` for each
    - `uns["stalign_region"]`: `params`

    Raises
    ------
    KeyError
        If an embedding or column is missing.
    ValueError
        If no spot has features, or a number is impossible.

    Notes
    -----
    Memory grows with the number of spots, never with its square.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.regions(adata)
    >>> adata.obs["stalign_region"].cat.categories[0]
    '1'
    """
    key = Keys.REGION if key_added is None else key_added
    whole(n_neighbors, name="n_neighbors")
    positive(resolution, name="resolution")
    if min(alpha, beta) < 0 or alpha + beta <= 0:
        raise ValueError(message("Expected `alpha` and `beta` from 0, not both 0", found=f"{alpha} and {beta}"))
    table = table_of(data, table_key)
    check_writable(table, key)
    keys = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    features = [features_of(table, name) for name in keys]
    seed = seed_of(random_state)
    labels = np.full(table.n_obs, -1, dtype=np.intp)
    for section in open_sections(data, table_key=table_key, library_key=library_key, image=False):
        rows = section.rows
        found = cut(
            section.positions,
            [part[rows] for part in features],
            n_neighbors=n_neighbors,
            resolution=resolution,
            alpha=alpha,
            beta=beta,
            seed=seed,
        )
        labels[rows] = np.where(found >= 0, found + labels.max(initial=-1) + 1, -1)
    n = int(labels.max(initial=-1)) + 1
    if n == 0:
        expected = f"Expected a spot with a position and features in {' or '.join(f'obsm[{name!r}]' for name in keys)}"
        raise ValueError(message(expected, found="NaN for all"))
    left = int((labels < 0).sum())
    left_out = f"; {left} without features or position are NaN" if left else ""
    logger.info("Cut %d spots into %d regions: added obs[%r]%s.", len(labels) - left, n, key, left_out)
    column = pd.Categorical.from_codes(labels, categories=[str(number) for number in range(1, n + 1)])
    params = {"use_rep": keys, "n_neighbors": n_neighbors, "resolution": resolution, "alpha": alpha, "beta": beta}
    params |= {"random_state": seed, "library_key": library_key}
    slots = {
        "obs": {key: pd.Series(column, index=table.obs_names)},
        "uns": {f"{key}_colors": palette(n), key: result_record(params)},
    }
    return write(data, slots, copy=copy, table_key=table_key)
