"""Training on an accelerator: spots a second, share of its peak, waiting, memory, waits in a step, and agreement.

python benchmarks/gpu.py --peak 989            # bf16 TFLOPS of the device, dense: 989 for an H100
python benchmarks/gpu.py --steps 2 --batch-size 16 --rows 8 --networks st-align      # a trial on the CPU

Under ten minutes on one GPU. Sections are made; features of frozen encoders are random arrays. A part that fails is
named with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import stalign as st
from stalign.train.config import DataConfig, RunConfig, SamplerConfig, TrainConfig
from stalign.train.dryrun import dry_run

if TYPE_CHECKING:
    from anndata import AnnData

NETWORKS = ("st-align", "hibio-st", "stalign-small")
WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "cudaStreamSynchronize", "cudaDeviceSynchronize")


def sections(rows: int, n: int = 4) -> list[AnnData]:
    """Make sections with random features of UNI and scGPT."""
    rng, tables = np.random.default_rng(0), []
    for seed in range(n):
        table = st.datasets.toy(n_rows=rows, seed=seed)
        table.obsm["niche_image"] = rng.normal(size=(table.n_obs, 1024)).astype(np.float32)
        table.obsm["spot_gene"] = rng.normal(size=(table.n_obs, 512)).astype(np.float32)
        tables.append(table)
    return tables


def configuration(network: str, tables: list[AnnData], folder: Path, batch_size: int, workers: int) -> TrainConfig:
    """Configure a run of one of the networks."""
    data: dict[str, Any] = {"workers": workers}
    if network == "st-align":
        data["features"] = {name: f"obsm:{name}" for name in ("niche_image", "spot_gene")}
    if network == "hibio-st":
        genes, sets = list(tables[0].var_names), folder / "sets.gmt"
        sets.write_text("\n".join(f"set {i}\t\t" + "\t".join(genes[i::20]) for i in range(20)) + "\n")
        data["pathways"] = str(sets)
    return TrainConfig(
        out=str(folder / network),
        model={"base": network},
        data=DataConfig(**data),
        sampler=SamplerConfig(batch_size=batch_size),
        run=RunConfig(devices=1, tensorboard=False),
    )


def training(network: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Time some steps, count what they compute and how often they wait for the device."""
    tables = sections(given.rows)
    config = configuration(network, tables, folder, given.batch_size, given.workers)
    timed = dry_run(tables, config, steps=given.steps)
    alone = replace(config, data=replace(config.data, workers=0))
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    counts: list[dict[str, float]] = []
    for steps in (0, given.steps):  # the difference is that of the steps between, without those that warm up
        with profile(activities=kinds) as profiled, FlopCounterMode(display=False) as counter:
            dry_run(tables, alone, steps=steps)
        found = {event.key: event.count for event in profiled.key_averages() if event.key in WAITS}
        counts.append({**dict.fromkeys(WAITS, 0), **found, "flops": counter.get_total_flops()})
    per_step = {name: (counts[1][name] - counts[0][name]) / given.steps for name in counts[0]}
    flops = per_step.pop("flops") / timed.seconds_per_step
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    (folder / f"{network}.txt").write_text(profiled.key_averages().table(sort_by=by, row_limit=25))
    return {
        "spots_per_second": timed.spots_per_second,
        "seconds_per_step": timed.seconds_per_step,
        "tflops": flops / 1e12,
        "share_of_peak": flops / 1e12 / given.peak if given.peak else None,
        "share_waiting_for_data": timed.share_waiting,
        "gpu_memory_gb": timed.gpu_memory_gb,
        "memory_gb": timed.memory_gb,
        "precision": timed.precision,
        "waits_per_step": per_step,
    }


def agreement(weights: str, rows: int) -> dict[str, float]:
    """Compare embeddings of the device with the CPU's, in float32: the largest difference in rows of length 1."""
    found = {}
    for device in ("cpu", "cuda" if torch.cuda.is_available() else "cpu"):
        table = st.datasets.toy(n_rows=rows)
        start = time.perf_counter()
        st.tl.embed(table, weights, device=device)
        seconds = time.perf_counter() - start
        unit = {key: table.obsm[key] / np.linalg.norm(table.obsm[key], axis=1, keepdims=True) for key in table.obsm
                if key.startswith("X_stalign")}  # fmt: skip
        if found:
            worst = max(float(np.abs(unit[key] - before).max()) for key, before in found.items())
            return {"largest_difference": worst, "seconds": seconds}
        found = unit
    return {}


def main() -> None:
    """Measure, and print a line of JSON for each part as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="*", default=NETWORKS)
    parser.add_argument("--peak", type=float, default=0.0, help="bf16 TFLOPS of the device, dense")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rows", type=int, default=24, help="rows of the grid of a section")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for the results and the profiles")
    given = parser.parse_args()
    st.settings.verbosity, st.settings.show_progress = "error", False
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        parts = {name: (training, name, given, folder) for name in given.networks}
        parts |= {f"embeddings by {name}": (agreement, name, given.rows) for name in ("stalign-mini", "stalign-small")}
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        with (folder / "gpu.jsonl").open("w") as file:
            for name, (function, *arguments) in parts.items():
                try:
                    row = function(*arguments)
                except Exception as error:  # noqa: BLE001 (an accelerator is lent for minutes: the others go on)
                    traceback.print_exc()
                    row = {"error": f"{type(error).__name__}: {error}"}
                line = json.dumps({"part": name, "device": device, "torch": torch.__version__, **row})
                file.write(line + "\n")
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
