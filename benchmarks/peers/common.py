"""What the adapters share: they read an h5ad file, and write labels.csv with seconds and peak memory beside it.

python NAME.py SECTION.h5ad LABELS.csv DOMAINS SEED

It needs anndata alone, as it runs in the environments of the peers.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path


def main(domains):
    """Run `domains(adata, n, seed)`, which returns a label for each spot."""
    import anndata

    section, out, n, seed = sys.argv[1:5]
    adata = anndata.read_h5ad(section)
    start = time.perf_counter()
    labels = domains(adata, int(n), int(seed))
    seconds = time.perf_counter() - start
    lines = [f"{name},{label}" for name, label in zip(adata.obs_names, labels, strict=True)]
    Path(out).write_text("\n".join([",label", *lines]) + "\n")
    gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    Path(out).with_suffix(".json").write_text(json.dumps({"seconds": seconds, "gb": gb}))


def normalised(adata, scanpy):
    """log1p of counts per 10,000, by the totals over all genes where they are known."""
    import numpy as np
    from scipy import sparse

    adata = adata.copy()
    totals = adata.obs["total_counts"] if "total_counts" in adata.obs else np.asarray(adata.X.sum(axis=1)).ravel()
    scale = sparse.diags(1e4 / np.maximum(np.asarray(totals, dtype=float), 1.0))
    adata.X = (scale @ sparse.csr_matrix(adata.X, dtype=float)).tocsr()
    scanpy.pp.log1p(adata)
    return adata


def at_resolution(cluster, n, low=0.01, high=4.0, steps=20):
    """Labels of `cluster(resolution)` with n clusters, or as near as bisection comes."""
    for _ in range(steps):
        middle = (low + high) / 2
        labels = cluster(middle)
        found = len(set(labels))
        if found == n:
            break
        low, high = (middle, high) if found < n else (low, middle)
    return labels
