"""A network that has nothing of ST-Align is trained by the same loop: two branches, batches and terms of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stalign.train import fit, history
from stalign.train.callbacks import found
from stalign.train.config import OptimConfig, RunConfig
from stalign.train.loop import train
from stalign.train.placement import place
from stalign.train.source import StepData, StepPlans
from stalign.train.steps import TrainingModule
from stalign.train.trainer import Run

SIZE, STEPS, PER_EPOCH = 16, 8, 4
OPTIM = OptimConfig(lr=1e-2, warmup_epochs=0, weight_decay=0.1, weight_decay_end=0.1)
OPTIONS = RunConfig(
    steps=STEPS,
    log_every=1,
    checkpoint_every=2,
    tensorboard=False,
    accelerator="cpu",
    devices=1,
    precision="32-true",
    validate_every=0.5,
)


@dataclass
class Pairs:
    """Words and pictures."""

    words: torch.Tensor
    pictures: torch.Tensor
    sections: tuple[str, ...] = ("made up",)

    def __len__(self):
        return len(self.words)

    def to(self, device, *, non_blocking=False):
        return replace(self, words=self.words.to(device), pictures=self.pictures.to(device))


class PairSet(Dataset):
    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.words = torch.from_numpy(rng.integers(0, 20, SIZE * PER_EPOCH))
        self.pictures = torch.from_numpy(rng.normal(size=(SIZE * PER_EPOCH, 3, 4, 4))).float()

    def __getitem__(self, plan):
        return Pairs(self.words[plan], self.pictures[plan])


class Shuffled(StepPlans):
    steps_per_epoch = PER_EPOCH

    def plan(self, step):
        epoch, index = divmod(step, PER_EPOCH)
        return np.random.default_rng([7, epoch]).permutation(SIZE * PER_EPOCH)[index * SIZE : (index + 1) * SIZE]


class PairData(StepData):
    @property
    def validates(self):
        return True

    def training(self, rank, world):
        return PairSet(0), Shuffled()

    def validating(self, rank, world):
        return PairSet(1), Shuffled()


class Caption(TrainingModule):
    """Words are to be found by their picture, and its brightness to be read off."""

    term_names = ("total", "match", "brightness")
    value_names = ("scale",)

    def __init__(self, **more):
        super().__init__(OPTIM, steps=STEPS, warmup=0, batch_size=SIZE, **more)
        self.words = nn.Embedding(20, 8)
        self.pictures = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(48, 8))
        self.brightness = nn.Linear(8, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))

    def terms(self, batch):
        words, pictures = self.words(batch.words), self.pictures(batch.pictures)
        match = nn.functional.cross_entropy(self.scale * words @ pictures.T, torch.arange(len(batch)))
        read = self.brightness(pictures).squeeze(1)
        brightness = nn.functional.mse_loss(read, batch.pictures.mean((1, 2, 3)))
        return {"total": match + brightness, "match": match, "brightness": brightness}

    def values(self):
        return {"scale": float(self.scale.detach())}


def caption(fingerprint="words"):
    torch.manual_seed(5)
    module = Caption(seed=3, fingerprint={"network": fingerprint})
    data = PairData(steps=STEPS, workers=0)
    return Run(module, data, OPTIONS, place(OPTIONS), PER_EPOCH, records={"what.txt": "words and pictures"})


LOGGED = ["step", "loss/total", "loss/match", "loss/brightness", "val/total", "val/match", "lr", "scale"]


def test_is_trained_logged_and_checkpointed(tmp_path):
    before = caption().module.state_dict()
    run = train(caption, tmp_path)
    log = history(tmp_path)
    assert log["step"].tolist() == list(range(STEPS)) and np.isfinite(log["loss/total"]).all()
    np.testing.assert_allclose(log["loss/total"], log["loss/match"] + log["loss/brightness"], rtol=1e-6)
    assert log["val/match"].notna().sum() == STEPS // 2
    assert log["lr"].iloc[0] == pytest.approx(OPTIM.lr * SIZE / OPTIM.lr_batch)
    assert all(not torch.equal(before[name], value) for name, value in run.module.state_dict().items())
    assert [p.name for p in found(tmp_path / "checkpoints")] == ["step-00000008.ckpt", "step-00000006.ckpt"]
    assert (tmp_path / "what.txt").read_text() == "words and pictures"


@pytest.mark.parametrize("at", [1, 5])
def test_goes_on_exactly_where_it_was_cut_short(tmp_path, monkeypatch, at):
    whole = train(caption, tmp_path / "whole")
    terms = Caption.terms

    def cut(self, batch):
        if self.training and self.global_step == at:
            raise KeyboardInterrupt
        return terms(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Caption, "terms", cut)
        with pytest.raises(KeyboardInterrupt):
            train(caption, tmp_path / "cut")
    again = train(caption, tmp_path / "cut", resume=True)
    expected = history(tmp_path / "whole")[LOGGED]
    pd.testing.assert_frame_equal(history(tmp_path / "cut")[LOGGED], expected, check_exact=True)
    for name, value in whole.module.state_dict().items():
        torch.testing.assert_close(again.module.state_dict()[name], value, rtol=0, atol=0)


def test_another_run_is_not_gone_on_with(tmp_path):
    train(caption, tmp_path)
    with pytest.raises(ValueError, match=r"to be of this run. Found: network was 'words' and is 'letters'"):
        train(lambda: caption("letters"), tmp_path, resume=True)


def test_biases_and_single_numbers_do_not_decay():
    groups = caption().module.groups()
    assert [sorted(p.ndim for p in group["params"]) for group in groups] == [[2, 2, 2], [0, 1, 1]]
    assert [group["decays"] for group in groups] == [True, False]


def test_lightning_is_asked_once_how_many_processes_there_are(slides, tiny, monkeypatch):
    made, make = [], pl.Trainer.__init__

    def counted(self, *given, **named):
        made.append(self)
        make(self, *given, **named)

    monkeypatch.setattr(pl.Trainer, "__init__", counted)
    fit(slides, tiny(run={"steps": 1}))
    assert len(made) == 2  # one to ask, one to train
