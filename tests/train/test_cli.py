from __future__ import annotations

from dataclasses import replace

import pytest

from stalign.cli import main as stalign
from stalign.train import history
from stalign.train.cli import main
from stalign.train.dryrun import dry_run

CONFIG = """
name = "tiny"
[data]
min_spots = 20
exclude = ["toy_2"]
[[data.sections]]
path = "toy.h5ad"
library_key = "library"
[model]
n_tokens = 4
token_dim = 8
n_heads = 2
head_dim = 4
spot_image = { kind = "conv", channels = [8, 8, 8, 8] }
niche_image = { kind = "conv", channels = [8, 8, 8, 8] }
spot_gene = { width = 32 }
niche_gene = { width = 32 }
head = { hidden = 8, out = 32 }
input = { spot_px = 8, niche_px = 16, rank = 8 }
[sampler]
batch_size = 64
[run]
steps = 3
log_every = 1
accelerator = "cpu"
devices = 1
"""


@pytest.fixture
def config(toy2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy2.write_h5ad(tmp_path / "toy.h5ad")
    (tmp_path / "run.toml").write_text(CONFIG)
    return str(tmp_path / "run.toml")


def test_trains_resumes_and_writes_to_tensorboard(config, tmp_path, capsys):
    assert main([config, "out=mine", "optim.lr=1e-3"]) == 0
    assert "Weights: mine/weights" in capsys.readouterr().out
    assert len(history("mine")) == 3
    assert history("mine")["lr"].iloc[-1] < 1e-3 * 64 / 256
    assert list((tmp_path / "mine" / "tensorboard").glob("events*"))
    assert main([config, "out=mine", "optim.lr=1e-3"]) == 1
    assert "Expected no run in 'mine'" in capsys.readouterr().err
    assert main([config, "--resume", "out=mine", "optim.lr=1e-3"]) == 0  # nothing left to do


def test_dry_run_says_the_cost_and_writes_nothing(config, tmp_path, capsys):
    before = sorted(p.name for p in tmp_path.iterdir())
    assert main(["--dry-run", config, "run.epochs=100", "run.steps=0"]) == 0
    text = capsys.readouterr().out
    for expected in ("Parameters", "Sections", "Steps", "300 (3 an epoch)", "Seconds a step", "Peak memory", "toy_2"):
        assert expected in text
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["optim.learning=1"], "Expected a known key"),
        (["out"], "key.sub=value"),
        (["data.exclude=['*']"], "excluded by its slide 'toy.h5ad'"),
        (["model.base='st-alinge'"], "model.base"),
    ],
)
def test_errors_are_said_not_thrown(config, capsys, arguments, expected):
    assert main([config, *arguments]) == 1
    found = " ".join(capsys.readouterr().err.split())
    assert found.startswith("error:") and expected in found and "Traceback" not in found


def test_one_command_line_for_all(config, capsys):
    assert stalign(["train", "--dry-run", config, "run.epochs=1", "--resume", "run.steps=2"]) == 0
    assert "Parameters" in capsys.readouterr().out
    assert stalign(["train", config, "optim.learning=1"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("stalign: Expected a known key") and told.count("\n") == 1
    with pytest.raises(ValueError, match="known key"):
        stalign(["train", config, "--debug", "optim.learning=1"])
    with pytest.raises(SystemExit) as caught:
        stalign(["train", config, "--no-such"])
    assert caught.value.code == 2


def test_estimate_counts(slides, tiny):
    estimate = dry_run(slides, tiny(run={"epochs": 50}), steps=2)
    assert estimate.sections == 2 and estimate.processes == 1 and estimate.precision == "32-true"
    assert estimate.steps == 50 * estimate.steps_per_epoch
    assert estimate.hours == pytest.approx(estimate.seconds_per_step * estimate.steps / 3600)
    assert estimate.parameters >= estimate.trained > 1000 and estimate.memory_gb > 0.1
    assert estimate.spots == estimate.manifest["spots"].sum()
    capped = tiny(run={"epochs": 1})
    capped = replace(capped, sampler=replace(capped.sampler, spots_per_section=10, repeat_images=3))
    assert dry_run(slides, capped, steps=0).spots == 2 * 10 * 3
