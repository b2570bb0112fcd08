"""Training throughput, time spent waiting for data, and memory as sections are added.

python benchmarks/training.py --out benchmarks/results/training.md     # the table of the documentation
python benchmarks/training.py --mob ../shared/data/mob --sections 10   # real sections, each many times over
python benchmarks/training.py --paper --peak 989                       # st-align on a GPU of 989 bf16 TFLOPS

Each setting runs in a process of its own, so that its memory is its own. Spots per second are over the measured steps
after one that is not counted. Peak memory is the largest resident size of the main process, which counts pages of
mapped files that the system may take back at any time; what is its own at the end is given beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

FIELDS = ("spots_per_second", "share_waiting", "memory_gb", "gpu_memory_gb", "seconds_per_step", "spots", "precision")
HEAD = "| store | sections | spots | spots per second | waiting for data | peak memory | own memory | opened in |"


def measure(folder: str, n_sections: int, store: str, workers: int, steps: int, batch_size: int) -> dict[str, Any]:
    """Train a few steps on the first sections of a folder."""
    import stalign as st
    from stalign.train.config import DataConfig, RunConfig, SamplerConfig, TrainConfig
    from stalign.train.dryrun import dry_run

    st.settings.verbosity = "error"
    st.settings.show_progress = False
    config = TrainConfig(
        out=f"{folder}/run-{store}",
        data=DataConfig(root=folder, store=store, workers=workers),
        sampler=SamplerConfig(batch_size=batch_size),
        run=RunConfig(devices=1, tensorboard=False),
    )
    paths = sorted(str(path.relative_to(folder)) for path in Path(folder).glob("*/*.h5ad"))[:n_sections]
    start = time.perf_counter()
    estimate = dry_run(paths, config, steps=steps)
    seconds = time.perf_counter() - start
    row = {name: getattr(estimate, name) for name in FIELDS}
    return {**row, "opened": seconds - row["seconds_per_step"] * (steps + 1), "own": _own_memory()}


def measure_paper(folder: str, steps: int, batch_size: int, peak: float) -> dict[str, Any]:
    """Train `st-align` a few steps, UNI and scGPT features given as random arrays, and count what a step computes."""
    import numpy as np
    from torch.utils.flop_counter import FlopCounterMode

    import stalign as st
    from stalign.train.config import DataConfig, RunConfig, SamplerConfig, TrainConfig
    from stalign.train.dryrun import dry_run

    st.settings.verbosity = "error"
    st.settings.show_progress = False
    rng = np.random.default_rng(0)
    tables = []
    for i in range(4):
        table = st.datasets.toy(n_rows=24, seed=i)
        table.obsm["niche_image"] = rng.normal(size=(table.n_obs, 1024)).astype(np.float32)
        table.obsm["spot_gene"] = rng.normal(size=(table.n_obs, 512)).astype(np.float32)
        tables.append(table)
    config = TrainConfig(
        out=f"{folder}/paper",
        model={"base": "st-align"},
        data=DataConfig(features={name: f"obsm:{name}" for name in ("niche_image", "spot_gene")}, workers=2),
        sampler=SamplerConfig(batch_size=batch_size),
        run=RunConfig(devices=1, tensorboard=False),
    )
    row = {name: getattr(dry_run(tables, config, steps=steps), name) for name in FIELDS}
    with FlopCounterMode(display=False) as counter:
        dry_run(tables, replace(config, data=replace(config.data, workers=0)), steps=0)  # one step
    row["tflops"] = counter.get_total_flops() / batch_size * row["spots_per_second"] / 1e12
    row["share"] = row["tflops"] / peak if peak else None
    return row


def lay_out(folder: Path, n_sections: int, mob: Path | None, rows: int) -> str:
    """Write sections to a folder of their own each, simulated or linked, and say what they are."""
    import stalign as st

    for i in range(n_sections):
        here = folder / f"{i:04d}"
        here.mkdir()
        if mob is None:
            section = st.datasets.toy(n_rows=rows, seed=i)
            section.uns["spatial"] = {f"toy_{i}": section.uns["spatial"]["toy"]}
            section.write_h5ad(here / "toy.h5ad")
        else:
            for file in mob.iterdir():
                if file.suffix != ".h5ad" or file.stem == ("rep1", "rep2")[i % 2]:
                    (here / file.name).symlink_to(file.resolve())
    return f"simulated sections of {rows} rows" if mob is None else "two sections of olfactory bulb, again and again"


def in_a_process(what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a function of this script in a process of its own."""
    command = [sys.executable, __file__, "--one", json.dumps([what, arguments])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def tables(given: argparse.Namespace) -> list[str]:
    """Measure each setting; return lines of Markdown."""
    with tempfile.TemporaryDirectory(dir=given.scratch) as name:
        if given.paper:
            more = {"steps": given.steps, "batch_size": given.batch_size, "peak": given.peak}
            row = in_a_process("paper", {"folder": name, **more})
            share = "" if row["share"] is None else f" ({100 * row['share']:.0f} % of {given.peak:g})"
            memory = row["gpu_memory_gb"] or row["memory_gb"]
            return [
                f"`st-align`, batch {given.batch_size}, {row['precision']}: "
                f"{row['spots_per_second']:.1f} spots per second, "
                f"{row['tflops']:.3g} TFLOPS{share}, {100 * row['share_waiting']:.1f} % of the time waiting for data, "
                f"{memory:.1f} GB."
            ]
        what = lay_out(Path(name), max(given.sections), given.mob, given.rows)
        lines = []
        for store in ("memory", "disk"):
            for n in given.sections:
                one = {"folder": name, "n_sections": n, "store": store, "workers": given.workers}
                row = in_a_process("mini", {**one, "steps": given.steps, "batch_size": given.batch_size})
                cells = [store, n, f"{row['spots']:,}", f"{row['spots_per_second']:.0f}"]
                cells += [f"{100 * row['share_waiting']:.1f} %", f"{row['memory_gb']:.2f} GB", f"{row['own']:.2f} GB"]
                lines.append("| " + " | ".join(map(str, [*cells, f"{row['opened']:.0f} s"])) + " |")
                sys.stderr.write(lines[-1] + "\n")
    load = os.getloadavg()[0]
    note = (
        f"`stalign-mini`, {what}; batch {given.batch_size}, {row['precision']}, {given.workers} worker, "
        f"{given.steps} measured steps, {os.cpu_count()} cores, load {load:.0f}. Spots per second depend on the load; "
        "shares and memory hardly do."
    )
    return [note, "", HEAD, "|---" * 8 + "|", *lines]


def _own_memory() -> float:
    """Memory of this process that is not a mapped file, GB; Linux only."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return float("nan")
    found = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(found.split()[1]) / 1024**2


def main() -> None:
    """Write or print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--rows", type=int, default=20, help="rows of the grid of a simulated section")
    parser.add_argument("--mob", type=Path, help="folder of the olfactory bulb, for real sections")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--paper", action="store_true", help="measure st-align instead")
    parser.add_argument("--peak", type=float, default=0.0, help="bf16 TFLOPS of the device, dense")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--scratch", help="where sections are written")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        what, arguments = json.loads(given.one)
        row = (measure_paper if what == "paper" else measure)(**arguments)
        sys.stdout.write(json.dumps(row) + "\n")
        return
    text = "\n".join(tables(given)) + "\n"
    if given.out is None:
        sys.stdout.write(text)
    else:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
