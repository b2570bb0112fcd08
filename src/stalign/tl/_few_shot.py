"""Gene prediction from few measured spots, by a linear head on features that are there already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys
from stalign._settings import logger
from stalign._threads import few_threads
from stalign._validate import message, whole
from stalign.core.scores import per_gene
from stalign.data import read_counts, table_of
from stalign.data.table import library_column
from stalign.tl._domains import features_of
from stalign.tl._modality import check_modality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

N_GENES = 300
_PENALTIES = tuple(float(value) for value in 10.0 ** np.arange(-2, 6))


@few_threads
def few_shot(
    data: AnnData | SpatialData,
    ratios: float | Sequence[float] = (0.1, 0.25, 0.5),
    *,
    folds: int = 4,
    sample_key: str | None = None,
    use_rep: str | Sequence[str] = Keys.EMBED_IMAGE,
    genes: int | str | Sequence[str] = N_GENES,
    layer: str | None = None,
    seeds: int | Sequence[int] = (0, 1, 2),
    table_key: str | None = None,
) -> pd.DataFrame:
    """Score how well genes are predicted from a share of the training spots.

    The protocol follows HiBio-ST: samples are split into folds; a linear head is fitted to a share of the training
    spots; spots of a smaller share are among those of a larger one; the whole held-out fold is scored. Expression is
    log(1 + count), without normalisation for depth.

    Parameters
    ----------
    data
        Several sections in one table, with features and raw counts.
    ratios
        Shares of the training spots, or one.
    folds
        How many folds; samples are spread over them in their order.
    sample_key
        obs column that names the sample, patient or section of each spot; none of them is in two folds.
    use_rep
        The obsm key of the features, or several, each scored on its own.
    genes
        How many genes, those with the largest variance averaged over the samples of the training folds; or their names.
    layer
        Layer of the raw counts; None for `.X`.
    seeds
        Seeds of the subsets of training spots, or one.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    A row per `use_rep`, ratio, seed, fold and model, `linear` or `training mean` (the baseline that predicts the mean
    of the same training spots), with n_train, n_test, n_genes, and over the genes and held-out samples: `mse`, `mae`
    and `pearson` (mean over genes of the correlation within a sample; genes that do not vary in a sample are left out,
    a constant prediction counts as 0).

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
        If a ratio is not in (0, 1], there are fewer samples than folds, counts are negative, or nothing is asked for.
    TypeError
        If `folds`, a seed or the number of genes is not a whole number.

    Notes
    -----
    The linear head is a ridge regression on standardised features, its penalty chosen by generalised cross-validation
    on the training spots. HiBio-ST trains the head, and its image encoder with it, by stochastic gradient descent. Here
    features stay fixed, so figures are not those of HiBio-ST's training; there is no schedule to choose.

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
    rows: list[dict[str, Any]] = []
    for rep in reps:
        check_modality(table, rep)
        features = np.asarray(features_of(table, rep), dtype=np.float64)
        usable = np.isfinite(features).all(axis=1)
        for fold in range(folds):
            test = usable & (sample % folds == fold)
            train = np.flatnonzero(usable & (sample % folds != fold))
            if not len(train) or not test.any():
                raise ValueError(message(f"Expected spots with features in fold {fold}", found="none"))
            columns = _variable(values, sample, train, number) if named is None else named
            targets = values[:, columns].toarray().astype(np.float64)
            for share, seed, model, predicted, n in _fits(features, targets, train, test, shares, draws):
                rows.append(
                    {"use_rep": rep, "ratio": share, "seed": seed, "fold": fold, "model": model, "n_train": n,
                     "n_test": int(test.sum()), "n_genes": len(columns),
                     **_scores(targets[test], predicted, sample[test])}
                )  # fmt: skip
        logger.info("Few-shot prediction from obsm[%r]: %d fits.", rep, len(rows) // 2)
    return pd.DataFrame(rows)


def _named(table: AnnData, genes: Sequence[str]) -> np.ndarray:
    columns = table.var_names.get_indexer(pd.Index(genes))
    if (columns < 0).any():
        missing = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        raise KeyError(message("Expected genes of the table", found=", ".join(missing[:5]), available=table.var_names))
    return np.asarray(columns)


def _variable(values: sparse.csr_matrix, sample: np.ndarray, train: np.ndarray, n: int) -> np.ndarray:
    """Columns of the genes with the largest variance, averaged over the training samples."""
    total = np.zeros(values.shape[1])
    for group in np.unique(sample[train]):
        part = values[train[sample[train] == group]]
        mean = np.asarray(part.mean(axis=0, dtype=np.float64)).ravel()
        total += np.asarray(part.multiply(part).mean(axis=0, dtype=np.float64)).ravel() - mean**2
    return np.sort(np.argsort(-total, kind="stable")[:n])


def _fits(
    features: np.ndarray,
    targets: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    shares: Sequence[float],
    seeds: Sequence[int],
) -> Iterator[tuple[float, int, str, np.ndarray, int]]:
    """Predictions of the held-out spots by each share and seed: share, seed, model, (n_test, g), training spots."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    for seed in seeds:
        order = np.random.default_rng(seed).permutation(train)
        for share in shares:
            some = order[: max(round(share * len(order)), 2)]
            fitted = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES)).fit(features[some], targets[some])
            predicted = np.asarray(fitted.predict(features[test])).reshape(int(test.sum()), -1)
            yield share, seed, "linear", predicted, len(some)
            mean = np.broadcast_to(targets[some].mean(axis=0), predicted.shape)
            yield share, seed, "training mean", mean, len(some)


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
