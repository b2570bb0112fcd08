"""Niches of 80 µm at every size of bins: effective spread, error against all pairs, seconds and memory.

python benchmarks/niches_um.py
"""

from __future__ import annotations

import resource
import time

import numpy as np
from scipy import sparse

from stalign.core.gaussian import gaussian_mean, spread

SIGMA, SCORES = 80.0, 50


def lattice(pitch: float, n: int) -> np.ndarray:
    side = int(np.ceil(np.sqrt(n)))
    return np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2)[:n] * float(pitch)


def cases():
    for pitch, n in ((200, 2000), (100, 5000), (25, 50_000), (16, 130_000), (8, 500_000), (2, 500_000)):
        yield f"{pitch} µm", lattice(pitch, n)
    for n in (10_000, 50_000, 200_000):
        yield "8 µm", lattice(8, n)
    yield "cells", np.random.default_rng(0).uniform(0, 5500, (300_000, 2))


def main() -> None:
    print("| positions | n | way | spread, µm | rms error, % | seconds | peak memory, GB |")
    print("|---|---|---|---|---|---|---|")
    for name, coords in cases():
        rng = np.random.default_rng(1)
        members = rng.random(len(coords)) > 0.3
        values = (rng.normal(size=(len(coords), SCORES)) + np.sin(coords[:, :1] / 90)).astype(np.float32)
        start = time.perf_counter()
        mean = gaussian_mean(coords, SIGMA, members=members)
        means = mean @ values
        seconds = time.perf_counter() - start
        error = 0.0
        if not sparse.issparse(mean):
            rows = rng.choice(len(coords), 100, replace=False)
            exact = mean.rows(rows) @ values
            error = 100 * float(np.sqrt(np.square(means[rows] - exact).mean()) / means.std())
        way = "pairs" if sparse.issparse(mean) else "grid"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        width = spread(mean, coords)
        cells = name, f"{len(coords):,}", way, f"{width:.1f}", f"{error:.3f}", f"{seconds:.1f}", f"{memory:.2f}"
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
