"""A run that is extended: more steps or another batch size, in a new phase."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stalign.models.checkpoint import load
from stalign.train import fit, history
from stalign.train.config import DataConfig, SamplerConfig
from stalign.train.phases import comparable_from, phase

HELD = DataConfig(min_spots=20, validation=("toy_2",))


def test_more_steps_go_on_as_a_longer_run_would(slides, tiny, tmp_path):
    """From the step of the extension on, batches, losses and rates are those of a run of that length."""
    config = tiny(run={"steps": 4})
    config = replace(config, optim=replace(config.optim, lr=1e-9, min_lr=1e-9))  # so that weights hardly differ
    fit(slides, config)
    longer = replace(config, run=replace(config.run, steps=8))
    with pytest.raises(ValueError, match=r"steps was 4 and is 8. `--extend`, or `fit\(..., extend=True\)`"):
        fit(slides, longer, resume=True)
    one = load(fit(slides, longer, extend=True))
    whole = replace(longer, out=str(tmp_path / "whole"))
    fit(slides, whole)
    log, expected = history(config.out), history(whole.out)
    assert log["phase"].tolist() == [1] * 4 + [2] * 4 and set(expected["phase"]) == {1}
    np.testing.assert_allclose(log["loss/total"], expected["loss/total"], rtol=1e-4)
    np.testing.assert_allclose(log["weight_decay"][4:], expected["weight_decay"][4:])
    assert [(p["start"], p["steps"], p["batch_size"]) for p in one.meta["phases"]] == [(0, 4, 64), (4, 8, 64)]
    assert one.meta["export"]["step"] == 8
    fit(slides, longer, resume=True)  # the same again is no extension
    assert len(load(fit(slides, longer, extend=True)).meta["phases"]) == 2


def test_another_batch_size_and_losses_that_cannot_be_compared(slides, tiny):
    config = tiny(data=HELD, run={"epochs": 2, "keep_best": True})
    fit(slides, config)
    other = replace(
        config, sampler=SamplerConfig(batch_size=32, sections_per_batch=2), run=replace(config.run, epochs=3)
    )
    with pytest.raises(ValueError, match=r"config.sampler.batch_size was 64 and is 32; steps was 6 and is 15"):
        fit(slides, other, resume=True)
    one = load(fit(slides, other, extend=True))
    assert [p["batch_size"] for p in one.meta["phases"]] == [64, 32]
    assert one.meta["export"]["step"] > 6  # a smaller batch has lower losses: only those of its phase count
    log = history(config.out)
    assert (log["phase"] == 2).sum() == 9 and log["step"].is_monotonic_increasing


def test_what_no_extension_changes(slides, tiny):
    config = tiny(run={"steps": 4})
    with pytest.raises(FileNotFoundError, match="Expected a run to extend"):
        fit(slides, config, extend=True)
    fit(slides, config)
    other = replace(config, optim=replace(config.optim, lr=1.0), run=replace(config.run, steps=8))
    with pytest.raises(ValueError, match=r"config.optim.lr was 0.0005 and is 1.0; steps.*More steps, other processes"):
        fit(slides, other, extend=True)
    with pytest.raises(ValueError, match=r"Expected more than the 4 steps that are done. Found: 3 steps"):
        fit(slides, replace(config, run=replace(config.run, steps=3)), extend=True)


def test_what_was_logged_beyond_the_start_of_a_phase_is_left_out(tmp_path):
    for number, steps in ((0, [0, 5, 9]), (1, [12, 14])):
        (tmp_path / "logs" / f"start-{number}").mkdir(parents=True)
        table = pd.DataFrame({"step": steps, "loss/total": 1.0, "epoch": 0})
        table.to_csv(tmp_path / "logs" / f"start-{number}" / "metrics.csv", index=False)
    assert history(tmp_path)["step"].tolist() == [0, 5, 9, 12, 14] and set(history(tmp_path)["phase"]) == {1}
    (tmp_path / "phases.json").write_text(
        '[{"start": 0, "steps": 10, "batch_size": 1, "first_log": 0},'
        ' {"start": 8, "steps": 20, "batch_size": 1, "first_log": 1}]'
    )
    assert history(tmp_path)["step"].tolist() == [0, 5, 12, 14] and history(tmp_path)["phase"].tolist() == [1, 1, 2, 2]


def test_losses_are_compared_where_batches_are_of_one_size():
    assert comparable_from([phase(0, 4, 64), phase(4, 8, 64)]) == 0
    assert comparable_from([phase(0, 4, 64), phase(4, 8, 32), phase(8, 12, 32)]) == 4
