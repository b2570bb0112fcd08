"""Linear probes of features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._threads import few_threads
from stalign._validate import message, one_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData


@few_threads
def probe(
    data: AnnData | SpatialData,
    truth: str,
    *,
    use_rep: str | Sequence[str] = Keys.EMBED,
    split: str = "spot",
    library_key: str | None = None,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    table_key: str | None = None,
) -> pd.DataFrame:
    """Score features by how well a linear classifier reads labels from them.

    The protocol is that of STimage-1K4M (Chen et al. 2024): logistic regression by stochastic gradient descent, splits
    of 80 / 10 / 10 %, the penalty chosen on the validation parts, macro-F1 on the test parts.

    Parameters
    ----------
    data
        AnnData, or SpatialData with a table.
    truth
        Column of obs with the labels. Spots that `tl.score` takes for unlabelled are left out and counted: missing
        labels, and such as "undetermined" and "Exclude".
    use_rep
        Key in obsm, or several, each scored on its own.
    split
        `spot`: spots are split at random within the table, as published; neighbours then lie in different parts and
        the figure is optimistic. `library`: whole sections are split.
    library_key
        Column of obs that tells the sections, or the patients, apart.
    seeds
        One split each.
    table_key
        Name of the table in a SpatialData.

    Returns
    -------
    One row per representation: mean and standard deviation of macro-F1 over the splits, the penalty, how the spots were
    split, labelled spots, spots left out, and features.

    Reads
    -----
    - `obsm[use_rep]`, (n_obs, d): features; spots with NaN are left out
    - `obs[truth]`: labels

    Raises
    ------
    KeyError
        If a column or representation is not there.
    ValueError
        If `split` is unknown, `truth` holds measurements, or there are too few labels, spots or sections.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> stalign.tl.encode(adata, "colour", level="niche")
    >>> scores = stalign.tl.probe(adata, "domain", use_rep="X_colour_niche")
    >>> bool(scores.loc["X_colour_niche", "macro_f1"] > 0.2)
    True
    """
    import pandas as pd

    from stalign.core.probe import linear_probe
    from stalign.data.table import check_labels, label_columns, library_column, table_of

    one_of(split, ("spot", "library"), name="split")
    table = table_of(data, table_key)
    if truth not in table.obs:
        expected = "Expected `truth` to name a column of obs"
        raise KeyError(message(expected, found=repr(truth), available=label_columns(table)))
    check_labels(table, truth, name="truth")
    keys = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    for key in keys:
        if key not in table.obsm:
            hint = "Call `tl.embed` or `tl.encode` first"
            raise KeyError(
                message("Expected `use_rep` to be in obsm", found=repr(key), available=table.obsm.keys(), hint=hint)
            )
    groups = library_column(table, library_key)[1] if split == "library" else None
    rows = {}
    for key in keys:
        found = linear_probe(
            np.asarray(table.obsm[key], dtype=np.float64), table.obs[truth], groups=groups, seeds=seeds
        )
        rows[key] = {
            "macro_f1": float(found.test.mean()),
            "macro_f1_sd": float(found.test.std(ddof=1)) if len(found.test) > 1 else float("nan"),
            "alpha": found.alpha,
            "split": split,
            "n_spots": found.n_spots,
            "n_left_out": found.n_left_out,
            "n_classes": len(found.classes),
            "n_features": table.obsm[key].shape[1],
        }
        logger.info("Probe of %s: macro-F1 %.3f over %d splits.", key, rows[key]["macro_f1"], len(found.test))
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("use_rep")
