from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stalign.cli import main as stalign
from stalign.models import load
from stalign.models.run_files import found
from stalign.train import fit, history
from stalign.train.assemble import assemble
from stalign.train.cli import main
from stalign.train.config import DataConfig, SectionSpec
from stalign.train.dryrun import _counts, dry_run
from stalign.train.measure import choose
from stalign.train.memory import PeakMemory

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


@pytest.mark.parametrize("command", [lambda args: main(args), lambda args: stalign(["train", *args])])
def test_export_of_a_run(config, capsys, command):
    assert main([config, "out=mine", "run.checkpoint_every=1"]) == 0
    assert command(["export", "mine", "--step", "2"]) == 0
    assert "Weights: mine/weights-2" in capsys.readouterr().out
    assert load("mine/weights-2").meta["export"] == {"step": 2, "steps": 3, "why": "asked for"}
    assert command(["export", "mine", "--to", "elsewhere"]) == 0 and load("elsewhere").meta["steps"] == 3
    assert command(["export", "mine", "--step", "1"]) == 1
    assert "of that step. Found: 1. Available: '3', '2'" in " ".join(capsys.readouterr().err.split())
    assert command(["export", "nowhere"]) == 1
    assert "Expected a run in 'nowhere'" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(SystemExit) as caught:
        command(["export"])
    assert caught.value.code == 2


def test_extend_by_name(config, capsys):
    assert main([config, "out=mine", "--extend"]) == 1
    assert "Expected a run to extend in 'mine'" in " ".join(capsys.readouterr().err.split())
    assert main([config, "out=mine"]) == 0
    assert main([config, "out=mine", "run.steps=5", "--resume"]) == 1
    assert "`--extend`" in capsys.readouterr().err
    assert main([config, "out=mine", "run.steps=5", "--extend"]) == 0
    assert history("mine")["phase"].tolist() == [1, 1, 1, 2, 2]


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
    assert estimate.seconds["steps"] == pytest.approx(estimate.seconds_per_step * estimate.steps)
    assert estimate.hours == pytest.approx(sum(estimate.seconds.values()) / 3600)
    assert estimate.seconds["validation"] == 0 < estimate.seconds["checkpoints"]
    assert estimate.parameters >= estimate.trained > 1000 and 0.1 < estimate.memory_gb < 30
    assert estimate.spots == estimate.manifest["spots"].sum()
    capped = tiny(run={"epochs": 1})
    capped = replace(capped, sampler=replace(capped.sampler, spots_per_section=10, repeat_images=3))
    assert dry_run(slides, capped, steps=0).spots == 2 * 10 * 3


def test_estimate_has_validation_checkpoints_and_workers(slides, tiny):
    data = DataConfig(min_spots=20, validation=("toy_2",), workers=1)
    run = {"steps": 12, "validate_every": 1.0, "checkpoint_every": 4, "keep_best": True, "keep": 3}
    config = tiny(data=data, run=run)
    estimate = dry_run(slides, config, steps=1)
    assert estimate.workers == 1 and "1 workers" in dict(estimate.lines())["Peak memory"]
    assert min(estimate.seconds.values()) > 0
    counted = assemble(slides, config)
    assert counted.steps_per_epoch == 3 and _counts(counted) == (4, 6)  # after 3, 4, 6, 8, 9 and 12 steps
    fit(slides, config)
    kept = sum(path.stat().st_size for path in found(Path(config.out) / "checkpoints"))
    assert 0.9 * kept < estimate.disk_gb * 1024**3 < 1.5 * kept  # the best may be one of the last


def test_kinds_of_batches_are_measured_apart(toy2, tiny):
    """One of ten sections has an image: of ten steps of an epoch, two are measured of each kind."""
    spec = SectionSpec("a", library_key="library", include=("toy_1",))
    given = [(toy2, spec), *((toy2.copy(), replace(spec, path=str(i), image=False)) for i in range(3))]
    plans = assemble(given, tiny(run={"epochs": 1})).data.training(0, 1)[1]
    chosen, measured = choose(plans, 2, workers=0)
    kinds = [kind for kind, _ in measured.costs]
    assert kinds[: measured.counted] == kinds[measured.counted :] and sorted(set(kinds)) == ["both", "gene"]
    assert sum(measured.total.values()) == plans.spots_per_epoch and len(chosen) == 8
    measured.seconds = [9.0, 9.0] * 2 + [{"both": 10.0, "gene": 1.0}[kind] for kind in kinds[4:]]
    rates = {k: s / sum(n for kind, n in measured.costs[4:] if kind == k) for k, s in (("both", 20), ("gene", 2))}
    assert measured.epoch == pytest.approx(sum(rates[kind] * n for kind, n in measured.total.items()))


def test_memory_counts_the_processes_that_are_started():
    code = "x = bytearray(200 * 2**20); import time; time.sleep(2)"
    with PeakMemory() as alone:
        time.sleep(0.3)
    with PeakMemory() as both, subprocess.Popen([sys.executable, "-c", code]):
        pass
    assert both.peak - alone.peak > 190 * 2**20
