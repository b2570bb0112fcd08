"""HiBio-ST through the common trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from stalign.core.pathways import Pathways
from stalign.core.sentences import DocumentFrequencies
from stalign.models import load
from stalign.models.gene_tokens import GeneTokens
from stalign.train import fit, history
from stalign.train.assemble import assemble
from stalign.train.config import DataConfig, OptimConfig, SectionSpec
from stalign.train.dryrun import dry_run
from stalign.train.hibio_module import HiBioModule
from stalign.train.overlaps import overlaps
from stalign.train.slides import Slide

MODEL = {
    "base": "hibio-mini",
    "image": {"kind": "conv", "channels": [8, 8, 16, 16]},
    "text": {"width": 16, "layers": 1, "heads": 2, "context": 40},
    "dim": 16,
    "head_hidden": 16,
    "input": {"px": 16},
    "sentence": {"length": 24},
    "pathways": {"min_genes": 5, "n_negatives": 8},
    "regions": {"start": 1, "every": 1, "sections_per_batch": 1},
}


@pytest.fixture
def sets(toy2, tmp_path):
    """Thirty sets of 20 genes, in a file."""
    rng = np.random.default_rng(0)
    genes = list(toy2.var_names)
    lines = ["\t".join([f"set {i}", "made up", *rng.choice(genes, 20, replace=False)]) for i in range(30)]
    (tmp_path / "sets.gmt").write_text("\n".join(lines))
    return tmp_path / "sets.gmt"


@pytest.fixture
def small(tiny, sets):
    """The configuration of a run of HiBio-ST; keywords replace parts of it."""

    def make(**changes):
        model = {**MODEL, **changes.pop("model", {})}
        data = DataConfig(min_spots=20, pathways=str(sets), **changes.pop("data", {}))
        return tiny(model=model, data=data, optim=OptimConfig(lr=1e-3, warmup_epochs=0), **changes)

    return make


def test_is_trained_and_its_weights_say_what_they_are(slides, small):
    config = small()
    checkpoint = load(fit(slides, config))
    assert checkpoint.config.kind == "hibio" and checkpoint.config.sentence.length == 24
    log = history(config.out)
    assert np.isfinite(log[["loss/total", "loss/spot", "loss/pathway", "loss/region"]]).all(axis=None)
    weights = checkpoint.config.loss
    expected = weights.spot * log["loss/spot"] + weights.pathway * log["loss/pathway"]
    np.testing.assert_allclose(log["loss/total"], expected + weights.region * log["loss/region"], rtol=1e-5)
    per_epoch = assemble(slides, config).steps_per_epoch
    assert (log["regions"] > 0).tolist() == [step >= per_epoch for step in range(len(log))]
    assert (log["loss/region"] > 0).tolist() == [step >= per_epoch for step in range(len(log))]
    assert log["positive_share"].between(0, 1).all() and (log["target_entropy"] > 0).all()


def test_document_frequencies_are_those_of_all_spots_that_are_used(slides, small):
    run = assemble(slides, small())
    whole = sum(
        (DocumentFrequencies.of(s.reader.expression.counts[s.rows]) for s in run.store.sections[1:]),
        DocumentFrequencies.of(run.store.sections[0].reader.expression.counts[run.store.sections[0].rows]),
    )
    np.testing.assert_array_equal(run.module.network.idf.numpy(), whole.idf())


def test_sections_without_an_image_count_for_document_frequencies_only(toy2, small):
    bare = toy2.copy()
    del bare.uns["spatial"]
    bare.X = bare.X * 2  # other tissue
    bare.obsm["spatial"] = bare.obsm["spatial"] + 7
    both = [Slide(SectionSpec("a.h5ad", library_key="library"), toy2)]
    more = [*both, Slide(SectionSpec("b.h5ad", library_key="library", mpp=1.0), bare)]
    run = assemble(more, small())
    assert len(run.data.train[0]) == 2
    assert not np.array_equal(run.module.network.idf.numpy(), assemble(both, small()).module.network.idf.numpy())
    genes_only = replace(more[-1])
    with pytest.raises(ValueError, match=r"section with image and counts. Found: 2 with one of them"):
        assemble([genes_only], small())


@pytest.mark.parametrize("at", [1, 6])
def test_goes_on_exactly_where_it_was_cut_short_with_its_regions(slides, small, tmp_path, monkeypatch, at):
    config = small(run={"epochs": 3, "checkpoint_every": 1})
    whole = replace(config, out=str(tmp_path / "whole"))
    expected = load(fit(slides, whole)).network.state_dict()
    terms = HiBioModule.terms

    def cut(self, step):
        if self.training and self.global_step == at:
            raise KeyboardInterrupt
        return terms(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(HiBioModule, "terms", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(slides, config)
    again = load(fit(slides, config, resume=True)).network.state_dict()
    columns = ["step", "loss/total", "loss/region", "regions", "temperature"]
    pd.testing.assert_frame_equal(history(config.out)[columns], history(whole.out)[columns], check_exact=True)
    for name, value in expected.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0)


def test_other_gene_sets_are_not_gone_on_with(slides, small, sets):
    config = small()
    fit(slides, config)
    sets.write_text(sets.read_text().replace("set 3\t", "another\t"))
    with pytest.raises(ValueError, match="to be of this run. Found: pathways was"):
        fit(slides, config, resume=True)


def test_a_pathway_term_needs_gene_sets(slides, small):
    config = small()
    none = replace(config, data=replace(config.data, pathways=None))
    with pytest.raises(ValueError, match=r"gene sets in `data.pathways`.*set `loss.pathway = 0`"):
        fit(slides, none)
    with pytest.raises(FileNotFoundError, match="GMT"):
        fit(slides, replace(config, data=replace(config.data, pathways="nowhere.gmt")))
    run = assemble(slides, replace(none, loss={"pathway": 0.0}))
    assert run.module.loss.genes is None


def test_terms_that_are_switched_off_are_zero(slides, small):
    config = small(loss={"pathway": 0.0, "region": 0.0}, run={"epochs": 2})
    fit(slides, config)
    log = history(config.out)
    assert (log[["loss/pathway", "loss/region", "regions"]] == 0).all(axis=None)
    np.testing.assert_allclose(log["loss/total"], log["loss/spot"])


def test_a_dead_pathway_term_is_told_of(slides, small, log):
    fit(slides, small(model={"pathways": {"min_genes": 5, "n_negatives": 8, "overlap": 0.9}}, run={"steps": 1}))
    assert "Only 0 % of spots overlap with a pathway" in log.text


def test_validation_is_logged(slides, small):
    config = small(data={"validation": ("toy_1",)}, run={"epochs": 1})
    fit(slides, config)
    assert history(config.out)["val/spot"].notna().any()


def test_a_dry_run_writes_nothing(slides, small, tmp_path):
    config = small()
    estimate = dry_run(slides, config, steps=1)
    assert estimate.sections == 2 and estimate.steps == 10
    assert not (tmp_path / "run").exists()


def test_organ_and_disease_stand_before_the_genes(toy2, small):
    given = [Slide(SectionSpec("a.h5ad", library_key="library", organ="Brain"), toy2)]
    run = assemble(given, small(model={"sentence": {"length": 24, "metadata": "prefix"}}))
    assert run.module.network.config.words == ("organ:Brain",)
    dataset, plans = run.data.training(0, 1)
    tokens = GeneTokens(run.store.vocabulary.symbols, ("organ:Brain",))
    words = tokens.words(dataset[plans.plan(0)].batch.tokens)
    assert {tuple(sentence[:3]) for sentence in words} == {("[SOT]", "organ:Brain", "[UNK]")}
    assert load(fit(given, replace(small(model={"sentence": {"length": 24, "metadata": "prefix"}})))).config.words


def test_starts_from_weights_gene_by_gene(slides, toy2, small, tmp_path):
    before = load(fit(slides, small(run={"steps": 2})))
    config = replace(
        small(data={"max_genes": 300}, run={"steps": 1}),
        model={"init": str(before.path)},
        out=str(tmp_path / "further"),
    )
    run = assemble(slides, config)
    symbols = run.store.vocabulary.symbols
    place = [before.vocabulary.index(symbol) for symbol in symbols]
    assert len(symbols) == 300 and run.module.network.config.sentence.length == 24
    old, new = (one.text_tower.table.weight.detach() for one in (before.network, run.module.network))
    torch.testing.assert_close(new[4:], old[4:][place], rtol=0, atol=0)
    torch.testing.assert_close(new[:4], old[:4], rtol=0, atol=0)
    assert load(fit(slides, config)).meta["init"]["genes"] == {
        "known": 300,
        "new": 0,
        "left_out": len(before.vocabulary) - 300,
    }


SCRIPT = """
import os, sys, json
from dataclasses import replace
import anndata, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
import stalign as st
from stalign.models.schema import build
from stalign.train.assemble import assemble
from stalign.train.batchnorm import SharedStatistics
from stalign.train.config import SectionSpec, TrainConfig
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
    sampler = replace(config.sampler, batch_size=config.sampler.batch_size // world)
    run = assemble([Slide(SectionSpec("toy.h5ad", library_key="library"), data)], replace(config, sampler=sampler))
    run.module.renewals = frozenset([0])
    run.module.renew(seed=0)
    run.module.__class__.global_step = 1
    dataset, plans = run.data.training(rank, world)
    model = Wrapped(run.module)
    if world > 1:
        model = DistributedDataParallel(SharedStatistics().apply(model), find_unused_parameters=True)
    loss = model(dataset[plans.plan(0)])
    loss.backward()
    loss = loss.detach()
    if world > 1:
        dist.all_reduce(loss.div_(world))
    gradients = {n: p.grad for n, p in run.module.named_parameters() if p.grad is not None}
    return {"loss": loss, "regions": run.module.regions, **gradients}

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
if any(os.waitpid(child, 0)[1] for child in children):
    sys.exit("a process failed")
torch.save(step(0, 1), f"{folder}/one.pt")
"""


def test_two_processes_compute_what_one_does(toy2, small, tmp_path):

    toy2.write_h5ad(tmp_path / "toy.h5ad")
    config = small()
    config = replace(config, sampler=replace(config.sampler, spots_per_section=64))
    command = [sys.executable, "-c", SCRIPT, json.dumps(config.to_dict()), str(tmp_path / "toy.h5ad"), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("one", "two"))
    assert one.keys() == two.keys() and (one["regions"] >= 0).any()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=2e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_images_find_their_own_sentences_after_training(slides, small):
    image = {"kind": "timm", "name": "tf_efficientnet_lite0", "features": 424, "weights": "efficientnet-lite0"}
    model = {"image": {**image, "stages": [3, 4, 5, 6]}, "input": {"px": 32}, "regions": {"start": 100}}
    config = small(model=model, run={"epochs": 30, "checkpoint_every": 1000})
    config = replace(config, optim=replace(config.optim, lr=4e-3, weight_decay=0.0, weight_decay_end=0.0))
    network = load(fit(slides, config)).network
    dataset, plans = assemble(slides, config).data.training(0, 1)
    with torch.no_grad():
        found = [network(dataset[plans.plan(step)].batch) for step in range(plans.steps_per_epoch)]
    cosine = torch.cat([outputs.image for outputs in found]) @ torch.cat([outputs.gene for outputs in found]).T
    rank = (cosine > cosine.diagonal()[:, None]).sum(1)
    recall = (rank < np.ceil(0.1 * len(cosine))).float().mean()
    assert recall > 0.2, recall  # chance is 0.1


def test_overlaps_are_kept_with_the_sections_of_a_run(tmp_path, monkeypatch):
    sets = Pathways.of({"one": ["a", "b"], "two": ["b", "c", "d"]}, list("abcd"), min_genes=1)
    genes = np.array([[0, 1], [3, -1]], dtype=np.int32)
    found = overlaps(sets, genes, tmp_path, above=0.1, largest=None)
    assert (found != sets.overlaps(genes, above=0.1)).nnz == 0
    assert len(list(tmp_path.iterdir())) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Pathways, "overlaps", None)
        assert (overlaps(sets, genes, tmp_path, above=0.1, largest=None) != found).nnz == 0
    other = Pathways.of({"one": ["a", "b"], "two": ["b", "c", "a"]}, list("abcd"), min_genes=1)
    overlaps(sets, genes, tmp_path, above=0.6, largest=None)
    overlaps(sets, genes, tmp_path, above=0.1, largest=1)
    overlaps(sets, genes[:1], tmp_path, above=0.1, largest=None)
    overlaps(other, genes, tmp_path, above=0.1, largest=None)
    assert len(list(tmp_path.iterdir())) == 5
    assert (overlaps(sets, genes, tmp_path / "none", above=0.1, largest=None) != found).nnz == 0
    assert not (tmp_path / "none").exists()
