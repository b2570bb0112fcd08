"""Files are written on Windows and macOS as on Linux, as far as Linux can stand for them."""

from __future__ import annotations

import ast
import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import stalign as st
from stalign.core.files import whole_file, write_whole

if sys.platform != "linux":
    pytest.skip("emulates other systems on Linux", allow_module_level=True)

PLATFORM = {"linux": "linux", "windows": "win32", "macos": "darwin"}
_OURS = ("_files", "models.checkpoint_files", "train.lock", "train.source")  # modules that ask for the system


def in_use(path):
    """Say whether this process has a file open or mapped."""
    real = os.path.realpath(path)
    opened = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return real in opened or any(line.rstrip().endswith(real) for line in Path("/proc/self/maps").open())


@pytest.fixture(params=list(PLATFORM))
def system(request, monkeypatch):
    """Linux; or its files with the rules of Windows; or macOS, whose new processes are spawned."""
    if request.param == "linux":
        return request.param
    for name in _OURS:
        __import__(f"stalign.{name}")
        monkeypatch.setattr(f"stalign.{name}.sys", SimpleNamespace(platform=PLATFORM[request.param]))
    if request.param == "windows":
        real = {name: getattr(os, name) for name in ("replace", "rename", "unlink", "remove", "fsync")}

        def guarded(name):
            def call(*paths, **more):
                if any(in_use(path) for path in paths):
                    raise PermissionError(errno.EACCES, "The process cannot access the file", str(paths[-1]))
                return real[name](*paths, **more)

            return call

        def fsync(file):
            import fcntl

            if fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise OSError(errno.EBADF, "Bad file descriptor")  # no folders either: they are opened to read only
            real["fsync"](file)

        def locking(file, mode, n):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        for name in ("replace", "rename", "unlink", "remove"):
            monkeypatch.setattr(os, name, guarded(name))
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr("stalign._files._WAITS", (0.01, 0.01))
        monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
        monkeypatch.setitem(sys.modules, "resource", None)
    return request.param


def test_nothing_is_imported_that_only_some_systems_have():
    found = []
    for file in Path(st.__file__).parent.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found += [f"{file.name}: {name}" for name in names if name in ("fcntl", "msvcrt", "pwd", "resource")]
    assert found == []


def test_a_file_takes_the_place_of_another(tmp_path, system):
    write_whole(tmp_path / "a", b"1")
    write_whole(tmp_path / "a", b"2")
    assert (tmp_path / "a").read_bytes() == b"2" and [p.name for p in tmp_path.iterdir()] == ["a"]
    if system == "windows":
        with (tmp_path / "a").open(), pytest.raises(PermissionError), whole_file(tmp_path / "a") as new:
            new.write_bytes(b"3")
        assert (tmp_path / "a").read_bytes() == b"2"


def test_a_file_that_is_open_for_a_moment_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("stalign._files.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setattr("stalign._files._WAITS", (0.01, 0.01))
    calls, move = [], os.replace

    def replace(source, target):
        calls.append(source)
        if len(calls) < 3:
            raise PermissionError
        move(source, target)

    monkeypatch.setattr(os, "replace", replace)
    write_whole(tmp_path / "a", b"1")
    assert len(calls) == 3 and (tmp_path / "a").read_bytes() == b"1"


def test_weights_are_saved_over_those_that_are_loaded(tmp_path, system, small_weights):
    one, other = small_weights(), small_weights(seed=1)
    for weights in (one, other):
        found = st.models.load(st.models.save(tmp_path, weights.network, vocabulary=weights.vocabulary, fp16=False))
        state = weights.network.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in found.network.state_dict().items())
    again = st.models.load(tmp_path)
    st.models.save(tmp_path, again.network, vocabulary=again.vocabulary, fp16=False)  # while it is loaded


def test_a_run_with_workers_is_stopped_and_goes_on(tmp_path, system, monkeypatch):
    pytest.importorskip("lightning")
    from stalign.train import TrainConfig, fit, history
    from stalign.train.callbacks import found
    from stalign.train.config import DataConfig, RunConfig, SamplerConfig, SectionSpec

    conv, table = {"kind": "conv", "channels": [8, 8, 8, 8]}, {"width": 32, "hidden": 16, "layers": 1}
    model = {"spot_image": conv, "niche_image": {**conv, "stem": "strided"}, "spot_gene": table, "niche_gene": table}
    model |= {"n_tokens": 4, "token_dim": 8, "n_heads": 2, "head_dim": 4, "fusion_hidden": 8}
    model |= {"head": {"hidden": 8, "out": 32}, "input": {"spot_px": 8, "niche_px": 16, "rank": 8}}
    st.datasets.toy(n_rows=10).write_h5ad(tmp_path / "größe 1.h5ad")
    section = SectionSpec("größe 1.h5ad")
    run = RunConfig(steps=3, checkpoint_every=2, log_every=1, tensorboard=False, accelerator="cpu", devices=1)
    data = DataConfig(root=str(tmp_path), min_spots=20, store="disk", workers=1, sections=(section,))
    config = TrainConfig(
        out=str(tmp_path / "a run"), model=model, data=data, sampler=SamplerConfig(batch_size=64), run=run
    )
    with st.settings.override(show_progress=False, verbosity="error", device="cpu"):
        fit(None, config)
        expected = history(config.out)["loss/total"]
        found(tmp_path / "a run" / "checkpoints")[0].unlink()
        loaded = st.models.load(fit(None, config, resume=True))
        fit(None, config, resume=True)  # writes them again, while they are loaded
    np.testing.assert_array_equal(history(config.out)["loss/total"], expected)
    assert loaded.meta["steps"] == 3


def test_a_script_without_a_guard_is_told_what_to_do(monkeypatch):
    pytest.importorskip("lightning")
    from stalign.train import trainer

    hint = r"call it under `if __name__ == '__main__':`, or set `data.workers = 0`\.$"
    for error in (RuntimeError("DataLoader worker (pid(s) 1) exited unexpectedly"), BrokenPipeError(32, "Broken pipe")):
        with pytest.raises(RuntimeError, match=f"processes of `data.workers` to read ahead.*{hint}"):
            with trainer.explained_workers():
                raise error
    with pytest.raises(RuntimeError, match="^another$"), trainer.explained_workers():
        raise RuntimeError("another")
    # As multiprocessing marks a process that it spawns while that runs the user's script again.
    monkeypatch.setattr(trainer.multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(RuntimeError, match=f"train in the main process. Found: a process of `data.workers`.*{hint}"):
        with trainer.explained_workers():
            raise AssertionError
