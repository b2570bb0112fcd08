"""Seconds and peak memory of niches and windows on random spots, as a Markdown table.

    python benchmarks/preprocessing.py --spots 10000 100000 1000000

Neighbour search, graph and windows are timed as core functions, and `pp.niches` and `pp.patches` as users call them.
Patches are cut from a random image and compared with a loop over Pillow.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from PIL import Image

import stalign
from stalign._constants import VISIUM_PITCH_UM, VISIUM_SPOT_UM, Keys
from stalign.core.niches import nearest, niche_graph
from stalign.core.patches import cut, niche_windows_um, spot_windows_um

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATCHES = 5000


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that a call takes, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def peak_gb() -> float:
    """Largest memory of the process so far in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def scattered(n: int) -> AnnData:
    """Spots at random in a square that has the density of a Visium slide, in a table with an image of 2048 px."""
    side_um = np.sqrt(n) * VISIUM_PITCH_UM
    coords = np.random.default_rng(0).random((n, 2)) * side_um  # 1 µm per px
    image = np.zeros((2048, 2048, 3), dtype=np.uint8)
    slide = {
        "images": {"hires": image},
        "scalefactors": {"tissue_hires_scalef": 2048 / side_um, "spot_diameter_fullres": VISIUM_SPOT_UM},
        "metadata": {},
    }
    obs = pd.DataFrame(index=pd.RangeIndex(n).astype(str))
    return AnnData(obs=obs, obsm={Keys.SPATIAL: coords}, uns={Keys.UNS_SPATIAL: {"random": slide}})


def steps(n: int) -> Iterator[tuple[str, float]]:
    """Seconds of each step on n spots."""
    adata = scattered(n)
    coords = adata.obsm[Keys.SPATIAL]
    seconds, neighbours = timed(lambda: nearest(coords, 3))
    yield "3 nearest neighbours", seconds
    yield "niche graph", timed(lambda: niche_graph(neighbours))[0]
    seconds, spots = timed(lambda: spot_windows_um(coords, VISIUM_SPOT_UM))
    yield "windows", seconds + timed(lambda: niche_windows_um(spots, neighbours))[0]
    yield "`pp.niches`", timed(lambda: stalign.pp.niches(adata))[0]
    yield (
        "`pp.patches` (niches there)",
        timed(lambda: stalign.pp.patches(adata, mpp=1.0, spot_diameter=VISIUM_SPOT_UM))[0],
    )


def cutting() -> Iterator[tuple[str, float, float]]:
    """Seconds to cut patches, by stalign and by a loop over Pillow."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (4000, 4000, 3), dtype=np.uint8)
    picture = Image.fromarray(image)
    for name, low, high, size in (
        ("spots, 40 px to 28", 40, 40, 28),
        ("niches, 100 to 190 px to 56", 100, 190, 56),
        ("spots, 40 px to 224", 40, 40, 224),
    ):
        corner, side = rng.uniform(0, 3800, (_PATCHES, 2)), rng.uniform(low, high, (_PATCHES, 2))
        windows = np.concatenate([corner, corner + side], axis=1)
        ours, patches = timed(lambda: cut(image, windows, size))  # noqa: B023
        theirs, expected = timed(
            lambda: np.stack(
                [
                    np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=tuple(window)))  # noqa: B023
                    for window in windows  # noqa: B023
                ]
            )
        )
        difference = np.abs(patches.astype(np.int16) - expected).max()
        yield f"{name} px (largest difference {difference} grey levels)", ours, theirs


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    counts = parser.parse_args().spots
    stalign.settings.verbosity = "warning"
    table: dict[str, list[str]] = {}
    for n in counts:
        for name, seconds in steps(n):
            table.setdefault(name, []).append(f"{seconds:.2f}")
        table.setdefault("peak memory of the process, GB", []).append(f"{peak_gb():.2f}")
    print(f"Seconds on {os.cpu_count()} cores, random spots.\n")
    print("| step | " + " | ".join(f"{n:,} spots" for n in counts) + " |")
    print("|---|" + "---:|" * len(counts))
    for name, cells in table.items():
        print(f"| {name} | " + " | ".join(cells) + " |")
    print(f"\nSeconds to cut {_PATCHES:,} patches.\n\n| patches | stalign | loop over Pillow |\n|---|---:|---:|")
    for name, ours, theirs in cutting():
        print(f"| {name} | {ours:.2f} | {theirs:.2f} |")


if __name__ == "__main__":
    main()
