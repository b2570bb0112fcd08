"""HEST-bench: genes from images in its own folder layout, with its own splits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import anndata
import h5py
import numpy as np
import pandas as pd

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.features import no_weights, weights_sha256
from stalign.core.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.config import Config

TITLE = "HEST-bench: genes from images"
NOTE = """\
Mean Pearson over the 50 genes of each task, then over folds. "ridge" is HEST-bench's: patches of the files,
standardised features, 256 principal components, ridge (`lsqr`, no intercept, penalty 100 / (features x genes)), log1p
of raw counts. "tl.predict_genes" has the same features, genes and target, patients told apart by their files. A seed
stands for a fold."""
COMMAND = "python -m benchmarks run hest-bench --bench FOLDER --download"
TASKS = ("IDC", "PRAD", "PAAD", "SKCM", "COAD", "READ", "CCRCC", "LUNG", "LYMPH_IDC")
ENCODERS = (
    "uni", "uni2-h", "conch", "ctranspath", "gigapath", "hibou-b", "h-optimus-0", "virchow2", "phikon", "plip",
    "resnet50", "efficientnet-lite0", "colour",
)  # fmt: skip
MODELS = ("ridge", "tl.predict_genes")
COMPONENTS, BATCH, SEED = 256, 64, 1


@dataclass(frozen=True)
class Fold:
    """Sample ids, and the files of patches and of expression, of both parts of a split."""

    number: int
    train: tuple[tuple[str, str, str], ...]
    test: tuple[tuple[str, str, str], ...]


def cells(config: Config) -> Iterator[Cell]:
    for task in TASKS:
        folder = config.bench / task if config.bench else None
        for name in ENCODERS:
            for model in MODELS:
                yield from _task(task, folder, name, model, config)


def _task(task: str, folder: Path | None, name: str, model: str, config: Config) -> Iterator[Cell]:
    row = f"{name}; {model}"
    if folder is None or not folder.is_dir():

        def fail() -> dict[str, float]:
            where = f"no folder {task} in {config.bench}" if config.bench else "no folder of HEST-bench (gated)"
            raise Missing(f"{where}; get MahmoodLab/hest-bench from the hub and name it with `--bench FOLDER`")

        yield Cell(row, task, fail)
        return
    weights = config.weights.get(name, "")
    for fold in folds(folder):
        yield Cell(
            row, task, lambda fold=fold: {"Pearson": score(folder, fold, name, model, config)}, fold.number,
            weights=weights_sha256(weights), data=_sha256(folder, fold),
            seen="unknown" if stalign.encoders.get(name).needs_weights else "",
        )  # fmt: skip


def folds(folder: Path) -> list[Fold]:
    """Read the splits of a task."""
    found = []
    for file in sorted((folder / "splits").glob("train_*.csv"), key=lambda f: int(f.stem.split("_")[1])):
        number = int(file.stem.split("_")[1])
        parts = [
            tuple(
                pd.read_csv(path)[["sample_id", "patches_path", "expr_path"]]
                .astype(str)
                .itertuples(index=False, name=None)
            )
            for path in (file, file.with_name(f"test_{number}.csv"))
        ]
        found.append(Fold(number, *parts))
    if not found:
        raise FileNotFoundError(f"Expected train_0.csv and test_0.csv in {folder / 'splits'}; found none.")
    return found


def score(folder: Path, fold: Fold, name: str, model: str, config: Config) -> float:
    """Mean Pearson over genes on the test part of a fold."""
    genes = json.loads((folder / "var_50genes.json").read_text())["genes"]
    train, test = ([_sample(folder, one, name, config) for one in part] for part in (fold.train, fold.test))
    if model == "ridge":
        (x, y), (new_x, new_y) = ((_stack(part, genes)) for part in (train, test))
        predicted = ridge(x, y, new_x)
        return float(np.nanmean([_pearson(predicted[:, i], new_y[:, i]) for i in range(len(genes))]))
    query = anndata.concat(test, join="inner", index_unique="-")
    found = stalign.tl.predict_genes(
        query, train, genes=genes, use_rep="X_features", target="counts", patient_key="sample", library_key="sample"
    )
    return float(np.nanmean(found.var["pearson"]))


def ridge(x: np.ndarray, y: np.ndarray, new_x: np.ndarray) -> np.ndarray:
    """Predict as HEST-bench does."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    n = min(COMPONENTS, *x.shape)  # of small encoders and folds
    reduce = make_pipeline(StandardScaler(), PCA(n, random_state=SEED))
    x, new_x = reduce.fit_transform(x).astype(np.float32), reduce.transform(new_x).astype(np.float32)
    alpha = 100 / (x.shape[1] * y.shape[1])
    fitted = Ridge(solver="lsqr", alpha=alpha, random_state=SEED, fit_intercept=False, max_iter=1000).fit(x, y)
    return fitted.predict(new_x)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")


def _stack(samples: list[anndata.AnnData], genes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Features and log1p of raw counts."""
    values = [np.log1p(np.asarray(sample[:, genes].to_df(), dtype=np.float64)) for sample in samples]
    return np.concatenate([sample.obsm["X_features"] for sample in samples]), np.concatenate(values)


def _sample(folder: Path, files: tuple[str, str, str], name: str, config: Config) -> anndata.AnnData:
    """Counts of the spots that have a patch, and its features, from the cache where they are there."""
    sample, patches, expression = files
    with h5py.File(folder / patches) as file:
        key = next(k for k in ("barcodes", "barcode") if k in file)
        barcodes = [item.decode() if isinstance(item, bytes) else str(item) for item in np.ravel(file[key][:])]
    adata = anndata.read_h5ad(folder / expression)[barcodes].copy()
    adata.obsm["X_features"] = _encoded(folder / patches, name, config)
    adata.obs["sample"] = sample
    return adata


def _encoded(file: Path, name: str, config: Config) -> np.ndarray:
    weights = config.weights.get(name)
    kept = config.cache / "hest-bench" / f"{sha256_of(file)[:16]}-{name}-{weights_sha256(weights or '')[:8]}.npy"
    if kept.is_file():
        return np.load(kept)
    encoder = _loaded(name, weights)
    with h5py.File(file) as source:
        patches = source[next(k for k in ("img", "imgs") if k in source)]
        parts = [encoder.encode(np.asarray(patches[i : i + BATCH])) for i in range(0, len(patches), BATCH)]
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, np.concatenate(parts))
    return np.load(kept)


@lru_cache(maxsize=2)
def _loaded(name: str, weights: str | None):
    from stalign.encoders.loading import load

    card = stalign.encoders.get(name)
    if card.needs_weights and weights is None and card.access == "folder":
        raise Missing(no_weights(name))
    try:
        return load(name, weights)
    except (FileNotFoundError, PermissionError, ConnectionError) as error:
        raise Missing(no_weights(name)) from error


@lru_cache(maxsize=64)
def _sha256(folder: Path, fold: Fold) -> str:
    import hashlib

    files = [part for sample in (*fold.train, *fold.test) for part in sample[1:]]
    return hashlib.sha256("".join(sha256_of(folder / file) for file in files).encode()).hexdigest()
