"""Seconds and memory of each call on a real section, and of niches and windows on a million spots, as Markdown.

    python benchmarks/speed.py --section 151673 --out benchmarks/results/speed.md

The first call pays for what it imports. Rows of a fresh process are medians of five; the start and the end of Python
and all imports are included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import preprocessing
from real import SECTIONS, data_root
from scale import Meter

import stalign
from stalign._constants import Keys

_EMBED = "import stalign as st; st.tl.embed(st.io.read_h5ad({file!r}), image=False, **{counts!r})"


def fresh(*arguments: str) -> float:
    """Seconds of Python in a fresh process, the median of five."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def processes(name: str) -> dict[str, float]:
    """Seconds of what users wait for in a fresh process."""
    real = next(section for section in SECTIONS if section.name == name)
    counts = {"total_counts": real.total_counts, "gene_key": real.gene_key}
    with tempfile.TemporaryDirectory() as folder:
        return {
            "`import stalign`": fresh("-c", "import stalign"),
            "read the section and `tl.embed` without image": fresh(
                "-c", _EMBED.format(file=str(data_root() / real.file), counts=counts)
            ),
            "`stalign demo`": fresh("-m", "stalign", "demo", "--out", folder),
        }


def calls(name: str) -> tuple[int, Meter, str]:
    """Number of spots, seconds and memory of each call, and what the section was embedded from."""
    real = next(section for section in SECTIONS if section.name == name)
    meter = Meter()
    with meter.step("read the section"):
        adata = real.read(data_root())
    with meter.step("`pp.niches`"):
        stalign.pp.niches(adata)
    if any(view.image is not None for view in stalign.data.open_sections(adata)):
        with meter.step("`pp.patches`"):
            stalign.pp.patches(adata)
    with meter.step("`tl.embed`"):
        stalign.tl.embed(adata, total_counts=real.total_counts, gene_key=real.gene_key)
    with meter.step(f"`tl.domains`, {real.n_domains} domains"):
        stalign.tl.domains(adata, real.n_domains)
    with meter.step("`tl.score`"):
        stalign.tl.score(adata, real.truth)
    if Keys.EMBED_IMAGE in adata.obsm:
        with meter.step("`tl.predict_genes`, 50 genes"):
            stalign.tl.predict_genes(adata, genes=50, use_rep="X_stalign_image", total_counts=real.total_counts)
    modality = str(adata.uns[Keys.UNS]["embed"]["sections"]["modality"].iloc[0])
    return adata.n_obs, meter, modality


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--section", default="151673", choices=[section.name for section in SECTIONS])
    parser.add_argument("--spots", type=int, default=1_000_000, help="random spots; 0 leaves them out")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="Markdown file to write to as well")
    options = parser.parse_args()
    started = processes(options.section)
    import torch

    torch.set_num_threads(options.threads)
    stalign.settings.verbosity = "warning"
    stalign.settings.show_progress = False
    n_obs, meter, modality = calls(options.section)
    lines = [
        f"`{options.section}`, {n_obs:,} spots, embedded from: {modality}. {options.threads} threads, "
        f"load {os.getloadavg()[0]:.1f}. Memory is the largest resident size while the step ran.",
        "",
        "| step | seconds | CPU seconds | GB |",
        "|---|---:|---:|---:|",
        *(f"| {name}, in a fresh process | {seconds:.2f} | – | – |" for name, seconds in started.items()),
        *(f"| {name} | {wall:.2f} | {cpu:.2f} | {memory:.2f} |" for name, (cpu, wall, memory) in meter.steps.items()),
    ]
    if options.spots:
        lines += ["", f"{options.spots:,} random spots.", "", "| step | seconds |", "|---|---:|"]
        lines += [f"| {name} | {seconds:.2f} |" for name, seconds in preprocessing.steps(options.spots)]
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
