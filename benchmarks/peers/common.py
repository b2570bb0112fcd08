"""What the adapters share: they read an h5ad file, and write labels.csv with seconds and memory of each step beside it.

python NAME.py SECTION.h5ad LABELS.csv DOMAINS SEED [RUNS]

It needs anndata alone, as it runs in the environments of the peers.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path

ENOUGH_S = 60  # no further run is started after


def main(*steps):
    """Take a section through `step(adata, n, seed)` each, of which the last returns a label for each spot."""
    import anndata

    section, out, n, seed, *runs = sys.argv[1:]
    read = anndata.read_h5ad(section)
    start, spent = time.perf_counter(), []
    while not spent or (len(spent) < int(*runs or [1]) and time.perf_counter() - start < ENOUGH_S):
        adata = read.copy()
        measured = [measure(step, adata, int(n), int(seed)) for step in steps]
        labels = measured[-1].pop("result")
        spent.append(measured)
    lines = [f"{name},{label}" for name, label in zip(read.obs_names, labels, strict=True)]
    Path(out).write_text("\n".join([",label", *lines]) + "\n")
    told = {"runs": len(spent), "steps": {}}
    for i, step in enumerate(steps):
        told["steps"][step.__name__] = {
            key: statistics.median(run[i][key] for run in spent) for key in ("seconds", "cpu", "gb")
        }
    Path(out).with_suffix(".json").write_text(json.dumps(told))


def measure(step, *given):
    """Result, elapsed and CPU seconds of a call, and the largest resident memory while it ran, in GB."""
    with contextlib.suppress(OSError):  # elsewhere the largest so far
        Path("/proc/self/clear_refs").write_text("5")
    start, worked = time.perf_counter(), sum(os.times()[:4])
    result = step(*given)
    spent = {"seconds": time.perf_counter() - start, "cpu": sum(os.times()[:4]) - worked}
    return {**spent, "gb": _largest_kb() / 1e6, "result": result}


def _largest_kb():
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    return found[0] if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


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
