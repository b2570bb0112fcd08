from __future__ import annotations

import json
import time
from importlib import import_module

import numpy as np
import pytest
import torch

import stalign as st
from stalign.models.checkpoint import load, save
from stalign.models.network import STAlign
from stalign.train import TrainConfig, finetune
from stalign.train.module import AlignModule
from stalign.train.network_config import model_config

finetune_module = import_module("stalign.train._finetune")


@pytest.fixture(scope="module")
def weights(toy2, tiny_model, tmp_path_factory):
    """Weights of a tiny network that has not been trained."""
    torch.manual_seed(0)
    network = STAlign(model_config(TrainConfig(name="tiny", model=tiny_model)), toy2.n_vars)
    return save(tmp_path_factory.mktemp("weights"), network, vocabulary=toy2.var_names, meta={"licence": "MIT"})


@pytest.mark.parametrize(
    ("modality", "train_images"), [("both", False), ("both", True), ("gene", False), ("image", False)]
)
def test_lowers_the_held_out_loss(toy2, weights, modality, train_images, tmp_path):
    before = toy2.copy()
    out = tmp_path / "mine" if modality == "gene" else None
    mine = finetune(
        toy2,
        weights,
        modality=modality,
        train_images=train_images,
        epochs=4,
        lr=2e-2,
        batch_size=64,
        library_key="library",
        random_state=0,
        out=out,
    )
    record = mine.meta["finetune"]
    assert record["held_out_loss"][1] < record["held_out_loss"][0]
    assert record["sections"] == ["toy_1", "toy_2"] and record["modality"] == modality
    assert mine.meta["licence"] == "MIT" and mine.vocabulary == tuple(toy2.var_names)
    assert set(toy2.obsm) == set(before.obsm) and list(toy2.obs) == list(before.obs)
    one, other = load(weights).network.state_dict(), mine.network.state_dict()
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    assert any("image_encoders" in n and "tokens" in n for n in changed) == (modality != "gene")
    assert any("backbone" in n for n in changed) == train_images
    assert any("gene_table" in n for n in changed) == (modality != "image")
    st.tl.embed(toy2, weights=mine, library_key="library", image=modality != "gene", genes=modality != "image")
    embedding = toy2.obsm.pop("X_stalign")
    assert np.isfinite(embedding).all()
    if out is not None:
        st.tl.embed(toy2, weights=out, library_key="library", image=False)
        np.testing.assert_array_equal(toy2.obsm["X_stalign"], embedding)
        assert load(out).sha256 == mine.sha256
    for slot in ("obsm", "obs", "uns"):
        for key in set(getattr(toy2, slot)) - set(getattr(before, slot)):
            del getattr(toy2, slot)[key]
    toy2.obsp.clear()


def test_same_seed_same_weights_and_the_best_state_is_kept(toy2, weights):
    options = {"modality": "gene", "batch_size": 64, "library_key": "library"}
    a, b = (finetune(toy2, weights, epochs=2, random_state=1, **options) for _ in range(2))
    assert a.sha256 == b.sha256 != load(weights).sha256
    # A learning rate that destroys the weights: the state from before is what is left.
    c = finetune(toy2, weights, epochs=3, lr=1e3, patience=1, random_state=1, **options)
    assert c.meta["finetune"]["step"] == 0
    one, other = load(weights).network.state_dict(), c.network.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_time_is_kept(toy2, weights):
    mine = finetune(
        toy2, weights, modality="gene", epochs=10_000, patience=10_000, max_seconds=1, library_key="library"
    )
    assert mine.meta["finetune"]["step"] < 5_000


def test_all_of_the_time_counts(toy2, weights, monkeypatch, log):
    options = {"modality": "gene", "epochs": 10_000, "patience": 10_000, "library_key": "library"}
    opened = finetune_module.open_store

    def slow(*given, **named):
        time.sleep(2)
        return opened(*given, **named)

    monkeypatch.setattr(finetune_module, "open_store", slow)
    mine = finetune(toy2, weights, max_seconds=1, **options)
    assert mine.meta["finetune"]["step"] == 0 and "took all of `max_seconds`" in log.text
    assert mine.meta["finetune"]["held_out_loss"][0] == mine.meta["finetune"]["held_out_loss"][1] < np.inf
    start = time.monotonic()
    assert finetune(toy2, weights, max_seconds=8, **options).meta["finetune"]["step"] > 0
    assert time.monotonic() - start < 12


def test_numbers_of_numpy_and_no_limit_of_time(toy2, weights):
    options = {"modality": "gene", "library_key": "library", "max_seconds": None}
    a = finetune(toy2, weights, epochs=np.int64(1), batch_size=np.int64(64), random_state=np.int64(3), **options)
    b = finetune(toy2, a, epochs=1, batch_size=64, random_state=3, **options)
    assert b.meta["finetune"]["before"] == a.meta["finetune"] and a.meta["finetune"]["random_state"] == 3


def test_interruption_returns_the_best_so_far_and_leaves_the_session_alive(toy2, weights, monkeypatch, log):
    step = AlignModule.training_step

    def interrupted(self, *given):
        if self.global_step == 7:
            raise KeyboardInterrupt
        return step(self, *given)

    options = {"modality": "gene", "library_key": "library", "batch_size": 64, "lr": 2e-2}
    monkeypatch.setattr(AlignModule, "training_step", interrupted)
    with st.settings.override(verbosity="info"):
        mine = finetune(toy2, weights, **options)
    record = mine.meta["finetune"]
    assert 0 < record["step"] < 7 and record["held_out_loss"][1] < record["held_out_loss"][0]
    assert f"Interrupted after 7 steps: these are the best weights so far, of step {record['step']}." in log.text
    monkeypatch.setattr(AlignModule, "validation_step", interrupted)
    monkeypatch.setattr(AlignModule, "global_step", 7, raising=False)
    with pytest.raises(KeyboardInterrupt):  # before there is anything to return
        finetune(toy2, weights, **options)


def test_says_what_was_held_out(toy2, weights):
    mine = finetune(toy2, weights, modality="gene", epochs=1, library_key="library")
    spots = mine.meta["finetune"]["spots"]
    assert [part["section"] for part in spots] == ["toy_1", "toy_2"]
    n = (toy2.obs["library"] == "toy_1").sum()
    assert spots[0]["trained"] + spots[0]["held_out"] + spots[0]["left_out"] == n
    assert spots[0]["held_out"] == round(0.1 * n) and spots[0]["left_out"] > 0 and len(spots[0]["centres"]) == 1
    json.dumps(spots)


def test_messages_name_its_own_arguments(toy2, weights, monkeypatch):
    options = {"library_key": "library", "modality": "gene"}
    bad = toy2.copy()
    bad.X = bad.X.astype(float)
    bad.X[0, 0] = -1
    with pytest.raises(RuntimeError, match="Mend it, or leave it out of `data`") as caught:
        finetune(bad, weights, **options)
    assert "data." not in str(caught.value) and "exclude" not in str(caught.value)
    for wrong in ({"epochs": np.inf}, {"lr": np.inf}):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}` to be finite"):
            finetune(toy2, weights, **options, **wrong)
    with (
        st.settings.override(device="cuda:99"),
        pytest.raises(ValueError, match=r"Expected `settings.device` to be a device of this machine. Found: 'cuda:99'"),
    ):
        finetune(toy2, weights, **options)
    terms = AlignModule.terms
    monkeypatch.setattr(
        AlignModule, "terms", lambda self, batch: {k: v / (not self.training) for k, v in terms(self, batch).items()}
    )
    with pytest.raises(FloatingPointError, match="Lower `lr`, or raise `batch_size` or `temperature`") as caught:
        finetune(toy2, weights, **options)
    assert "optim" not in str(caught.value) and "resume" not in str(caught.value)


def test_takes_several_tables(toy2, weights):
    tables = [toy2[toy2.obs["library"] == name].copy() for name in ("toy_1", "toy_2")]
    mine = finetune(tables, weights, modality="gene", epochs=1)
    assert mine.meta["finetune"]["sections"] == ["toy_1", "toy_2"]


def test_says_what_is_wrong(toy2, weights):
    with pytest.raises(TypeError, match="AnnData"):
        finetune("section.h5ad", weights)
    with pytest.raises(ValueError, match="modality"):
        finetune(toy2, weights, modality="genes")
    with pytest.raises(ValueError, match="held_out"):
        finetune(toy2, weights, held_out=0.7)
    for wrong in (
        {"epochs": 0},
        {"lr": 0},
        {"batch_size": 1},
        {"max_seconds": -1},
        {"patience": 0},
        {"random_state": -1},
        {"temperature": 0},
    ):
        with pytest.raises(ValueError, match=f"Expected `{next(iter(wrong))}` (above|to be at least)"):
            finetune(toy2, weights, **wrong)
    with pytest.raises(OSError, match="to be a folder that can be written to"):
        finetune(toy2, weights, out=weights / "config.json")
    with pytest.raises(RuntimeError, match="library_key"):
        finetune(toy2, weights)


def test_a_section_that_is_given_twice_is_refused(toy2, weights):
    one = toy2[toy2.obs["library"] == "toy_1"].copy()
    for tables in ([one, one], [one, one[::2].copy()]):
        with pytest.raises(
            ValueError, match=r"each section once in `data`. Found: toy_1 of table 0 and toy_1 \(2\) of"
        ):
            finetune(tables, weights, modality="gene", epochs=1)


def test_arguments_of_another_type(toy2, weights):
    with pytest.raises(TypeError, match=r"Expected `orthologs` to be a mapping .*Found: str"):
        finetune(toy2, weights, orthologs="mouse.tsv")
    with pytest.raises(ValueError, match=r"`held_out` between 0 and 0.5. Found: 'toy_1'"):
        finetune(toy2, weights, held_out="toy_1")
