"""Peak memory and seconds of cutting patches out of a large image file: decoded whole, and read by region.

    python benchmarks/image_memory.py --side 40000 --kind tiff

The image is made in a temporary folder. Each way runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

_TILE, _PATCHES, _BATCH = 512, 3600, 64


def make(path: Path, side: int) -> None:
    """Write an image of coloured texture: a tiled TIFF without smaller levels, or a JPEG."""
    rng = np.random.default_rng(0)
    tile = np.kron(rng.integers(90, 250, (64, 64, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    if path.suffix == ".tif":
        import tifffile

        tiles = (np.roll(tile, i % 101, axis=0) for i in range((-(-side // _TILE)) ** 2))
        options = {"compression": "jpeg", "photometric": "rgb", "bigtiff": True}
        tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, tile=(_TILE, _TILE), **options)
        return
    import imagecodecs

    raw = np.memmap(path.with_suffix(".raw"), np.uint8, "w+", shape=(side, side, 3))
    row = np.tile(tile, (1, -(-side // _TILE), 1))[:, :side]
    for top in range(0, side, _TILE):
        raw[top : top + _TILE] = row[: side - top]
    path.write_bytes(imagecodecs.jpeg8_encode(raw, level=85))
    path.with_suffix(".raw").unlink()


def cut(path: Path, way: str, frame: int) -> dict[str, float]:
    """Cut the patches; give seconds and peak memory in GB."""
    from stalign.core.patches import cut
    from stalign.data.image_files import level_sizes
    from stalign.data.images import SectionImage

    start = time.perf_counter()
    height, width = level_sizes(path)[frame]
    corner = np.random.default_rng(0).random((_PATCHES, 2)) * [width - 80, height - 80]
    windows = np.concatenate([corner, corner + 80], axis=1)
    if way == "whole":
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = None
        if path.suffix == ".tif":
            import tifffile

            pixels = tifffile.imread(path)
        else:
            pixels = np.asarray(Image.open(path))
        for first in range(0, _PATCHES, _BATCH):
            cut(pixels, windows[first : first + _BATCH], 28)
    else:
        image = SectionImage("image", path, 1.0, (0.0, 0.0), 1.0, (height, width), frame=frame)
        order = image.reading_order(windows)
        for first in range(0, _PATCHES, _BATCH):
            image.patches(windows[order[first : first + _BATCH]], 28)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"seconds": time.perf_counter() - start, "peak_gb": peak}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--kind", choices=["tiff", "jpeg"], default="tiff")
    parser.add_argument("--ways", nargs="+", default=["whole", "region"])
    parser.add_argument("--worker", nargs=3, metavar=("FILE", "WAY", "FRAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(cut(Path(options.worker[0]), options.worker[1], int(options.worker[2]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("image.tif" if options.kind == "tiff" else "image.jpg")
        make(path, options.side)
        print(
            f"{_PATCHES:,} patches of {options.side:,} x {options.side:,} px ({options.kind}), "
            f"{os.cpu_count()} cores.\n"
        )
        print("| way | s | peak GB |\n|---|---:|---:|")
        for way in options.ways:
            name, frame = way.split("@")[0], way.split("@")[1] if "@" in way else "0"
            command = [sys.executable, __file__, "--worker", str(path), name, frame]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            try:
                found = json.loads(done.stdout)
                print(f"| {way} | {found['seconds']:.0f} | {found['peak_gb']:.2f} |", flush=True)
            except json.JSONDecodeError:
                print(f"| {way} | failed: {done.stderr.strip().splitlines()[-1:] or done.returncode} | |", flush=True)


if __name__ == "__main__":
    main()
