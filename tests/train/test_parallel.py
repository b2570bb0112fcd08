from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np

from stalign.models.checkpoint import load
from stalign.train import fit, history
from stalign.train.config import AugmentConfig, SectionSpec

# Two forked processes with gloo: first one step through DistributedDataParallel with images, then a whole run.
SCRIPT = """
import json, os, sys
import anndata, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import stalign as st
from stalign.train import fit
from stalign.train.config import SectionSpec, TrainConfig
from stalign.train.parse import build
from stalign.train.dataset import SpotDataset
from stalign.train.loaders import make_sampler
from stalign.train.run import assemble
from stalign.train.slides import Slide

torch.set_num_threads(1)
st.settings.show_progress = False
config, genes = (build(TrainConfig, json.loads(text)) for text in sys.argv[1:3])
folder = sys.argv[4]
data = anndata.read_h5ad(sys.argv[3])

class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
    def forward(self, batch):
        return self.module.terms(batch)["total"]

def step(rank, world):
    run = assemble([Slide(SectionSpec("toy.h5ad", library_key="library"), data)], config)
    run.module.eval()  # batch norm by its running statistics: on the CPU torch cannot share them
    each = type(config.sampler)(config.sampler.batch_size // world, 2, mask_shared_niches=True)
    from dataclasses import replace
    sampler = make_sampler(run.data.train, replace(config, sampler=each), rank=rank, world=world)
    dataset = SpotDataset(run.data.train[0], augment=config.augment, members=True)
    model = Wrapped(run.module)
    if world > 1:
        model = DistributedDataParallel(model)
    loss = model(dataset[sampler.plan(0)])
    loss.backward()
    if world > 1:
        dist.all_reduce(loss.detach().div_(world))
    return {"loss": loss.detach(), **{n: p.grad for n, p in run.module.named_parameters() if p.grad is not None}}

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
fit([Slide(SectionSpec("toy.h5ad", library_key="library", image=False), data)], genes)
torch.save(step(0, 1), f"{folder}/one.pt")
"""


def test_two_processes_are_one_of_twice_the_batch(toy2, tiny, tmp_path):
    import torch

    data = tmp_path / "toy.h5ad"
    toy2.write_h5ad(data)
    config = tiny(augment=AugmentConfig(thinning=(1.0, 1.0)))
    config = replace(config, model={**config.model, "dropout": 0.0})
    even = replace(config.sampler, spots_per_section=64)  # batches that two processes share without a remainder
    genes = replace(config, out=str(tmp_path / "one"), sampler=even, run=replace(config.run, steps=3))
    two = replace(
        genes,
        out=str(tmp_path / "two"),
        sampler=replace(genes.sampler, batch_size=32),
        run=replace(genes.run, devices=2, strategy="ddp_fork_find_unused_parameters_true"),
    )
    texts = [json.dumps(c.to_dict()) for c in (config, two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, *texts, str(data), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr

    a, b = (torch.load(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert a.keys() == b.keys() and any("image_encoders" in name for name in a)
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")

    fit([SectionSpec(str(data), library_key="library", image=False)], genes)
    columns = ["step", "lr", "loss/cross", "loss/total"]
    np.testing.assert_allclose(history(two.out)[columns], history(genes.out)[columns], rtol=1e-4)
    one, both = (load(f"{c.out}/weights").network.state_dict() for c in (genes, two))
    for name in one:
        torch.testing.assert_close(both[name], one[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_several_processes_bear_batches_without_images():
    from stalign.train.config import RunConfig
    from stalign.train.trainer import _placement, world_size

    assert _placement(RunConfig(accelerator="cpu", devices=1))["strategy"] == "auto"
    assert _placement(RunConfig(accelerator="cpu", devices=2))["strategy"] == "ddp_find_unused_parameters_true"
    assert _placement(RunConfig(accelerator="cpu", devices=2, strategy="fsdp"))["strategy"] == "fsdp"
    assert world_size(RunConfig(accelerator="cpu", devices=2, num_nodes=3)) == 6
