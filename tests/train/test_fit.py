from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import Logger
from threadpoolctl import threadpool_info

import stalign as st
from stalign.models.checkpoint import load
from stalign.train import fit, history, load_config
from stalign.train.assemble import assemble
from stalign.train.callbacks import found, latest
from stalign.train.config import AugmentConfig, DataConfig, SectionSpec
from stalign.train.module import AlignModule
from stalign.train.slides import Slide

LOSSES = ["loss/cross", "loss/niche", "loss/spot", "loss/total"]

# Each run is a child of one process that has imported everything and computed nothing, and ends by SIGKILL or SIGTERM.
KILLED = """
import json, os, signal, sys, time
from pathlib import Path
import anndata, lightning.pytorch as pl, torch
import stalign as st
from stalign.train import fit
from stalign.train.callbacks import found
from stalign.train.config import SectionSpec, TrainConfig
from stalign.train.module import AlignModule
from stalign.models.schema import build
from stalign.train.slides import Slide

torch.set_num_threads(1)
st.settings.show_progress = False
config = build(TrainConfig, json.loads(sys.argv[1]))
step, save = AlignModule.training_step, pl.Trainer.save_checkpoint

def run(moment, at):
    def training_step(self, batch, index):
        if moment == "term" and self.global_step == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, index)

    def save_checkpoint(self, path, **more):
        if moment == "save" and self.global_step == at:
            path.write_bytes(b"half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
        return save(self, path, **more)

    AlignModule.training_step, pl.Trainer.save_checkpoint = training_step, save_checkpoint
    data = anndata.read_h5ad(sys.argv[2])
    fit([Slide(SectionSpec("toy.h5ad", library_key="library", study="toy study"), data)], config, resume=True)

folder = Path(config.out) / "checkpoints"
for moment, at in json.loads(sys.argv[3]):
    child = os.fork()
    if not child:
        run(moment, at)
        os._exit(0)
    if moment == "any":
        while not any(int(p.stem[5:]) >= at for p in found(folder)):
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print([p.name for p in found(folder)], os.WTERMSIG(status), flush=True)
"""


def killed(config, moments, data):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, json.dumps(config.to_dict()), str(data), json.dumps(moments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    lines = done.stdout.splitlines()
    signals = [" 15" if moment == "term" else " 9" for moment, _ in moments]
    ends = [line.endswith(number) for line, number in zip(lines, signals, strict=True)]
    assert all(ends), done.stdout + done.stderr
    return lines


def test_weights_that_embed_takes(slides, toy2, tiny):
    config = tiny(data=DataConfig(min_spots=20, validation=("toy_2",)), run={"validate_every": 1.0})
    before = toy2.copy()
    weights = fit(slides, config)
    pd.testing.assert_frame_equal(toy2.obs, before.obs)
    assert set(toy2.obsm) == set(before.obsm) and set(toy2.uns) == set(before.uns) and not toy2.obsp
    checkpoint = load(weights)
    assert weights.meta == checkpoint.meta and weights.sha256 == checkpoint.sha256
    assert checkpoint.config.name == "tiny" and not checkpoint.network.training
    assert [s["section"] for s in checkpoint.meta["training_data"]] == ["toy_1"]
    assert checkpoint.meta["recipe"]["sampler"]["batch_size"] == 64
    log = history(config.out)
    assert np.isfinite(log[LOSSES]).all().all()
    assert log["val/total"].notna().sum() == 2
    manifest = pd.read_csv(f"{config.out}/manifest.csv")
    assert manifest["kept"].all() and manifest["study"].tolist() == ["toy study"] * 2
    query = st.datasets.toy(n_rows=10)
    st.tl.embed(query, weights=weights)
    assert query.obsm["X_stalign"].shape == (query.n_obs, 32)
    with pytest.raises(FileExistsError, match=r"Expected no run in .*checkpoints and weights"):
        fit(slides, config)
    shutil.rmtree(f"{config.out}/checkpoints")  # to save room; the weights are still there to lose
    with pytest.raises(FileExistsError, match=r"Expected no run in .*Found: weights"):
        fit(slides, config)


def test_loss_falls(slides, tiny):
    config = tiny(augment=AugmentConfig(thinning=(1.0, 1.0), stain=0.0), run={"epochs": 10, "checkpoint_every": 1000})
    config = replace(config, optim=replace(config.optim, lr=2e-2, warmup_epochs=1))
    fit(slides, config)
    loss = history(config.out)["loss/total"]
    assert loss[-5:].mean() < loss[:5].mean() - 0.1


def test_killed_and_resumed_goes_on_exactly(slides, toy2, tiny, tmp_path):
    data = tmp_path / "toy.h5ad"
    toy2.write_h5ad(data)
    validation = DataConfig(min_spots=20, validation=("toy_2",))
    whole = tiny(out=str(tmp_path / "whole"), data=validation, run={"epochs": 4, "validate_every": 2.0})
    fit(slides, whole)
    config = replace(whole, out=str(tmp_path / "killed"))
    expected = history(whole.out)
    n_steps = len(expected)
    assert n_steps >= 12
    # Between two checkpoints; half way through writing one that a validation follows; whenever the signal comes.
    lines = killed(config, [["term", 5], ["save", 6], ["any", 6]], data)
    assert "step-00000004" in lines[1] and "step-00000006" not in lines[1]
    fit(slides, config, resume=True)
    resumed = history(config.out)
    columns = ["step", "lr", "weight_decay", *LOSSES, "val/total"]
    pd.testing.assert_frame_equal(resumed[columns], expected[columns], check_exact=True)
    a, b = load(f"{whole.out}/weights"), load(f"{config.out}/weights")
    assert a.sha256 == b.sha256


def test_truncated_checkpoint_falls_back(slides, tiny, tmp_path):
    config = tiny(run={"epochs": 3})
    fit(slides, config)
    expected = history(config.out)
    last, before = found(tmp_path / "run" / "checkpoints")
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    step = latest(tmp_path / "run" / "checkpoints")[1]["global_step"]
    assert before.name == f"step-{step:08d}.ckpt"
    fit(slides, config, resume=True)
    pd.testing.assert_frame_equal(history(config.out)[LOSSES], expected[LOSSES], check_exact=True)
    last, before = found(tmp_path / "run" / "checkpoints")
    for content in (b"PK", b"P", bytes(1000)):
        last.write_bytes(content)
        assert latest(tmp_path / "run" / "checkpoints")[0] == before
    torch.save([1, 2], last)
    assert latest(tmp_path / "run" / "checkpoints")[0] == before
    for path in found(tmp_path / "run" / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(RuntimeError, match=r"Expected a sound checkpoint.*step-.*step-"):
        fit(slides, config, resume=True)


def test_workers_change_nothing_also_after_a_restart(slides, tiny, tmp_path):
    one = tiny(out=str(tmp_path / "one"), run={"steps": 5})
    fit(slides, one)
    two = replace(one, out=str(tmp_path / "two"), data=replace(one.data, workers=2))
    fit(slides, two)
    expected = history(one.out)[LOSSES]
    pd.testing.assert_frame_equal(history(two.out)[LOSSES], expected, check_exact=True)
    for path in found(tmp_path / "two" / "checkpoints")[:1]:
        path.unlink()
    fit(slides, two, resume=True)
    pd.testing.assert_frame_equal(history(two.out)[LOSSES], expected, check_exact=True)


def test_resume_refuses_another_run(slides, tiny):
    config = tiny(run={"epochs": 1})
    fit(slides, config)
    other = replace(config, optim=replace(config.optim, lr=1.0))
    with pytest.raises(ValueError, match=r"config.optim.lr was 0.0005 and is 1.0"):
        fit(slides, other, resume=True)


def test_resume_refuses_sections_that_have_changed(toy2, tiny):
    config, spec = tiny(run={"steps": 2}), SectionSpec("toy.h5ad", library_key="library")
    fit([Slide(spec, toy2)], config)
    renamed = toy2.copy()
    renamed.var_names = [name if i % 2 else f"NEW{i}" for i, name in enumerate(toy2.var_names)]
    with pytest.raises(ValueError, match=r"to be of this run.*vocabulary was"):
        fit([Slide(spec, renamed)], config, resume=True)


def test_resume_refuses_another_image_of_the_same_size(toy2, tiny):
    config, spec = tiny(run={"steps": 2}), SectionSpec("toy.h5ad", library_key="library")
    fit([Slide(spec, toy2)], config)
    other = toy2.copy()
    images = other.uns["spatial"]["toy_2"]["images"]
    images["hires"] = np.ascontiguousarray(images["hires"][::-1, ::-1])
    with pytest.raises(ValueError, match=r"to be of this run. Found: section 'toy_2' has other image\."):
        fit([Slide(spec, other)], config, resume=True)
    one = [Slide(replace(spec, include=("toy_1",)), toy2)]
    with pytest.raises(ValueError, match=r"no section 'toy_2' any more"):
        fit(one, config, resume=True)


def test_a_run_goes_on_with_its_number_of_threads(slides, tiny, log, monkeypatch, tmp_path):
    found, step = [], AlignModule.training_step

    def training_step(self, batch, index):
        blas = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
        found.append((torch.get_num_threads(), blas))
        return step(self, batch, index)

    monkeypatch.setattr(AlignModule, "training_step", training_step)
    config = tiny(run={"steps": 2, "checkpoint_every": 1})
    torch.set_num_threads(2)
    fit(slides, config)
    (tmp_path / "run" / "checkpoints" / "step-00000002.ckpt").unlink()
    torch.set_num_threads(1)
    with st.settings.override(verbosity="info"):
        fit(slides, config, resume=True)
    assert found == [(2, {2})] * 3 and torch.get_num_threads() == 1
    assert "Going on with 2 torch threads, as before, rather than the 1 of this process." in log.text


def test_out_in_the_home_of_the_user(slides, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    weights = fit(slides, tiny(out="~/run", run={"steps": 2}))
    assert weights.path == tmp_path / "home" / "run" / "weights" == load("~/run/weights").path
    assert len(found(tmp_path / "home" / "run" / "checkpoints")) == 1 and len(history("~/run")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_the_record_of_a_run_is_a_configuration(toy2, tiny, tmp_path, monkeypatch):
    (tmp_path / "my slides").mkdir()
    toy2.write_h5ad(tmp_path / "my slides" / "größe.h5ad")
    monkeypatch.chdir(tmp_path)
    section = SectionSpec("größe.h5ad", library_key="library")
    config = tiny(out="a run", data=DataConfig(root="my slides", min_spots=20, sections=(section,)), run={"steps": 2})
    fit(None, config)
    monkeypatch.chdir(tmp_path / "my slides")
    again = load_config(tmp_path / "a run" / "config.json", ["run.keep=3"])
    assert again.out == str(tmp_path / "a run") and again.data.root == str(tmp_path / "my slides")
    same = replace(config, out=again.out, data=replace(config.data, root=again.data.root))
    assert replace(again, run=config.run) == same and again.run.keep == 3
    load(fit(None, again, resume=True))
    with pytest.raises(ValueError, match=r"config.json' to be JSON. Found: "):
        (tmp_path / "config.json").write_text("{")
        load_config(tmp_path / "config.json")


class Kept(Logger):
    """A logger that keeps what it is told."""

    name, version = "kept", "0"

    def __init__(self):
        super().__init__()
        self.hyperparameters, self.names = {}, set()

    def log_hyperparams(self, params, *given, **named):
        self.hyperparameters = dict(params)

    def log_metrics(self, metrics, step=None):
        self.names |= set(metrics)


def test_loggers_and_callbacks_of_lightning(slides, tiny, tmp_path):
    data = DataConfig(min_spots=20, validation=("toy_2",))
    config = tiny(data=data, run={"steps": 6, "validate_every": 0.5})
    kept, best = Kept(), pl.callbacks.ModelCheckpoint(tmp_path / "best", "{step}", monitor="val/total")
    stop = pl.callbacks.EarlyStopping("val/total", stopping_threshold=1e9)  # at the first validation
    weights = fit(slides, config, loggers=kept, callbacks=[best, stop])
    assert kept.hyperparameters["sampler"]["batch_size"] == 64 and kept.names >= {*LOSSES, "val/total", "lr"}
    assert Path(best.best_model_path).is_file()
    steps = load(weights).meta["steps"]
    assert 0 < steps < 6 and history(config.out)["step"].max() == steps - 1
    fit(slides, config, resume=True, callbacks=best)
    assert load(weights).meta["steps"] == 6
    for name, wrong in (("loggers", "wandb"), ("callbacks", pl.callbacks.EarlyStopping), ("callbacks", [kept])):
        with pytest.raises(TypeError, match=f"Expected `{name}` to be of `lightning.pytorch`. Found: "):
            fit(["nowhere.h5ad"], tiny(out=str(tmp_path / "other")), **{name: wrong})


def test_an_export_that_was_cut_short_is_made_up_for(slides, tiny, tmp_path):
    config = tiny(run={"steps": 2})
    weights = fit(slides, config)
    whole = load(weights).sha256
    for path in weights.iterdir():
        path.unlink()
    (weights / ".weights.safetensors.1").write_bytes(b"half")
    assert load(fit(slides, config, resume=True)).sha256 == whole


def test_full_disk_at_the_export_is_an_error_that_says_so(slides, tiny, tmp_path):
    config = tiny(run={"steps": 2})
    shutil.rmtree(fit(slides, config))
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(OSError, match="Cannot write weights to"):
            fit(slides, config, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    load(fit(slides, config, resume=True))


def test_interruption_is_one_and_the_run_goes_on(slides, tiny, monkeypatch):
    step = AlignModule.training_step

    def interrupted(self, batch, index):
        if self.global_step == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    config = tiny(run={"steps": 4})
    with monkeypatch.context() as patch:
        patch.setattr(AlignModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(slides, config)
    load(fit(slides, config, resume=True))
    assert history(config.out)["step"].max() == 3


def test_out_is_looked_at_before_any_section(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"to be a folder that can be written to. Found: a file"):
        fit(["nowhere.h5ad"], tiny(out=str(tmp_path / "file" / "run")))


def test_nan_loss_stops_before_it_reaches_the_weights(slides, tiny, monkeypatch, tmp_path):
    terms = AlignModule.terms

    def broken(self, batch):
        out = terms(self, batch)
        return {k: v * float("nan") for k, v in out.items()} if self.global_step == 3 else out

    monkeypatch.setattr(AlignModule, "terms", broken)
    with pytest.raises(FloatingPointError, match=r"at step 3, .*toy_.*Found: .*total nan.*Lower `optim.lr`"):
        fit(slides, tiny())
    last = latest(tmp_path / "run" / "checkpoints")[1]
    assert last["global_step"] == 2
    assert all(torch.isfinite(v).all() for v in last["state_dict"].values())
    assert not (tmp_path / "run" / "weights").exists()


@pytest.mark.parametrize("step", [2, 3, 5])
def test_nan_loss_of_a_device_that_runs_behind_is_found_a_step_later(slides, tiny, monkeypatch, tmp_path, step):
    terms, began = AlignModule.terms, []

    def broken(self, batch):
        began.append(self.global_step)
        out = terms(self, batch)
        return {k: v * float("nan") for k, v in out.items()} if self.global_step == step else out

    monkeypatch.setattr(AlignModule, "terms", broken)
    monkeypatch.setattr(AlignModule, "runs_behind", True)
    expected = {2: "finite loss at step 2, .*toy_.*total nan", 3: "finite weights after step 4", 5: "after step 6"}
    with pytest.raises(FloatingPointError, match=expected[step]):
        fit(slides, tiny(run={"steps": 6}))
    assert began[-1] == (3 if step == 2 else step)
    content = latest(tmp_path / "run" / "checkpoints")[1]
    assert all(torch.isfinite(v).all() for v in content["state_dict"].values())
    assert content["global_step"] <= step and not (tmp_path / "run" / "weights").exists()


def test_weights_that_are_not_finite_are_never_a_checkpoint(slides, tiny, monkeypatch, tmp_path):
    """A finite loss with a gradient that is not: the next loss would be NaN, and the checkpoint useless."""
    step = AlignModule.training_step

    def broken(self, batch, index):
        if self.global_step == 3:
            self.network.gene_table.weight.register_hook(lambda g: g * float("inf"))
        return step(self, batch, index)

    monkeypatch.setattr(AlignModule, "training_step", broken)
    with pytest.raises(FloatingPointError, match=r"finite weights after step 4.*gene_table"):
        fit(slides, tiny())
    assert [p.name for p in found(tmp_path / "run" / "checkpoints")] == ["step-00000002.ckpt"]


def test_full_disk_keeps_what_is_there(slides, tiny, tmp_path):
    config = tiny(run={"epochs": 1})
    fit(slides, config)
    folder = tmp_path / "run" / "checkpoints"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    size = min(len(content) for content in before.values())
    longer = replace(config, out=config.out, run=replace(config.run, epochs=1))
    for path in found(folder)[:1]:  # so that there is a step left to do
        path.unlink()
        before.pop(path.name)
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limit[1]))  # writing more fails as on a full disk
    try:
        with pytest.raises(OSError, match=r"Cannot write the checkpoint .*checkpoints that are sound: step-"):
            fit(slides, longer, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_unreadable_section_stops_with_its_cause(slides, tiny, tmp_path):
    (tmp_path / "broken.h5ad").write_bytes(b"not hdf5")
    given = [*slides, Slide(SectionSpec(str(tmp_path / "broken.h5ad")))]
    with pytest.raises(RuntimeError, match=r"Cannot read slide .*broken.h5ad.*on_error"):
        fit(given, tiny())
    config = tiny(data=DataConfig(min_spots=20, on_error="skip"))
    fit(given, config)
    manifest = pd.read_csv(f"{config.out}/manifest.csv").set_index("slide")
    assert not manifest.loc[str(tmp_path / "broken.h5ad"), "kept"]
    assert "cannot be read" in manifest.loc[str(tmp_path / "broken.h5ad"), "why"]


def test_no_usable_section_says_why_for_each(slides, toy2, tiny, tmp_path):
    config = tiny(data=DataConfig(min_spots=10_000, exclude=("toy_1",)))
    nothing = toy2[:, :0].copy()
    nothing.uns["spatial"] = {}
    del nothing.uns["spatial"]
    one = nothing[nothing.obs["library"] == "toy_1"].copy()
    given = [*slides, Slide(SectionSpec("empty.h5ad"), one)]
    with pytest.raises(ValueError, match=r"toy_1: excluded by its section 'toy_1'; toy_2: \d+ spots, fewer than 10000"):
        fit(given, config)
    with pytest.raises(ValueError, match="neither an image nor counts"):
        fit([Slide(SectionSpec("empty.h5ad"), one)], tiny())
    with pytest.raises(ValueError, match="no slide was given"):
        fit([], tiny())


def test_tables_in_memory_come_with_how_they_are_read(toy2, tiny):
    config = tiny(run={"steps": 1})
    fit([(toy2, SectionSpec("my table", library_key="library", donor="A", exclude=("toy_1",)))], config)
    manifest = pd.read_csv(f"{config.out}/manifest.csv")
    assert manifest["section"].tolist() == ["toy_1", "toy_2"] and manifest["kept"].tolist() == [False, True]
    assert set(manifest["slide"]) == {"my table"} and set(manifest["donor"]) == {"A"}


def test_validation_takes_all_sections_of_a_name(toy2, tiny):
    one = toy2[toy2.obs["library"] == "toy_1"].copy()
    other = toy2[toy2.obs["library"] == "toy_2"].copy()
    config = tiny(data=DataConfig(min_spots=20, validation=("toy_1",)), run={"steps": 2, "validate_every": 0.5})
    spec = SectionSpec("a", library_key="library")
    given = [(one, spec), (one.copy(), replace(spec, path="b")), (other, replace(spec, path="c"))]
    trained = load(fit(given, config)).meta["training_data"]
    assert [s["section"] for s in trained] == ["toy_2"]


def test_validation_sees_every_spot_once(slides, tiny):
    config = tiny(data=DataConfig(min_spots=20, validation=("toy_2",)))
    sampler = replace(config.sampler, spots_per_section=40, repeat_images=3)
    data = assemble(slides, replace(config, sampler=sampler)).data
    seen = [spot for plan in data.val_dataloader().sampler for _, rows in plan.pieces for spot in rows]
    assert sorted(seen) == sorted(data.validation[1][0])


def test_features_are_those_of_the_niches_of_the_run(toy2, tiny, tiny_model):
    one = toy2[toy2.obs["library"] == "toy_1"].copy()
    wide = one.copy()
    st.pp.niches(wide, n_neighbors=20)
    colours = []
    for data, k in ((one, 3), (wide, 3), (one, 12)):
        shape = {**tiny_model, "niche_image": {"kind": "features", "dim": 27, "tokens": "linear"}}
        shape["input"] = {**tiny_model["input"], "n_neighbors": k}
        config = tiny(model=shape, data=DataConfig(min_spots=20, encoders={"niche_image": "colour"}))
        run = assemble([(data, SectionSpec("a", library_key="library"))], config)
        colours.append(run.store.sections[0].reader.features["niche_image"])
    np.testing.assert_array_equal(colours[0], colours[1])
    assert not np.allclose(colours[0], colours[2])


def test_every_loss_option_trains(slides, tiny, tmp_path):
    for i, loss in enumerate(
        (
            {"negatives": "cluster", "symmetric": False},
            {"positive_in_denominator": False, "learn_temperature": True},
        )
    ):
        config = tiny(out=str(tmp_path / str(i)), loss=loss, run={"steps": 2})
        config = replace(config, sampler=replace(config.sampler, mask_shared_niches=not i))
        fit(slides, config)
        log = history(config.out)
        assert np.isfinite(log[LOSSES]).all().all()
        if i == 0:  # one positive against five negatives on random features
            assert 0.8 < log["loss/spot"].iloc[0] < 3.5
        else:
            assert log["temperature"].iloc[1] != 0.1 or log["temperature"].iloc[0] == pytest.approx(0.1)


def test_weights_tell_the_losses_at_the_end(slides, tiny):
    config = tiny(run={"steps": 12, "log_every": 1})
    metrics = load(fit(slides, config)).meta["metrics"]
    end = history(config.out)["loss/total"].iloc[-2:]  # the last tenth of twelve
    assert metrics["loss/total"] == pytest.approx(end.mean())


def test_a_run_too_short_to_log_still_exports(slides, tiny):
    config = tiny(run={"steps": 1, "log_every": 50})
    assert load(fit(slides, config)).meta["metrics"] == {}


def test_same_seed_same_weights_and_random_state_left_alone(slides, tiny, tmp_path):
    torch.manual_seed(3)
    state = torch.get_rng_state()
    hashes = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        config = tiny(out=str(tmp_path / name), seed=seed, run={"steps": 2})
        hashes.append(load(fit(slides, config)).sha256)
    assert hashes[0] == hashes[1] != hashes[2]
    assert torch.equal(torch.get_rng_state(), state)
