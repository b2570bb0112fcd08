"""Score domains against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._threads import few_threads
from stalign._validate import message
from stalign.core.labels import NO_LABEL, as_labels
from stalign.core.scores import agreement, classification, compactness
from stalign.data import check_labels, label_columns, open_sections, table_of
from stalign.tl._domains import features_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from anndata import AnnData
    from spatialdata import SpatialData

OVERALL = "all"


@few_threads
def score(
    data: AnnData | SpatialData,
    truth: str = "layer",
    *,
    key: str | None = None,
    ignore: Collection[str] = NO_LABEL,
    use_rep: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
) -> pd.DataFrame:
    """Score domains against labels, library by library and over all.

    Parameters
    ----------
    data
        Sections with domains and labels.
    truth
        The obs column of labels, such as a pathologist's.
    key
        The obs column of domains, or of the labels of `tl.annotate`; None for `stalign_domain`.
    ignore
        Labels that mean "not labelled", beside missing values: by default what files write there, such as "", "NA" and
        "None", and "undetermined", "Exclude" and "unlabelled". Spots with them are left out and counted.
    use_rep
        The obsm key of features on which domains are scored without the labels as well: the columns silhouette,
        calinski_harabasz and davies_bouldin. None leaves these out.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of a SpatialData object.
    random_state
        Seed of the sample that the silhouette is taken on above 10,000 spots; None for `settings.seed`.

    Returns
    -------
    A row per library and, where there are several, one called "all" over the spots of all of them, with

    - library;
    - n_spots, all spots of the library;
    - n_unlabelled, spots without a label; n_no_domain, labelled spots without a domain; both are left out;
    - n_scored, the spots compared: n_spots = n_unlabelled + n_no_domain + n_scored;
    - n_domains and n_truth, how many domains and labels these have;
    - ARI, NMI (over the arithmetic mean of the entropies), homogeneity and completeness, NaN without scored spots;
    - for the labels of `tl.annotate`: accuracy, macro_f1 (mean F1 of the true labels), and n_given, labelled spots
      that the annotation had learned from, which are left out of n_scored and of all scores;
    - with `use_rep`, the three compactness scores of the domains over all spots that have a domain and features.

    Reads
    -----
    - `obs[truth]` and `obs["stalign_domain"]`, (n_obs,)
    - `obs[f"{key}_given"]`, (n_obs,) bool, of the labels of `tl.annotate`
    - `obsm[use_rep]`, (n_obs, d) float, where asked for

    Raises
    ------
    KeyError
        If a column or the embedding does not exist; the columns that could be meant are listed.
    ValueError
        If a column holds measurements rather than labels.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> adata.obs["guess"] = adata.obs["domain"].cat.rename_categories(lambda name: "x" + name)
    >>> table = stalign.tl.score(adata, truth="domain", key="guess")
    >>> float(table["ARI"][0])
    1.0
    """
    table = table_of(data, table_key)
    key = Keys.DOMAIN if key is None else key
    seed = seed_of(random_state)
    parts = _libraries(data, table, library_key=library_key, table_key=table_key)
    labels = labels_of(table, truth, name="truth", ignore=ignore, hint="Pass the obs column of labels as `truth=`")
    found = labels_of(table, key, name="key", ignore=NO_LABEL, hint="Run `stalign.tl.domains` first, or pass `key=`")
    features = None if use_rep is None else features_of(table, use_rep)
    if len(parts) > 1:
        parts = [*parts, (OVERALL, np.arange(table.n_obs))]
    given = _given(table, key)
    rows = [_row(name, rows, labels, found, features, seed, given) for name, rows in parts]
    result = pd.DataFrame(rows)
    last = result.iloc[-1]
    if last["n_scored"] < last["n_spots"]:
        logger.info(
            "Scored %d of %d spots: %d without a label in obs[%r] and %d labelled ones without a domain are left out"
            "%s.",
            *(last["n_scored"], last["n_spots"], last["n_unlabelled"], truth, last["n_no_domain"]),
            f", and {last['n_given']} that the annotation had learned from" if given is not None else "",
        )
    return result


def _libraries(
    data: AnnData | SpatialData, table: AnnData, *, library_key: str | None, table_key: str | None
) -> list[tuple[str, np.ndarray]]:
    """Split into libraries; scores do not need the sections, so a table of several can be scored as one."""
    if library_key is None and len(table.uns.get(Keys.UNS_SPATIAL, {})) > 1:
        return [(OVERALL, np.arange(table.n_obs))]
    return [(one.name, one.rows) for one in open_sections(data, library_key=library_key, table_key=table_key)]


def labels_of(table: AnnData, column: str, *, name: str, ignore: Collection[str], hint: str) -> np.ndarray:
    """Read labels of a column of obs as text, (n_obs,) object, with None where there is none.

    Parameters
    ----------
    table
        The table.
    column
        The column.
    name
        The parameter that named it, for messages.
    ignore
        Labels that mean that there is none.
    hint
        What to do where there is no such column.
    """
    if column not in table.obs:
        expected = f"Expected `{name}` to name a column of obs"
        raise KeyError(message(expected, found=repr(column), available=label_columns(table), hint=hint))
    check_labels(table, column, name=name)
    return as_labels(table.obs[column], ignore=ignore)


def _given(table: AnnData, key: str) -> np.ndarray | None:
    """Spots whose label an annotation had learned from, (n_obs,) bool; None for other columns."""
    column = f"{key}_given"
    return table.obs[column].to_numpy(dtype=bool) if column in table.obs and key in table.uns else None


def _row(
    library: str,
    rows: np.ndarray,
    truth: np.ndarray,
    found: np.ndarray,
    features: np.ndarray | None,
    seed: int,
    given: np.ndarray | None = None,
) -> dict[str, Any]:
    truth, found = truth[rows], found[rows]
    labelled = np.array([value is not None for value in truth], dtype=bool)
    placed = np.array([value is not None for value in found], dtype=bool)
    learned = np.zeros(len(rows), dtype=bool) if given is None else given[rows] & labelled & placed
    both = labelled & placed & ~learned
    scored = truth[both].astype(str), found[both].astype(str)
    row: dict[str, Any] = {
        "library": library,
        "n_spots": len(rows),
        "n_unlabelled": int((~labelled).sum()),
        "n_no_domain": int((labelled & ~placed).sum()),
        "n_scored": int(both.sum()),
        "n_domains": len(np.unique(scored[1])),
        "n_truth": len(np.unique(scored[0])),
        **agreement(*scored),
    }
    if given is not None:
        row |= {**classification(*scored), "n_given": int(learned.sum())}
    if features is not None:
        use = placed & np.isfinite(features[rows]).all(axis=1)
        row |= compactness(features[rows][use], found[use].astype(str), random_state=seed)
    return row
