"""Seconds and peak memory of a slide without spots, from `io.read_slide` to predicted genes.

    OMP_NUM_THREADS=1 python benchmarks/slides.py [--side 20000] [--mpp 0.3] [--spots N] [--jpeg]

The slide is a tiled TIFF that is made of the texture of a real section (her2st C3) in a temporary folder, region by
region: tissue with a rim of glass, which at 0.3 µm per px holds some 3,600 spots of a Visium grid. The reference is
her2st C4 and C5, whose features are computed beforehand, as they stay in the feature cache. Each step is timed in one
process that starts anew.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from image_sections import read
from real import data_root

import stalign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TILE, _RIM, _GLASS = 512, 0.03, (243, 242, 244)


def texture() -> NDArray[np.uint8]:
    """A piece of tissue of her2st C3 at 0.69 µm per px, (2560, 2560, 3)."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    section = read(data_root(), ["C3"])["C3"]
    centre = np.median(section.obsm["spatial"], axis=0).astype(int)
    (image,) = (data_root() / "her2st" / "images").glob("C3*")
    whole = np.asarray(Image.open(image).convert("RGB"))
    y, x = (int(np.clip(c - 1280, 0, side - 2560)) for c, side in zip(centre[::-1], whole.shape, strict=False))
    return whole[y : y + 2560, x : x + 2560].copy()


def tiles(piece: NDArray[np.uint8], side: int) -> Iterator[NDArray[np.uint8]]:
    """Tiles of the slide in order; every second copy of the piece is mirrored, so that there are no edges."""
    rim, span = round(_RIM * side), len(piece)
    place = np.arange(side)
    at = np.abs((place % (2 * span)) - span).clip(0, span - 1)
    glass = (place < rim) | (place >= side - rim)
    for top in range(0, side, _TILE):
        rows = slice(top, min(top + _TILE, side))
        for left in range(0, side, _TILE):
            columns = slice(left, min(left + _TILE, side))
            tile = np.full((_TILE, _TILE, 3), _GLASS, np.uint8)
            part = piece[at[rows]][:, at[columns]].copy()
            part[glass[rows]], part[:, glass[columns]] = _GLASS, _GLASS
            tile[: part.shape[0], : part.shape[1]] = part
            yield tile


def make(path: Path, side: int, mpp: float, compression: str | None) -> None:
    """Write the slide, with its µm per px."""
    import tifffile

    tifffile.imwrite(
        path, tiles(texture(), side), shape=(side, side, 3), dtype=np.uint8, tile=(_TILE, _TILE), bigtiff=True,
        photometric="rgb", compression=compression, resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit="CENTIMETER",
    )  # fmt: skip


def predict(path: Path, spots: int | None) -> dict[str, float]:
    """Go from the file to predicted genes; tell the seconds of each step and the peak memory in GB."""
    stalign.settings.show_progress, stalign.settings.verbosity = False, "error"
    reference = list(read(data_root(), ["C4", "C5"]).values())
    for section in reference:  # into the cache
        stalign.tl.ImageFeatures().of(section, library_key=None, table_key=None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    marks = [(time.perf_counter(), time.process_time())]

    def mark() -> None:
        marks.append((time.perf_counter(), time.process_time()))

    slide = stalign.io.read_slide(path)
    slide = slide if spots is None else slide[:spots].copy()
    mark()
    stalign.tl.ImageFeatures().of(slide, library_key=None, table_key=None)
    mark()
    found = stalign.tl.predict_genes(slide, reference=reference, genes=50)
    mark()
    wall, cpu = (np.diff([pair[i] for pair in marks]) for i in range(2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    steps = ("read", "encode", "predict")
    return {
        "spots": found.n_obs,
        **{f"{name}_s": round(float(value), 1) for name, value in zip(steps, wall, strict=True)},
        **{f"{name}_cpu_s": round(float(value), 1) for name, value in zip(steps, cpu, strict=True)},
        "peak_gb": round(peak / 1024**2, 2),
        "before_gb": round(before / 1024**2, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=20_000, help="px")
    parser.add_argument("--mpp", type=float, default=0.3, help="µm per px")
    parser.add_argument("--spots", type=int, help="only that many spots of the grid")
    parser.add_argument("--jpeg", action="store_true", help="compress the tiles, as scanners do")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.file:
        print(json.dumps(predict(args.file, args.spots)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        start = time.perf_counter()
        make(path, args.side, args.mpp, "jpeg" if args.jpeg else None)
        made = time.perf_counter() - start
        print(f"{args.side:,} x {args.side:,} px, {path.stat().st_size / 1024**3:.2f} GB, made in {made:.0f} s")
        more = [] if args.spots is None else ["--spots", str(args.spots)]
        subprocess.run([sys.executable, __file__, "--file", str(path), *more], check=True)


if __name__ == "__main__":
    main()
