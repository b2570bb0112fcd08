"""Which spots to label next."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, settings
from stalign._threads import few_threads
from stalign._validate import message, whole
from stalign.core.annotation import fit_annotation
from stalign.core.annotation_features import fit_bases, view_features, views_of
from stalign.core.labels import NO_LABEL_OR_UNKNOWN
from stalign.core.suggestions import informative, representatives
from stalign.data import table_of
from stalign.tl import _label_sections as read
from stalign.tl._label_sections import Source

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.core.annotation_features import SectionData


@few_threads
def suggest(
    data: AnnData | SpatialData,
    n: int = 20,
    *,
    truth: str | None = None,
    use_rep: str | None = None,
    ignore: Collection[str] = NO_LABEL_OR_UNKNOWN,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
) -> pd.DataFrame:
    """Suggest spots to label next, those that would tell most.

    As long as there are no labels, or of one kind only, spots are suggested that stand for many others. After that
    half of them are spots between two likely labels, spread over features and tissue, and half stand for the spots
    that are least like those labelled.

    Parameters
    ----------
    data
        One or more sections with an embedding. They are not changed.
    n
        How many spots.
    truth
        The obs column of the labels so far; None for no labels yet.
    use_rep
        The obsm key of the embedding; None for `X_stalign`.
    ignore
        Labels that mean "no label", beside missing values.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.
    random_state
        Seed; None for `settings.seed`.

    Returns
    -------
    A row per spot, in the order to label them; its index holds names of obs. Columns: `library`; `x` and `y` in px of
    the full-resolution image; `reason`, `representative` or `uncertain`; `label`, the likeliest so far, and its
    `confidence` (NaN as long as there are no labels). Fewer rows where fewer spots are left.

    Reads
    -----
    - `obsm[use_rep]`, (n_obs, d) float; spots with NaN are not suggested
    - `obs[truth]`: labels so far
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image

    Raises
    ------
    KeyError
        If the embedding or a column does not exist.
    ValueError
        If `n` is below 1, or no spot is left.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> spots = stalign.tl.suggest(adata, 5)
    >>> len(spots), set(spots["reason"])
    (5, {'representative'})
    """
    whole(n, name="n")
    table = table_of(data, table_key)
    seed = settings.seed if random_state is None else random_state
    rep = use_rep or Keys.EMBED
    found = read.no_labels(table) if truth is None else read.read_names(table, truth, ignore)
    names = [str(name) for name in found.categories]
    parts = read.read_sections(Source(data, table, library_key, table_key), rep, found.codes.astype(np.intp), None)
    parts = [_by_position(own, part) for own, part in parts]
    rows = np.concatenate([rows for rows, _ in parts])
    sections = [part for _, part in parts]
    labels, usable = (np.concatenate([getattr(part, name) for part in sections]) for name in ("labels", "usable"))
    free = np.flatnonzero(usable & (labels < 0))
    if not len(free):
        why = "labels for all spots with features" if usable.any() else f"no spot with features in obsm[{rep!r}]"
        raise ValueError(message("Expected spots without a label", found=why))
    bases = fit_bases(sections, seed=seed)
    view = views_of(bases)[0]
    features = np.concatenate([view_features(part, bases, [view])[view] for part in sections])[:, :15]
    place = np.concatenate([_extent(part.coords) for part in sections])
    label, confidence = np.full(len(rows), None, dtype=object), np.full(len(rows), np.nan)
    if len(np.unique(labels[(labels >= 0) & usable])) < 2:
        taken = free[representatives(features[free], n, seed=seed)]
        reasons = ["representative"] * len(taken)
    else:
        labelled = [part for part in sections if ((part.labels >= 0) & part.usable).any()]
        model = fit_annotation(labelled, names, names, use_rep=rep, choice=False, seed=seed)
        probability = np.concatenate([model.predict(part, given=part.labels).probability for part in sections])
        label[free] = np.array(names, dtype=object)[probability[free].argmax(axis=1)]
        confidence[free] = probability[free].max(axis=1)
        taken = free[informative(features[free], probability[free], place[free], -(-n // 2), seed=seed)]
        reasons = ["uncertain"] * len(taken)
        rest = np.setdiff1d(free, taken)
        if len(taken) < n and len(rest):
            known = np.concatenate([np.flatnonzero((labels >= 0) & usable), taken])
            far = rest[_farthest(features, rest, known)]
            more = far[representatives(features[far], n - len(taken), seed=seed)]
            taken, reasons = np.concatenate([taken, more]), reasons + ["representative"] * len(more)
    placed = Keys.SPATIAL in table.obsm
    xy = np.asarray(table.obsm[Keys.SPATIAL])[:, :2] if placed else np.full((table.n_obs, 2), np.nan)
    library = np.array(
        table.obs[library_key].astype(str) if library_key is not None else [""] * table.n_obs, dtype=object
    )
    chosen = rows[taken]
    logger.info("Suggested %d of %d spots without a label.", len(taken), len(free))
    return pd.DataFrame(
        {
            "library": library[chosen], "x": xy[chosen, 0], "y": xy[chosen, 1], "reason": reasons,
            "label": label[taken], "confidence": confidence[taken],
        },
        index=table.obs_names[chosen],
    )  # fmt: skip


def _by_position(rows: np.ndarray, part: SectionData) -> tuple[np.ndarray, SectionData]:
    """Sort the spots of a section by position, so that the order of rows does not matter."""
    order = np.lexsort(part.coords.T)
    ring = part.ring[order][:, order]
    part = replace(part, rep=part.rep[order], ring=ring, labels=part.labels[order], coords=part.coords[order])
    return rows[order], part


def _extent(coords: np.ndarray) -> np.ndarray:
    """Positions as shares of the section's extent, (n, 2)."""
    if not np.isfinite(coords).any():
        return coords
    low, high = np.nanmin(coords, axis=0), np.nanmax(coords, axis=0)
    return np.asarray((coords - low) / max(float((high - low).max()), 1e-12))


def _farthest(features: np.ndarray, rest: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The half of some spots that is farthest from all known ones: positions in `rest`."""
    from scipy.spatial import KDTree

    distance = KDTree(features[known]).query(features[rest])[0]
    return np.argsort(-distance, kind="stable")[: max(len(rest) // 2, 1)]
