"""Principal components of what `tl.embed` fits them to: the block Krylov space of `core.expression` beside libraries.

python benchmarks/pca.py [--runs 5]

All solvers get the same matrix, one after the other in each round, on one thread. Seconds are those of the processor,
the median of the rounds; `lost` is the share of the variance of the best components that a solver's do not hold.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pandas as pd
from real import SECTIONS, data_root
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, svds
from sklearn.decomposition import PCA

import stalign
import stalign.data.expression as embedding
from stalign.core.expression import fit_low_rank, normalise

RANK = 50
MOST_GENES = 5_000  # the covariance of 18,000 genes takes minutes to decompose


def given(adata, **options):
    """What `tl.embed` asks components of, on all rows."""
    seen = []

    def record(values, rank=50, *, weights=None, **_):
        seen.append(sparse.csr_matrix(values if weights is None else weights @ values, dtype=np.float32))
        return fit_low_rank(values, rank, weights=weights)

    original, embedding.fit_low_rank = embedding.fit_low_rank, record
    try:
        stalign.tl.embed(adata, image=False, **options)
    finally:
        embedding.fit_low_rank = original
    return seen[0]


def thinned(adata, n=50_000, kept=0.02):
    """Counts as sparse as those of bins, over real genes: spots drawn again and again, one count in fifty kept."""
    rng = np.random.default_rng(0)
    drawn = sparse.csr_matrix(adata.X)[rng.integers(adata.n_obs, size=n)]
    drawn.data = rng.binomial(drawn.data.astype(np.int64), kept).astype(np.float32)
    drawn.eliminate_zeros()
    return normalise(drawn)


def krylov(matrix):
    return fit_low_rank(matrix, RANK, max_rows=matrix.shape[0]).basis


def with_svds(matrix):
    mean = np.asarray(matrix.mean(axis=0, dtype=np.float64)).ravel().astype(np.float32)
    whole = aslinearoperator(matrix)
    centred = LinearOperator(
        matrix.shape, dtype=np.float32,
        matvec=lambda x: whole @ x - mean @ x, rmatvec=lambda x: whole.rmatvec(x) - mean * x.sum(),
        matmat=lambda x: whole @ x - mean @ x, rmatmat=lambda x: whole.rmatmat(x) - np.outer(mean, x.sum(axis=0)),
    )  # fmt: skip
    start = np.random.default_rng(0).standard_normal(min(matrix.shape), dtype=np.float32)
    return svds(centred, RANK, v0=start, return_singular_vectors="vh")[2]


def with_sklearn(solver):
    def fit(matrix):
        if matrix.nnz > 0.2 * np.prod(matrix.shape):  # which is faster for them than a sparse one
            matrix = matrix.toarray()
        return PCA(RANK, svd_solver=solver, random_state=0).fit(matrix).components_

    return fit


SOLVERS = {
    "core.expression": krylov,
    "scipy svds": with_svds,
    "PCA arpack": with_sklearn("arpack"),
    "PCA covariance_eigh": with_sklearn("covariance_eigh"),
}


def variance(matrix, basis):
    """Variance that the span of a basis holds."""
    axes = np.linalg.qr(np.asarray(basis, np.float64).T)[0]
    found = matrix.astype(np.float64) @ axes
    return float(found.var(axis=0).sum())


def compare(name, matrix, runs):
    seconds = {solver: [] for solver in SOLVERS}
    bases = {}
    for _ in range(runs):
        for solver, fit in SOLVERS.items():
            if "covariance" in solver and matrix.shape[1] > MOST_GENES:
                continue
            start = time.process_time()
            bases[solver] = fit(matrix)
            seconds[solver].append(time.process_time() - start)
            print(f"{name} {matrix.shape}: {solver}, {seconds[solver][-1]:.2f} s", file=sys.stderr, flush=True)
    held = {solver: variance(matrix, basis) for solver, basis in bases.items()}
    for solver in bases:
        yield {
            "matrix": name,
            "rows": matrix.shape[0],
            "genes": matrix.shape[1],
            "filled": matrix.nnz / np.prod(matrix.shape),
            "solver": solver,
            "seconds": np.median(seconds[solver]),
            "lost": 1 - held[solver] / max(held.values()),
        }


def matrices():
    """Name of each matrix, and how it is made."""
    root = data_root()
    for real in SECTIONS:
        if real.name in {"151673", "her2st A1"}:
            keys = {"total_counts": real.total_counts, "gene_key": real.gene_key}
            yield real.name, lambda real=real, keys=keys: given(real.read(root), **keys)
    # 50,176 bins of 8 µm
    yield "simulated bins", lambda: given(stalign.datasets.toy_hd(side_um=1792, image=False))
    yield "thinned spots", lambda: thinned(SECTIONS[0].read(root))


def main():
    made = dict(matrices())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", choices=list(made))
    arguments = parser.parse_args()
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    names = [arguments.only] if arguments.only else list(made)
    rows = [row for name in names for row in compare(name, made[name](), arguments.runs)]
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3g}".format))


if __name__ == "__main__":
    main()
