"""Predict gene expression from image embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._validate import message, one_of
from stalign.core.scores import per_gene
from stalign.core.standardise import STANDARDS
from stalign.data import open_sections
from stalign.data.table import label_columns, table_of
from stalign.tl._expression import Spots, most_variable, read_spots
from stalign.tl._held_out import Plan, as_fitter, predict_parts, split_spots

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.core.regression import Regression

N_GENES = 50
PATIENT = ("patient", "donor", "subject", "individual")


def predict_genes(
    query: AnnData | SpatialData,
    reference: AnnData | SpatialData | Sequence[AnnData | SpatialData] | None = None,
    *,
    genes: int | Sequence[str] | None = N_GENES,
    use_rep: str | Sequence[str] = Keys.EMBED_IMAGE,
    model: Any = "ridge",
    split: str | None = None,
    standardise: str = "section",
    layer: str | None = None,
    total_counts: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
) -> AnnData:
    """Predict gene expression from the image, with a regression fitted to sections where both were measured.

    Expression is log1p of counts per 10,000 of a spot's total. Features are standardised section by section, which
    takes out much of what differs in stain and scale; the query's own spots give its mean and spread, its counts are
    never used. A prediction is the reference's mean of the gene, plus what the features explain times a factor between
    0 and 1, kept within the range seen in the reference. The factor is chosen on held-out sections of the reference
    (or regions, where it is one section) and errs on the small side, so a gene that cannot be predicted gets its mean.

    Parameters
    ----------
    query
        Spots to predict, with features.
    reference
        Sections to fit to, with features and raw counts, one object or a list; None to hold out parts of `query`.
    genes
        Names; or a number, for that many genes of the largest variance in the spots fitted to; or None for all genes
        of the reference.
    use_rep
        The obsm key of the features, or several, whose columns are put side by side.
    model
        `ridge`; `mlp`, a multilayer perceptron of scikit-learn with hidden layers of 256 and 128; or an object with
        `fit(X, y)` and `predict(X)` for many outputs, such as any regressor of scikit-learn, of which a copy is
        fitted for each fold.
    split
        Without a reference: `spot` predicts each spot from the other four fifths of the spots (seeded; neighbours fall
        on both sides, so this is the easiest task); or an obs column, such as that of the section or the patient, each
        of whose values is predicted from the others. None for `spot`.
    standardise
        `section`: mean 0 and spread 1 in each section, cut off at 4; `rank`: normal scores of ranks in each section;
        `reference`: mean and spread of the reference for all, which keeps differences between sections and passes
        stain and scale on to the prediction.
    layer
        Layer of the raw counts; None for `.X`. Of query and reference alike.
    total_counts
        obs column with each spot's total count over all genes, for tables that hold only some of the genes.
    library_key
        obs column that names the section of each spot; None for one section.
    table_key
        Table of SpatialData objects.
    random_state
        Seed of folds, regions and the MLP; None for `settings.seed`.

    Returns
    -------
    AnnData of all spots of the query by the predicted genes, with

    - X, float32: predictions, NaN for spots without features;
    - layers["truth"], float32: the same of the measured counts, where the query has any; NaN for genes it lacks and for
      spots without counts;
    - obs of the query, and its obsm["spatial"] and uns["spatial"], whose images are shared and cannot be written to;
    - var: mse and mae of each gene over all spots compared, n of them; pearson, the mean over the query's sections;
      mse_mean, the error of predicting the mean of the spots fitted to; mean, that mean; and shrink, the factor (means
      over folds where there are several). Pearson is NaN for genes that vary in no section, and 0 in a section where
      the prediction does not vary;
    - uns["stalign"]["predict_genes"]: split (`reference`, `spot`, `section` or `patient`), split_key, model, alpha
      (penalty per spot, of each fold), use_rep, standardise, n_reference, reference_sections, n_predicted, n_scored,
      n_constant_genes, random_state; and uns["stalign"]["embed"] of the query, where features of `tl.embed` were used.

    Reads
    -----
    - `obsm["X_stalign_image"]`, (n_obs, width) float, or `obsm[use_rep]`
    - `.X` or `layers[layer]`, (n_obs, n_vars): raw counts of the reference, and of the query for the truth
    - `obsm["spatial"]`, (n_obs, 2) float: to hold out regions where the reference is one section

    Raises
    ------
    KeyError
        If an embedding, gene, layer or column is missing.
    ValueError
        If there are no counts or fewer than two usable spots to fit to, no usable spot to predict, widths of features
        differ, a column of `split` has one value, or both `reference` and `split` are given.
    TypeError
        If `model` has no `fit` and `predict`.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> predicted = stalign.tl.predict_genes(adata, genes=5)
    >>> predicted.shape == (adata.n_obs, 5)
    True
    """
    one_of(standardise, STANDARDS, name="standardise")
    if reference is not None and split is not None:
        raise ValueError(message("Expected either `reference` or `split`", found="both"))
    plan = Plan(as_fitter(model), standardise, seed_of(random_state))
    keys = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    table = table_of(query, table_key)
    by_column = reference is None and split not in {None, "spot"}
    common: dict[str, Any] = {
        "layer": layer,
        "total_counts": total_counts,
        "library_key": split if by_column and library_key is None else library_key,
        "table_key": table_key,
    }
    if by_column and split not in table.obs:
        hint = "Pass `split='spot'`, or the column of sections or patients"
        known = label_columns(table)
        raise KeyError(
            message("Expected `split` to name a column of obs", found=repr(split), available=known, hint=hint)
        )
    asked = read_spots(query, keys, **common)
    if not asked.usable.any():
        raise ValueError(message(f"Expected a spot with features in obsm[{keys[0]!r}]", found="NaN in every row"))
    if reference is None:
        source, parts = asked, split_spots(asked, table.obs[split] if by_column else None, plan.seed)
    else:
        source, parts = read_spots(reference, keys, **common), None
    names = _genes(source, genes)
    predicted, baseline, models, n_fitted = predict_parts(plan, source, asked, names, parts)
    record = {
        "split": _kind(split) if reference is None else "reference",
        "model": model if isinstance(model, str) else repr(model),
        "use_rep": keys,
        "standardise": standardise,
        "n_reference": n_fitted,
        "random_state": plan.seed,
    }
    if by_column:
        record["split_key"] = split
    if reference is not None:
        record["reference_sections"] = _reference_sections(reference, library_key, table_key)
    if model == "ridge":
        record["alpha"] = [fitted.alpha for fitted in models]
    return _result(table, asked, names, predicted, baseline, models, record)


def _genes(source: Spots, genes: int | Sequence[str] | None) -> np.ndarray:
    """Choose the genes to predict, (m,) str."""
    if source.expression is None:
        hint = "Pass a reference with raw counts, or their `layer=`"
        raise ValueError(message("Expected raw counts to fit to", found="no count matrix", hint=hint))
    if genes is None:
        return source.genes
    if isinstance(genes, int | np.integer):
        if genes < 1:
            raise ValueError(message("Expected at least one gene", found=str(genes)))
        return source.genes[most_variable(source.expression, int(genes))]
    names = np.array(list(dict.fromkeys([genes] if isinstance(genes, str) else genes)), dtype=str)
    unknown = names[source.columns(names) < 0]
    if len(names) == 0 or len(unknown):
        found = ", ".join(unknown[:5]) + (f" and {len(unknown) - 5} more" if len(unknown) > 5 else "")
        raise KeyError(message("Expected genes of the reference", found=found or "none", available=source.genes))
    return names


def _reference_sections(
    reference: AnnData | SpatialData | Sequence[AnnData | SpatialData], library_key: str | None, table_key: str | None
) -> list[str]:
    """Name the sections of the reference."""
    parts = reference if isinstance(reference, list | tuple) else [reference]
    sections = [open_sections(part, library_key=library_key, table_key=table_key) for part in parts]
    names = [section.name for some in sections for section in some]
    return list(dict.fromkeys(names))


def _own(value: Any) -> Any:
    """Copy what is in uns, but share the pixels of images, as arrays that cannot be written to."""
    if isinstance(value, Mapping):
        return {name: _own(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray) and value.ndim >= 2:
        shared = value.view()
        shared.flags.writeable = False
        return shared
    return value if hasattr(value, "compute") or hasattr(value, "chunks") else deepcopy(value)


def _kind(split: str | None) -> str:
    """Name what is held out."""
    if split in {None, "spot"}:
        return "spot"
    return "patient" if any(word in str(split).lower() for word in PATIENT) else "section"


def _result(
    table: AnnData,
    asked: Spots,
    names: np.ndarray,
    predicted: np.ndarray,
    baseline: np.ndarray,
    models: list[Regression],
    record: dict[str, Any],
) -> AnnData:
    """Put predictions, truth and scores together."""
    from anndata import AnnData

    truth = asked.values(names)
    measured = np.full_like(predicted, np.nan) if truth is None else truth
    var = pd.DataFrame(per_gene(measured, predicted), index=pd.Index(names))
    sections = [asked.groups == group for group in np.unique(asked.groups)]
    pearson = pd.DataFrame([per_gene(measured[rows], predicted[rows])["pearson"] for rows in sections])
    var["pearson"] = pearson.mean(axis=0).to_numpy()  # over all spots, differences between sections would count
    var["mse_mean"] = per_gene(measured, baseline)["mse"]
    var["mean"] = np.mean([model.mean for model in models], axis=0)
    var["shrink"] = np.mean([model.shrink for model in models], axis=0)
    result = AnnData(X=predicted.astype(np.float32), obs=table.obs.copy(), var=var)
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
    if isinstance(known, Mapping) and "embed" in known and any(key.startswith(Keys.EMBED) for key in record["use_rep"]):
        result.uns[Keys.UNS]["embed"] = deepcopy(known["embed"])
    seen = var["n"] > 0
    logger.info(
        "Predicted %d genes in %d of %d spots (%s)%s.",
        *(len(names), record["n_predicted"], table.n_obs, record["split"]),
        f": mean Pearson {var['pearson'].mean():.3f}, mean squared error {var['mse'].mean():.3f} "
        f"({var['mse_mean'].mean():.3f} for predicting the mean)"
        if seen.any()
        else "; nothing measured to compare with",
    )
    return result
