"""Predicted genes as a table, with truth and scores beside them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign.core.scores import per_gene

if TYPE_CHECKING:
    from anndata import AnnData

    from stalign.tl._expression import Spots
    from stalign.tl._gene_fit import Predicted


def gene_result(
    table: AnnData, asked: Spots, names: np.ndarray, found: Predicted, chosen: np.ndarray, record: dict[str, Any]
) -> AnnData:
    """Put predictions, truth and scores together.

    Parameters
    ----------
    table
        The query's table.
    asked
        Its spots.
    names
        Genes that were fitted, (g,).
    found
        Their predictions.
    chosen
        Positions of those to return, in order.
    record
        What to write down.

    Returns
    -------
    The result of `tl.predict_genes`.
    """
    from anndata import AnnData

    params = record["params"]
    names, predicted = names[chosen], found.values[:, chosen]
    lower, upper = found.lower[:, chosen], found.upper[:, chosen]
    truth = asked.values(names)
    measured = np.full_like(predicted, np.nan) if truth is None else truth
    var = _of_reference(found, names, chosen)
    var["reliable_within"] = pd.Categorical([record["reliable_within"]] * len(names))
    var = var.join(_scores(asked, measured, predicted, found.baseline[:, chosen], names))
    inside = np.where(np.isfinite(measured) & np.isfinite(lower), (measured >= lower) & (measured <= upper), np.nan)
    counted = np.isfinite(inside).sum(axis=0)
    var["covered"] = np.where(counted > 0, np.nansum(inside, axis=0) / np.maximum(counted, 1), np.nan)
    result = AnnData(X=predicted.astype(np.float32), obs=table.obs.copy(), var=var)
    result.layers["lower"], result.layers["upper"] = lower.astype(np.float32), upper.astype(np.float32)
    if truth is not None:
        result.layers["truth"] = truth.astype(np.float32)
    if Keys.SPATIAL in table.obsm:
        result.obsm[Keys.SPATIAL] = np.array(table.obsm[Keys.SPATIAL])
    if Keys.UNS_SPATIAL in table.uns:
        result.uns[Keys.UNS_SPATIAL] = _own(table.uns[Keys.UNS_SPATIAL])
    record["n_predicted"] = int(np.isfinite(predicted).all(axis=1).sum())
    record["n_scored"] = int((np.isfinite(measured) & np.isfinite(predicted)).any(axis=1).sum())
    record["n_constant_genes"] = int((np.isnan(var["pearson"]) & (var["n"] > 0)).sum())
    result.uns[Keys.UNS] = {"predict_genes": record}
    known = table.uns.get(Keys.UNS)
    if isinstance(known, Mapping) and "embed" in known and any(key.startswith(Keys.EMBED) for key in params["use_rep"]):
        result.uns[Keys.UNS]["embed"] = deepcopy(known["embed"])
    seen = var["n"] > 0
    logger.info(
        "Predicted %d genes, %d of them reliable by held-out %ss of the reference, in %d of %d spots (%s)%s.",
        *(len(names), int(var["reliable"].sum()), record["held_out"]),
        *(record["n_predicted"], table.n_obs, params["split"]),
        f": mean Pearson {var['pearson'].mean():.3f}, mean squared error {var['mse'].mean():.3f} "
        f"({var['mse_mean'].mean():.3f} for predicting the mean)"
        if seen.any()
        else "; nothing measured to compare with",
    )
    return result


def _of_reference(found: Predicted, names: np.ndarray, chosen: np.ndarray) -> pd.DataFrame:
    """What the reference alone tells of each gene."""
    columns = {
        "reliability": found.reliability,
        "reliability_se": found.mean_of(lambda fit: fit.error),
        "reliable": found.reliable,
        "level": found.mean_of(lambda fit: fit.model.level),
        "level_sd": found.mean_of(lambda fit: fit.model.spread),
        "shrink": found.mean_of(lambda fit: fit.model.shrink),
        "mean": found.mean_of(lambda fit: fit.model.mean),
    }
    return pd.DataFrame({name: values[chosen] for name, values in columns.items()}, index=pd.Index(names))


def _scores(
    asked: Spots, measured: np.ndarray, predicted: np.ndarray, baseline: np.ndarray, names: np.ndarray
) -> pd.DataFrame:
    """What the query's own counts tell of each gene."""
    table = pd.DataFrame(per_gene(measured, predicted), index=pd.Index(names))
    sections = [asked.groups == group for group in np.unique(asked.groups)]
    pearson = pd.DataFrame([per_gene(measured[rows], predicted[rows])["pearson"] for rows in sections])
    table["pearson"] = pearson.mean(axis=0).to_numpy()  # over all spots, differences between sections would count
    table["mse_mean"] = per_gene(measured, baseline)["mse"]
    return table


def _own(value: Any) -> Any:
    """Copy what is in uns, but share the pixels of images, as arrays that cannot be written to."""
    if isinstance(value, Mapping):
        return {name: _own(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray) and value.ndim >= 2:
        shared = value.view()
        shared.flags.writeable = False
        return shared
    return value if hasattr(value, "compute") or hasattr(value, "chunks") else deepcopy(value)
