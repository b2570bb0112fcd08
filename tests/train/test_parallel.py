from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stalign.models.checkpoint import load
from stalign.train import fit, history
from stalign.train.config import AugmentConfig, SectionSpec

# One step through DistributedDataParallel, in two forked processes with gloo.
SCRIPT = """
import json, os, sys
import anndata, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import stalign as st
from stalign.train.batchnorm import SharedStatistics
from stalign.train.config import SectionSpec, TrainConfig
from stalign.models.schema import build
from stalign.train.dataset import SpotDataset
from stalign.train.loaders import make_sampler
from stalign.train.assemble import assemble
from stalign.train.slides import Slide

torch.set_num_threads(1)
st.settings.show_progress = False
config, folder = build(TrainConfig, json.loads(sys.argv[1])), sys.argv[3]
data = anndata.read_h5ad(sys.argv[2])

class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
    def forward(self, batch):
        return self.module.terms(batch)["total"]

def step(rank, world):
    run = assemble([Slide(SectionSpec("toy.h5ad", library_key="library"), data)], config)
    each = type(config.sampler)(config.sampler.batch_size // world, 2, mask_shared_niches=True)
    from dataclasses import replace
    sampler = make_sampler(run.data.train, replace(config, sampler=each), rank=rank, world=world)
    dataset = SpotDataset(run.data.train[0], augment=config.augment, members=True)
    model = Wrapped(run.module)
    if world > 1:
        model = DistributedDataParallel(SharedStatistics().apply(model))
    loss = model(dataset[sampler.plan(0)])
    loss.backward()
    if world > 1:
        dist.all_reduce(loss.detach().div_(world))
    gradients = {n: p.grad for n, p in run.module.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(run.module.named_buffers())}

def parallel(rank):
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found = step(rank, 2)
    if rank == 0:
        torch.save(found, f"{folder}/two.pt")
    dist.destroy_process_group()

children = []
for rank in range(2):
    child = os.fork()
    if not child:
        parallel(rank)
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
if any(codes):
    sys.exit(f"a process failed: {codes}")
torch.save(step(0, 1), f"{folder}/one.pt")
"""


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def holed(toy2, tmp_path):
    """Two sections, of which one has spots without counts, so that not every process has some of these."""
    data = toy2.copy()
    section = np.flatnonzero(data.obs["library"] == "toy_1")
    empty = section[np.argsort(data.obsm["spatial"][section].sum(1))[:12]]
    counts = data.X.tolil()
    counts[empty] = 0
    data.X = counts.tocsr()
    data.write_h5ad(tmp_path / "toy.h5ad")
    return tmp_path / "toy.h5ad"


@pytest.fixture
def comparable(tiny):
    """A run whose random numbers do not depend on how many processes share it: no dropout and no thinning."""
    config = tiny(augment=AugmentConfig(thinning=(1.0, 1.0)))
    even = replace(config.sampler, spots_per_section=64)  # batches that two processes share without a remainder
    return replace(config, model={**config.model, "dropout": 0.0}, sampler=even)


def run(command):
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_two_processes_are_one_of_twice_the_batch(holed, comparable, tmp_path):
    """Loss, gradients and the statistics of batch norms, in training mode."""
    run([sys.executable, "-c", SCRIPT, json.dumps(comparable.to_dict()), str(holed), str(tmp_path)])
    a, b = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert a.keys() == b.keys() and any("image_encoders" in n and n.endswith("running_var") for n in a)
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_torchrun_of_two_has_the_losses_of_one(holed, comparable, tmp_path):
    one = replace(comparable, out=str(tmp_path / "one"), run=replace(comparable.run, steps=3))
    fit([SectionSpec(str(holed), library_key="library")], one)
    changes = [
        f"out={tmp_path / 'two'}",
        f'data.sections=[{{path="{holed}", library_key="library"}}]',
        "sampler.batch_size=32",
        "run.devices=auto",
    ]
    values = one.to_dict()
    values["data"] = {"min_spots": values["data"]["min_spots"]}
    (tmp_path / "run.toml").write_text(toml(values))
    cli = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "stalign.train.cli"]
    done = run([*cli, str(tmp_path / "run.toml"), *changes])
    assert done.stdout.count("Weights:") == 1
    columns = ["step", "lr", "loss/spot", "loss/niche", "loss/cross", "loss/total"]
    np.testing.assert_allclose(history(tmp_path / "two")[columns], history(one.out)[columns], rtol=1e-4)
    a, b = (load(f"{tmp_path / name}/weights").network.state_dict() for name in ("one", "two"))
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def toml(values):
    """Write nested tables without None, each on one line."""

    def one(value):
        if isinstance(value, dict):
            return "{" + ", ".join(f"{k} = {one(v)}" for k, v in value.items() if v is not None) + "}"
        return json.dumps(value)

    return "".join(f"{key} = {one(value)}\n" for key, value in values.items())


def test_several_processes_bear_batches_without_images():
    from stalign.train.config import RunConfig
    from stalign.train.placement import place

    assert place(RunConfig(accelerator="cpu", devices=1)).arguments["strategy"] == "auto"
    two = place(RunConfig(accelerator="cpu", devices=2))
    assert two.arguments["strategy"] == "ddp_find_unused_parameters_true"
    assert place(RunConfig(accelerator="cpu", devices=2, strategy="ddp")).arguments["strategy"] == "ddp"
    assert place(RunConfig(accelerator="cpu", devices=2, num_nodes=3)).world_size == 6


def test_torchrun_says_how_many_processes_there_are(monkeypatch):
    from stalign.train.config import RunConfig
    from stalign.train.placement import place

    for name, value in {
        "TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": "6",
        "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    found = place(RunConfig(accelerator="cpu"))
    assert (found.arguments["devices"], found.arguments["num_nodes"]) == (2, 3)
    assert found.world_size == 6


def test_the_slurm_script_of_the_docs_runs_on_one_machine(holed, comparable, tmp_path, monkeypatch):
    script = Path(__file__).parents[2] / "docs" / "examples" / "train.sbatch"
    if not script.exists() or os.name == "nt":
        pytest.skip("the script of the documentation is not here, or no bash")
    values = comparable.to_dict()
    values["data"] = {"min_spots": values["data"]["min_spots"]}
    (tmp_path / "run.toml").write_text(toml(values))
    out = tmp_path / "run with spaces"
    sections = f'data.sections=[{{path="{holed}", library_key="library"}}]'
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{ENVIRONMENT['PATH']}"
    for name, value in {"PROCESSES": "2", "PORT": "0", "PATH": bin_first}.items():
        monkeypatch.setitem(ENVIRONMENT, name, value)
    more = [f"out={out}", sections, "run.devices=auto", "run.steps=2", "sampler.batch_size=32"]
    run(["bash", str(script), str(tmp_path / "run.toml"), *more])
    assert (out / "weights" / "weights.safetensors").exists() and len(history(out)) == 2
