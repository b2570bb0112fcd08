"""Training throughput, time spent waiting for data, and memory as sections are added.

python benchmarks/training.py            # the table of docs/training.md, on simulated sections
python benchmarks/training.py --sections 4 8 --rows 12

Each setting runs in a process of its own, so that its peak memory is its own. Spots per second are over a few measured
steps of `stalign-mini` after one that is not counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FIELDS = ("spots_per_second", "share_waiting", "memory_gb", "spots", "precision")


def measure(folder: str, n_sections: int, store: str, workers: int, steps: int, batch_size: int) -> dict[str, object]:
    """Train a few steps on the first sections of a folder."""
    import stalign as st
    from stalign.train.config import DataConfig, RunConfig, SamplerConfig, TrainConfig
    from stalign.train.dryrun import dry_run

    st.settings.verbosity = "error"
    st.settings.show_progress = False
    config = TrainConfig(
        out=f"{folder}/run",
        data=DataConfig(root=folder, store=store, workers=workers),
        sampler=SamplerConfig(batch_size=batch_size),
        run=RunConfig(devices=1, tensorboard=False),
    )
    paths = sorted(path.name for path in Path(folder).glob("*.h5ad"))[:n_sections]
    estimate = dry_run(paths, config, steps=steps)
    return {name: getattr(estimate, name) for name in FIELDS}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Write the sections, measure each setting, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--rows", type=int, default=20, help="rows of the grid of a section")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(json.dumps(measure(**json.loads(given.one))) + "\n")
        return
    import stalign as st

    say("| store | sections | spots | workers | spots per second | waiting for data | peak memory | precision |")
    say("|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(max(given.sections)):
            section = st.datasets.toy(n_rows=given.rows, seed=i)
            section.uns["spatial"] = {f"toy_{i}": section.uns["spatial"]["toy"]}
            section.write_h5ad(f"{folder}/{i:04d}.h5ad")
        for store in ("memory", "disk"):
            for n in given.sections:
                for workers in given.workers:
                    one = {"folder": folder, "n_sections": n, "store": store, "workers": workers}
                    more = {"steps": given.steps, "batch_size": given.batch_size}
                    command = [sys.executable, __file__, "--one", json.dumps({**one, **more})]
                    done = subprocess.run(command, capture_output=True, text=True, check=True)
                    row = json.loads(done.stdout.splitlines()[-1])
                    cells = [store, n, f"{row['spots']:,}", workers, f"{row['spots_per_second']:.0f}"]
                    cells += [f"{100 * row['share_waiting']:.1f} %", f"{row['memory_gb']:.2f} GB", row["precision"]]
                    say("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
