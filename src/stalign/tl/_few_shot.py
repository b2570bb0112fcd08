"""Gene prediction from few measured spots, on whole samples that are held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys
from stalign._settings import logger, settings
from stalign._threads import few_threads
from stalign._validate import message, whole
from stalign.core.folds import deal
from stalign.core.scores import per_gene
from stalign.data import read_counts, table_of
from stalign.data.table import library_column
from stalign.tl._few_shot_fits import LINEAR, few_shot_inputs, predictions
from stalign.tl._gene_choice import VariableGenes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

N_GENES = 300


@few_threads
def few_shot(
    data: AnnData | SpatialData,
    ratios: float | Sequence[float] = (0.1, 0.25, 0.5),
    *,
    model: Any = LINEAR,
    folds: int = 4,
    sample_key: str | None = None,
    use_rep: str | Sequence[str] = Keys.EMBED_IMAGE,
    genes: int | str | Sequence[str] = N_GENES,
    layer: str | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    library_key: str | None = None,
    table_key: str | None = None,
) -> pd.DataFrame:
    """Score how well genes are predicted from a share of the training spots.

    The protocol follows HiBio-ST: samples are dealt to folds of about as many spots; a model is fitted to a share of
    the training spots; spots of a smaller share are among those of a larger one; the whole held-out fold is scored.
    Expression is log(1 + count), without normalisation for depth. With a ratio of 1 it is HiBio-ST's cross-validated
    prediction of genes; `tl.predict_genes` returns predictions themselves.

    Parameters
    ----------
    data
        Several sections in one table, with features and raw counts.
    ratios
        Shares of the training spots, or one.
    model
        `linear`, a ridge regression on standardised features; `tl.SGD()`, a linear layer by HiBio-ST's schedule, or
        `tl.SGD(tower="hibio-mini")` to train the image tower with it, on patches and not on `use_rep`;
        `tl.Retrieval(match=…)`, the mean of the reference spots whose gene sentences are most like the image; or any
        object with `fit(X, y)` and `predict(X)` for many outputs.
    folds
        How many folds; samples are dealt by `settings.seed`.
    sample_key
        obs column that names the sample, patient or section of each spot; none of them is in two folds.
    use_rep
        The obsm key of the features, or several, each scored on its own.
    genes
        How many genes, those with the largest variance averaged over the sections of the training folds; or their
        names.
    layer
        Layer of the raw counts; None for `.X`.
    seeds
        Seeds of the subsets of training spots, or one.
    library_key
        obs column that names the section of each spot; None where a sample is one section.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    A row per `use_rep` (or tower), ratio, seed, fold and model, `linear`, the class of another one, or `training mean`
    (the baseline that predicts the mean of the same training spots), with n_train, n_test, n_genes, and over the genes
    and held-out sections: `mse`, `mae` and `pearson` (mean over genes of the correlation within a section; genes that
    do not vary in a section are left out, a constant prediction counts as 0); and the `samples` held out.

    Reads
    -----
    - `obsm[use_rep]`, (n_obs, d) float: spots with NaN are left out
    - `X` or `layers[layer]`: raw counts
    - `obs[sample_key]`: samples

    Raises
    ------
    KeyError
        If features, a layer, a gene or the column does not exist.
    ValueError
        If a ratio is not in (0, 1], there are fewer samples than folds, counts are negative, there is no image to train
        a tower on, or nothing is asked for.
    TypeError
        If `folds`, a seed or the number of genes is not a whole number, or `model` has no `fit` and `predict`.

    Notes
    -----
    The penalty of the ridge regression is chosen by generalised cross-validation on the training spots. HiBio-ST trains
    a linear layer, and its image encoder with it, by stochastic gradient descent: `tl.SGD(tower=…)`.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(10, n_sections=2)
    >>> stalign.tl.encode(adata, "colour", level="niche", library_key="library")
    >>> table = stalign.tl.few_shot(
    ...     adata, (0.5,), folds=2, sample_key="library", use_rep="X_colour_niche", genes=5, seeds=(0,)
    ... )
    >>> list(table["model"])
    ['linear', 'training mean', 'linear', 'training mean']
    """
    table = table_of(data, table_key)
    shares = sorted({float(ratio) for ratio in np.atleast_1d(ratios)})
    if not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(message("Expected ratios above 0 and up to 1", found=repr(ratios)))
    draws = [whole(seed, name="seeds", least=0) for seed in np.atleast_1d(seeds).tolist()]
    reps = [use_rep] if isinstance(use_rep, str) else list(use_rep)
    if not draws or not reps:
        raise ValueError(message("Expected at least one seed and one `use_rep`", found=f"{draws} and {reps}"))
    if sample_key is None:
        raise ValueError(
            message("Expected `sample_key` to name the obs column of samples or patients", found="None",
                    hint="Folds hold out whole samples, so there have to be several")
        )  # fmt: skip
    names, sample = library_column(table, sample_key)
    section = sample if library_key is None else library_column(table, library_key)[1]
    if not 2 <= whole(folds, name="folds") <= len(names):
        raise ValueError(
            message(f"Expected from 2 folds to as many as the {len(names)} samples", found=folds, available=names)
        )
    counts, _ = read_counts(table, layer=layer)
    values = sparse.csr_matrix((np.log1p(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    named = None
    if not isinstance(genes, int | float | np.number):
        named = _named(table, [genes] if isinstance(genes, str) else genes)
    number = whole(genes, name="genes") if named is None else len(named)
    fold_of = deal(np.bincount(sample, minlength=len(names)), folds, np.random.default_rng(settings.seed))
    rows: list[dict[str, Any]] = []
    for inputs in few_shot_inputs(data, model, reps, library_key=library_key or sample_key, table_key=table_key):
        for fold in range(folds):
            held = fold_of[sample] == fold
            train, test = np.flatnonzero(inputs.known & ~held), np.flatnonzero(inputs.asked & held)
            if not len(train) or not len(test):
                raise ValueError(message(f"Expected spots with features in fold {fold}", found="none"))
            columns = VariableGenes(number).of(values[train], section[train]) if named is None else named
            columns = np.sort(columns) if named is None else columns
            targets = values[:, columns].toarray().astype(np.float64)
            for share, seed, name, predicted, n in predictions(model, inputs, targets, train, test, shares, draws):
                rows.append(
                    {"use_rep": inputs.name, "ratio": share, "seed": seed, "fold": fold, "model": name, "n_train": n,
                     "n_test": len(test), "n_genes": len(columns), **_scores(targets[test], predicted, section[test]),
                     "samples": ", ".join(names[i] for i in np.flatnonzero(fold_of == fold))}
                )  # fmt: skip
        logger.info("Few-shot prediction from %s: %d fits.", inputs.name, len(rows) // 2)
    return pd.DataFrame(rows)


def _named(table: AnnData, genes: Sequence[str]) -> np.ndarray:
    columns = table.var_names.get_indexer(pd.Index(genes))
    if (columns < 0).any():
        missing = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        raise KeyError(message("Expected genes of the table", found=", ".join(missing[:5]), available=table.var_names))
    return np.asarray(columns)


def _scores(truth: np.ndarray, predicted: np.ndarray, sample: np.ndarray) -> dict[str, float]:
    """Errors over all entries, and the correlation within samples."""
    correlations = []
    for group in np.unique(sample):
        found = per_gene(truth[sample == group], predicted[sample == group])["pearson"]
        if np.isfinite(found).any():
            correlations.append(float(np.nanmean(found)))
    error = predicted - truth
    return {
        "mse": float(np.square(error).mean()),
        "mae": float(np.abs(error).mean()),
        "pearson": float(np.mean(correlations)) if correlations else float("nan"),
    }
