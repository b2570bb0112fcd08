"""The embedding in two dimensions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._validate import message
from stalign.data import open_sections, table_of
from stalign.pl._canvas import PANEL, canvas, entitle, finish, short
from stalign.pl._colors import chosen_colors
from stalign.pl._domains import legend, legend_width
from stalign.pl._labels import Labels, default_key, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.pl._colors import Palette

_MOST = 10_000  # spots that are drawn; of more, a seeded sample is, and the title says so


def embedding(
    data: AnnData | SpatialData,
    key: str | Sequence[str] | None = None,
    *,
    truth: str | None = None,
    use_rep: str = Keys.EMBED,
    basis: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
    palette: Palette = None,
    size: float | None = None,
    alpha: float = 0.9,
    title: str | Sequence[str] | None = None,
    ncols: int = 4,
    ax: Axes | Sequence[Axes] | None = None,
    show: bool | None = None,
    return_fig: bool = False,
) -> Any:
    """Draw a UMAP of an embedding, coloured by domains, truth or section.

    Parameters
    ----------
    data
        One or more sections with an embedding. It is not changed: UMAP is computed for the figure and forgotten. To
        keep one, call scanpy's `pp.neighbors` and `tl.umap` and pass `basis="X_umap"`.
    key
        Column of obs with labels, or several; None for the domains that `tl.domains` wrote, or for the truth alone.
    truth
        Column of obs with true labels, drawn first, in the colours that they have in `pl.domains`.
    use_rep
        obsm key of the embedding that UMAP is computed from.
    basis
        obsm key of two dimensions to draw instead of computing UMAP, with or without `X_`, such as `tsne` after
        `sc.tl.tsne`.
    library_key
        Column of obs that names the section of each spot: a last panel shows it.
    table_key
        Table of a SpatialData object.
    random_state
        Seed; None for `settings.seed`.
    palette
        Colours, as in `pl.domains`.
    size
        Area of a dot in points²; None adapts it to the number of spots.
    alpha
        Opacity of the dots.
    title
        One title for all panels or one per panel.
    ncols
        Panels in a row.
    ax
        Axes to draw on, one per panel.
    show
        Whether to show the figure; None shows it where the backend can.
    return_fig
        Whether to return the figure.

    Returns
    -------
    None if the figure was shown, else its Axes (a list where there are several), or the figure if `return_fig`.

    Reads
    -----
    - `obsm["X_stalign"]`, (n_obs, d) float: rows with NaN are left out
    - `obs[key]`, `obs[truth]`: labels

    Raises
    ------
    KeyError
        If the embedding, a column or a table does not exist.
    ValueError
        If fewer than four spots have an embedding, or `ax` has another number of panels.

    Notes
    -----
    UMAP on 15 neighbours by scanpy, exact ones. Of more than 10,000 spots a seeded sample is drawn, and the titles say
    so. Distances between far groups
    mean nothing in a UMAP.

    The arguments are many because they are those of all plots, under the same names: what is shown, where it is found
    in the container, and how it is drawn.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> adata.obsm["X_my"] = adata.obsm["spatial"] / 1000
    >>> ax = stalign.pl.embedding(adata, "domain", basis="X_my", show=False)
    >>> ax.get_title()
    'domain'
    """
    table = table_of(data, table_key)
    if basis is not None and basis not in table.obsm and f"X_{basis}" in table.obsm:
        basis = f"X_{basis}"
    wanted = use_rep if basis is None else basis
    if wanted not in table.obsm:
        raise KeyError(
            message(
                f"Expected an embedding in obsm[{wanted!r}]",
                found="none",
                available=table.obsm.keys(),
                hint="Call `stalign.tl.embed(data)` first, or name another with `use_rep=`",
            )
        )
    seed = seed_of(random_state)
    columns = [] if key is None else [key] if isinstance(key, str) else list(key)
    if key is None and (truth is None or Keys.DOMAIN in table.obs):
        columns = [default_key(table)]
    shown = resolve(table, columns, truth, None, palette)
    if library_key is not None:
        shown.append(_by_library(data, library_key, table_key))
    rows, usable = _usable(np.asarray(table.obsm[wanted]), wanted, seed)
    points = np.asarray(table.obsm[basis])[rows, :2] if basis is not None else _umap(table, use_rep, rows, seed)
    order = np.random.default_rng(seed).permutation(len(rows))  # so that no group lies on top of the others
    figure, axes = canvas(len(shown), ax=ax, ncols=ncols, width=PANEL + legend_width(shown))
    area = size if size is not None else float(np.clip(24_000 / len(rows), 1.0, 24.0))
    sampled = f"\n{len(rows):,} of {usable:,} spots, at random" if usable > len(rows) else ""
    for index, (panel, labels) in enumerate(zip(axes, shown, strict=True)):
        part = labels.part(rows)
        x, y = points[order].T
        panel.scatter(x, y, c=part.rgb()[order], s=area, alpha=alpha, linewidths=0, rasterized=len(rows) > 2000)
        entitle(panel, title, f"{short(labels.key)}{sampled}", index, len(shown))
        name = "UMAP" if basis is None else basis.removeprefix("X_")
        panel.set_xlabel(f"{name} 1")
        panel.set_ylabel(f"{name} 2")
        panel.set_xticks([])
        panel.set_yticks([])
        legend(panel, part)
    return finish(figure, axes, show=show, return_fig=return_fig)


def _by_library(data: AnnData | SpatialData, library_key: str, table_key: str | None) -> Labels:
    parts = [(one.name, one.rows) for one in open_sections(data, table_key=table_key, library_key=library_key)]
    codes = np.full(sum(len(rows) for _, rows in parts), -1, dtype=np.intp)
    for code, (_, rows) in enumerate(parts):
        codes[rows] = code
    names = [name for name, _ in parts]
    return Labels(library_key, names, codes, chosen_colors(names))


def _usable(values: NDArray[Any], key: str, seed: int) -> tuple[NDArray[np.intp], int]:
    """Rows to draw, and how many there are to draw from."""
    rows = np.flatnonzero(np.isfinite(values).all(axis=1))
    if len(rows) < 4:
        raise ValueError(message(f"Expected at least 4 spots with values in obsm[{key!r}]", found=len(rows)))
    if len(rows) < len(values):
        logger.info("%d of %d spots have no embedding and are left out.", len(values) - len(rows), len(values))
    usable = len(rows)
    if usable > _MOST:
        logger.info("Drawing a sample of %d of %d spots.", _MOST, usable)
        rows = np.sort(np.random.default_rng(seed).choice(rows, _MOST, replace=False))
    return rows, usable


def _umap(table: AnnData, use_rep: str, rows: NDArray[np.intp], seed: int) -> NDArray[np.float64]:
    """UMAP of some rows, on an object of its own, (len(rows), 2)."""
    import warnings

    import scanpy as sc
    from anndata import AnnData

    features = np.asarray(table.obsm[use_rep], dtype=np.float32)[rows]
    own = AnnData(obsm={use_rep: features})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        # Exact neighbours: from 8,192 rows on scanpy takes approximate ones, which fails with some of its releases.
        near = min(15, len(rows) - 1)
        sc.pp.neighbors(own, n_neighbors=near, use_rep=use_rep, random_state=seed, transformer="sklearn")
        sc.tl.umap(own, random_state=seed, init_pos="random" if len(rows) < 10 else "spectral")
    return np.asarray(own.obsm["X_umap"], dtype=np.float64)
