"""What a dry run says of time and memory, beside the run itself, at three sizes.

python benchmarks/dry_run.py FOLDER            # FOLDER holds the sections that configs/stalign-mini.toml names
python benchmarks/dry_run.py FOLDER --cpu      # on a machine that others use: CPU seconds of the main process

Memory is watched from outside too: what is resident of the main process, and what its workers do not share.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "configs" / "stalign-mini.toml"
SIZES = {  # what of the recipe is trained on, and how
    "small": ["data.exclude=['*her2st*', '*dlpfc*', '*colon*', '*embryo*']", "data.workers=0", "sampler.batch_size=32"],
    "middle": ["data.exclude=['*her2st*', '*colon*']", "data.workers=1", "sampler.batch_size=64"],
    "large": ["data.workers=2", "sampler.batch_size=64"],
}
CODE = """
import json, sys, time
import lightning.pytorch, tensorboard
from stalign.train import fit, load_config
from stalign.train.dryrun import dry_run
if sys.argv[4] == "cpu":
    time.perf_counter = time.process_time
config, start = load_config(sys.argv[2], json.loads(sys.argv[3])), time.perf_counter()
if sys.argv[1] == "dry":
    found = dry_run(None, config)
    print(json.dumps({"seconds": 3600 * found.hours, "memory": found.memory_gb, "of": found.seconds}))
else:
    fit(None, config)
    print(json.dumps({"seconds": time.perf_counter() - start}))
"""


def measured(kind: str, overrides: list[str], clock: str) -> dict[str, object]:
    """Start a dry or a real run, and watch the memory of all of its processes from outside."""
    command = [sys.executable, "-c", CODE, kind, str(RECIPE), json.dumps(overrides), clock]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, tree = 0.0, psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, (_resident(tree) + sum(map(_own, _children(tree)))) / 1024**3)
        time.sleep(0.5)
    text = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"The {kind} run failed")
    found = json.loads(text.splitlines()[-1])
    return {"watched": peak, "took": time.perf_counter() - start, **found}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _own(process: psutil.Process) -> int:
    """Return the memory of a process that no other shares."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    parser.add_argument("--cpu", action="store_true", help="measure CPU seconds of the main process")
    parser.add_argument("--steps", type=int, default=200, help="of the real run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "dry-run.json")
    given = parser.parse_args()
    rows = []
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as folder:
            common = [
                *SIZES[size], f"data.root='{given.folder}'", f"run.steps={given.steps}", f"out='{folder}/run'",
                "data.validation=['mob-rep2']", "run.checkpoint_every=10", "run.keep_best=true",
                "run.precision='32-true'",
            ]  # fmt: skip
            dry, real = (measured(kind, common, "cpu" if given.cpu else "wall") for kind in ("dry", "real"))
        rows.append({"size": size, "dry": dry, "real": real})
        print(json.dumps(rows[-1]), flush=True)
        given.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
