"""CPU seconds to cut patches in one thread, beside those of another version of core/patches.py, as a Markdown table.

    git show <commit>:src/stalign/core/patches.py > /tmp/patches.py
    OMP_NUM_THREADS=1 python benchmarks/cut.py /tmp/patches.py

Each figure is the least of several runs that take turns.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from typing import Any

import numpy as np
from PIL import Image

from stalign.core.patches import cut


def other(path: str) -> Any:
    """`cut` of another version of core/patches.py."""
    spec = importlib.util.spec_from_file_location("other_patches", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cut


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spots", type=int, default=3600)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("other", help="the other version of core/patches.py")
    options = parser.parse_args()
    spots, before = options.spots, other(options.other)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((5000, 5000), Image.Resampling.BICUBIC))
    print(f"{spots:,} patches, {os.cpu_count()} cores, one thread.\n")
    print("| patches | other, s | this, s | other / this | largest difference |\n|---|---:|---:|---:|---:|")
    for name, low, high, size in (
        ("spot, 80 px to 28", 80, 80, 28),
        ("niche, 300 px to 56, of which `SectionImage` halves the image first: 150 px to 56", 150, 150, 56),
        ("niche, 300 px to 56", 240, 330, 56),
        ("224 µm at 0.5 µm per px, 448 px to 224", 448, 448, 224),
        ("224 µm at 1 µm per px, 224 px to 224", 224, 224, 224),
    ):
        corner, side = rng.uniform(20, 4500, (spots, 2)), rng.uniform(low, high, (spots, 2))
        windows = np.concatenate([corner, corner + side], axis=1)
        seconds: dict[str, list[float]] = {"other": [], "this": []}
        for _ in range(options.runs):
            for label, work in (("other", before), ("this", cut)):
                start = time.process_time()
                patches = [work(image, windows[first : first + 256], size) for first in range(0, spots, 256)]
                seconds[label].append(time.process_time() - start)
                if label == "other":
                    earlier = np.concatenate(patches)
        off = np.abs(earlier.astype(np.int16) - np.concatenate(patches)).max()
        a, b = min(seconds["other"]), min(seconds["this"])
        print(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.2f} | {off} grey levels |", flush=True)


if __name__ == "__main__":
    main()
