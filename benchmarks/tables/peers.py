"""Other methods side by side: each in an environment of its own, on the same sections and seeds."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.features import weights_sha256
from benchmarks.real import IGNORED
from benchmarks.sections import find
from benchmarks.seen import seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from benchmarks.config import Config
    from benchmarks.sections import Section

TITLE = "Peers side by side"
NOTE = """\
Each peer is installed into an environment of its own from `benchmarks/peers/NAME.txt`, and run by
`benchmarks/peers/run_NAME.py` as its documentation says, with the number of labels as the number of domains where it
takes one. Seconds are elapsed ones of the method without reading files, GB is the largest resident memory while it
ran. `niche_mean` is the baseline without a network, cut by one tied mixture; `stalign` is `tl.embed` and `tl.domains`
with the packaged weights from genes alone, in a process of its own as well. Three seeds; one of graphst, and of stagate
on 151510, which take minutes each. A peer that cannot be installed is listed with the last line of pip."""
COMMAND = "python -m benchmarks run peers --peers banksy spagcn cellcharter graphst stagate novae"
ALONE = True  # as seconds are measured
SEEDS = 3
SEEDS_OF = {"graphst": 1}  # takes minutes
BEST = {"seconds": "min", "CPU seconds": "min", "GB": "min"}
HERE = Path(__file__).resolve().parents[1] / "peers"
OWN = ("niche_mean", "stalign", "scanpy", "squidpy")  # are in the environment of stalign
INSTALLED = ("banksy", "spagcn", "cellcharter", "graphst", "stagate", "novae")  # when named
NO_DOMAINS = {"lazyslide": "embeds tiles of whole-slide images; has no domains of a table of counts"}
PEERS = (*OWN, *INSTALLED, *NO_DOMAINS)
ASKED = ("151510", "mob rep2")
LIMIT_S = 3600
WEIGHTS = "stalign-mini"  # of `run_stalign.py`


def cells(config: Config) -> Iterator[Cell]:
    unknown = sorted(set(config.peers) - set(PEERS))
    if unknown:
        raise SystemExit(f"Expected --peers among {', '.join(PEERS)}; found {', '.join(unknown)}.")
    for name in config.slices or ASKED:
        for peer in PEERS:
            for seed in config.seeds_or(SEEDS_OF.get(peer, SEEDS)):
                yield _cell(peer, name, seed, config)


def _cell(peer: str, name: str, seed: int, config: Config) -> Cell:
    def compute() -> dict[str, float]:
        section = find(name, config)
        if peer in NO_DOMAINS:
            raise Missing(NO_DOMAINS[peer])
        return run(peer, section, seed, config)

    shared = {}
    try:
        section = find(name, config)
    except Missing:
        pass
    else:
        shared = {"data": section.sha256}
        if peer == "stalign":
            known = seen(WEIGHTS, section.own_name, section.donor, section.study)
            shared |= {"weights": weights_sha256(WEIGHTS), "seen": known}
    return Cell(peer, name.partition("@")[0], compute, seed, **shared)


def run(peer: str, section: Section, seed: int, config: Config) -> dict[str, float]:
    """Run a peer on a section in a process of its own, and score its domains."""
    given = peer, python_of(peer, config), written(section, config.cache), section.n_domains, seed
    labels, spent = measured(*given, limit=config.limit or LIMIT_S)
    adata = section.read()
    adata.obs["peer"] = pd.Categorical(labels.reindex(adata.obs_names))
    score = stalign.tl.score(adata, section.truth, key="peer", ignore=IGNORED).iloc[-1]
    del adata.obs["peer"]
    return {"ARI": score["ARI"], "NMI": score["NMI"], **used(spent["steps"].values())}


def used(steps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of some steps together, and the largest memory of any."""
    steps = list(steps)
    sums = {name: sum(step[key] for step in steps) for name, key in (("seconds", "seconds"), ("CPU seconds", "cpu"))}
    return {**sums, "GB": max(step["gb"] for step in steps)}


def python_of(peer: str, config: Config) -> str:
    """Python of the environment of a peer, which is made where it is named."""
    if peer in OWN:
        return sys.executable
    if peer not in config.peers:
        raise Missing(f"is installed, up to some GB, when it is named with `--peers {peer}`")
    return environment(peer, config.cache)


def measured(
    peer: str, python: str, file: Path, n: int, seed: int = 0, *, runs: int = 1, limit: int = LIMIT_S
) -> tuple[pd.Series, dict[str, Any]]:
    """Labels of a peer that runs in a process of its own, and seconds and memory of each step, medians over runs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "labels.csv"
        command = [python, str(HERE / f"run_{peer}.py"), str(file), str(out), str(n), str(seed), str(runs)]
        how = {"capture_output": True, "text": True, "timeout": limit, "preexec_fn": _bound_memory}
        try:
            done = subprocess.run(command, check=False, **how)
        except subprocess.TimeoutExpired:
            raise Missing(f"took more than {limit} s; `--limit SECONDS` lets it run on") from None
        if done.returncode < 0:
            raise Missing(f"was ended by signal {-done.returncode}, most likely for want of memory")
        if done.returncode or not out.is_file():
            raise Missing(f"failed: {_last(done.stderr)}")
        labels = pd.read_csv(out, index_col=0, dtype={"label": str})["label"]
        labels.index = labels.index.astype(str)
        return labels, json.loads(out.with_suffix(".json").read_text())


def _bound_memory() -> None:
    """Keep a process within four fifths of the memory that is free, so that it fails and nothing else does."""
    file = Path("/proc/meminfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    for line in lines:
        if line.startswith("MemAvailable"):
            free = int(line.split()[1]) * 1024 * 4 // 5
            resource.setrlimit(resource.RLIMIT_DATA, (free, free))


@cache
def written(section: Section, cache: Path) -> Path:
    """Write the counts, positions and nothing else of a section for the peers."""
    import anndata

    adata = section.read()
    file = cache / "peers" / f"{section.sha256[:16]}.h5ad"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        columns = [name for name in ("array_row", "array_col", section.real.total_counts) if name in adata.obs]
        plain = anndata.AnnData(
            adata.X, obs=adata.obs[columns], var=adata.var[[]], obsm={"spatial": adata.obsm["spatial"]}
        )
        if section.real.gene_key:
            plain.var_names = adata.var[section.real.gene_key].astype(str).to_numpy()
            plain.var_names_make_unique()
        if section.real.total_counts:
            plain.obs["total_counts"] = adata.obs[section.real.total_counts]
        plain.write_h5ad(file)
    return file


@cache
def environment(peer: str, cache: Path) -> str:
    """Make the environment of a peer; return its Python, or raise `Missing` with what pip said."""
    folder = cache / "peers" / peer
    python, done, failed = folder / "bin" / "python", folder / "installed", folder.with_suffix(".failed")
    wanted = (HERE / f"{peer}.txt").read_text()
    if done.is_file() and done.read_text() == wanted:
        return str(python)
    if failed.is_file() and failed.read_text().startswith(wanted):
        raise Missing(f"does not install: {failed.read_text()[len(wanted) :]} (delete {failed.name} to try again)")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise Missing(f"no environment can be made: {_last(made.stderr or made.stdout)}")
    command = [str(python), "-m", "pip", "install", "--quiet", "-r", str(HERE / f"{peer}.txt")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        why = _last(found.stderr)
        failed.write_text(wanted + why)
        raise Missing(f"does not install: {why}")
    done.write_text(wanted)
    return str(python)


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("[notice]")]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["no message"])[-1][:300]
