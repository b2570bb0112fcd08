"""Weights at any moment, the best step, and the end of a run whose validation loss falls no more."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

import stalign as st
from stalign.models.checkpoint import load
from stalign.models.run_files import best_of, found
from stalign.train import export, fit, history
from stalign.train.best_step import BestStep
from stalign.train.config import DataConfig
from stalign.train.module import AlignModule

HELD = DataConfig(min_spots=20, validation=("toy_2",))


def _stopped(monkeypatch, slides, config, at):
    """Train until a step at which the run is interrupted."""
    step = AlignModule.training_step

    def interrupted(self, batch, index):
        if self.global_step == at:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(AlignModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(slides, config)


def _same(a, b):
    """Say whether two networks have the same weights, but for the half precision that one was stored in."""
    a, b = a.network.state_dict(), b.network.state_dict()
    return all(torch.equal(a[name].half(), b[name].half()) for name in a)


@pytest.fixture
def falling(monkeypatch):
    """Make the loss of the n-th validation of a run what a list says."""

    def make(values):
        given, see = iter(values), BestStep.see
        monkeypatch.setattr(
            BestStep, "on_validation_end",
            lambda self, trainer, *_: (see(self, trainer.global_step, next(given)), _stop(self, trainer)),
        )  # fmt: skip

    def _stop(best, trainer):
        trainer.should_stop = best.ended

    return make


def test_weights_of_a_stopped_run(slides, tiny, monkeypatch, log):
    config = tiny(run={"steps": 6})
    _stopped(monkeypatch, slides, config, at=5)
    assert not (Path(config.out) / "weights").exists()
    with st.settings.override(verbosity="warning"):
        running = load(config.out)
    assert "No weights were exported" in log.text and running.path.name == "step-00000004.ckpt"
    one = load(export(config.out))
    assert one.meta["export"] == {"step": 4, "steps": 6, "why": "last checkpoint"} and one.meta["steps"] == 4
    assert one.meta["training_data"][0]["section"] == "toy_1" and one.meta["recipe"]["seed"] == 0
    assert set(one.meta["metrics"]) == {f"loss/{term}" for term in ("cross", "niche", "spot", "total")}
    assert one.vocabulary == running.vocabulary
    query = st.datasets.toy(n_rows=10)
    st.tl.embed(query, weights=found(Path(config.out) / "checkpoints")[-1])
    assert query.obsm["X_stalign"].shape == (query.n_obs, 32)
    fit(slides, config, resume=True)  # an export is no end of the run
    assert load(config.out).meta["export"]["step"] == 6
    assert load(export(config.out, step=4)).path.name == "weights-4"
    assert load(config.out).meta["export"]["step"] == 6


def test_a_resumed_run_exports_what_an_unbroken_one_does(slides, tiny, monkeypatch, tmp_path):
    whole = tiny(out=str(tmp_path / "whole"), data=HELD, run={"epochs": 4, "keep_best": True, "patience": 2, "keep": 1})
    best = load(fit(slides, whole))
    config = replace(whole, out=str(tmp_path / "broken"))
    _stopped(monkeypatch, slides, config, at=8)
    again = load(fit(slides, config, resume=True))
    assert again.sha256 == best.sha256 and again.meta["export"] == best.meta["export"]
    columns = ["step", "loss/total", "val/total"]
    pd.testing.assert_frame_equal(history(config.out)[columns], history(whole.out)[columns], check_exact=True)


def test_the_best_step_is_kept_and_exported(slides, tiny, falling):
    falling([3.0, 1.0, 2.0, 2.5])
    config = tiny(data=HELD, run={"epochs": 4, "keep_best": True, "keep": 1, "checkpoint_every": 1000})
    one = load(fit(slides, config))
    names = [path.name for path in found(Path(config.out) / "checkpoints")]
    assert names == ["step-00000012.ckpt", "step-00000006.ckpt"]
    assert best_of(Path(config.out) / "checkpoints") == {"step": 6, "validation_loss": 1.0}
    log = history(config.out)
    assert one.meta["export"] == {
        "step": 6, "steps": 12, "why": "lowest validation loss",
        "validation_loss": log.loc[log["step"] == 5, "val/total"].item(),
    }  # fmt: skip
    assert _same(one, load(Path(config.out) / "checkpoints" / names[1]))
    (Path(config.out) / "checkpoints" / names[1]).unlink()
    with pytest.raises(
        FileNotFoundError, match=r"Expected the checkpoint step-00000006.ckpt.*step-00000012.*step=\.\.\."
    ):
        export(config.out)


def test_a_run_ends_whose_loss_falls_no_more(slides, tiny, falling):
    falling([3.0, 1.0, 2.0, 2.5, 0.5])
    config = tiny(data=HELD, run={"epochs": 6, "patience": 2, "checkpoint_every": 1000})
    one = load(fit(slides, config))
    assert one.meta["export"]["step"] == 12 and history(config.out)["step"].max() == 11


def test_counting_goes_on_after_a_restart():
    best = BestStep(2, [(3, 3.0), (6, 1.0), (9, 2.0)])
    assert (best.step, best.value, best.waited, best.ended) == (6, 1.0, 1, False)
    assert BestStep(1, [(3, 3.0), (6, 4.0)], since=6).waited == 0  # an extended run has its patience anew


@pytest.mark.parametrize("key", ["keep_best", "patience"])
def test_keys_of_the_validation_loss_need_one(tiny, key):
    with pytest.raises(ValueError, match=rf"`data.validation` to name what `run.{key}` looks at. Found: none"):
        tiny(run={key: True if key == "keep_best" else 3})


def test_what_is_no_run_or_no_checkpoint(slides, tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a run in"):
        export(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    for call in (export, load):
        with pytest.raises(FileNotFoundError, match="Expected a checkpoint in"):
            call(tmp_path)
    bad = tmp_path / "checkpoints" / "step-00000001.ckpt"
    bad.write_bytes(b"PK")
    with pytest.raises(ValueError, match="truncated, or no checkpoint"):
        load(bad)
    torch.save({"state_dict": {}, "global_step": 1}, bad)
    with pytest.raises(ValueError, match=r"to say what its weights are.*--resume"):
        load(tmp_path)


def test_a_folder_of_weights_is_no_run(slides, tiny):
    """Weights that were moved to where `checkpoints` is are still weights."""
    config = tiny(run={"steps": 2})
    weights = fit(slides, config)
    shutil.rmtree(Path(config.out) / "checkpoints")
    assert load(weights).path == weights.path
