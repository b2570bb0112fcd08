from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from stalign.train import fit
from stalign.train.lock import LOCK_FILE, locked

HOLDS = """
import os, sys, time
from pathlib import Path
from stalign.train.lock import locked
with locked(Path(sys.argv[1])):
    child = os.fork()  # as a worker that reads data
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["posix", "windows"])
def system(request, monkeypatch):
    """The locks of this system, or of Windows: of a byte that no other process can read."""
    if request.param == "windows":
        import fcntl

        def locking(file, mode, n):
            assert os.lseek(file, 0, os.SEEK_CUR) > 100 and n == 1  # what is written there can be read
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

        monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(LK_NBLCK=2, locking=locking))
        monkeypatch.setattr("stalign.train.lock.sys", SimpleNamespace(platform="win32"))
    return request.param


def test_one_writer_at_a_time(tmp_path, system):
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK_FILE).read_text())["process"] == os.getpid()
        with pytest.raises(
            RuntimeError, match=rf"no other process to train in .*Found: process {os.getpid()} on .*since"
        ):
            with locked(tmp_path / "run"):
                raise AssertionError
    with locked(tmp_path / "run"):
        pass
    assert list((tmp_path / "run").iterdir()) == []


def test_an_error_lets_go(tmp_path, system):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path):
        pass


def test_a_killed_process_holds_no_lock_even_where_its_workers_live_on(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    worker = int(holder.stdout.readline())
    try:
        with pytest.raises(RuntimeError, match=f"Found: process {holder.pid} on"):
            with locked(tmp_path):
                raise AssertionError
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # it is there
        assert (tmp_path / LOCK_FILE).is_file()
        for last in (*[False] * 50, True):  # on a busy machine the worker may not have let go yet
            try:
                with locked(tmp_path):
                    break
            except RuntimeError:
                if last:
                    raise
                time.sleep(0.2)
    finally:
        os.kill(worker, 9)


def test_a_file_system_without_locks(tmp_path, monkeypatch, log):
    def unknown(file, mode):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", unknown)
    with locked(tmp_path), locked(tmp_path):
        pass
    assert "This file system knows no locks" in log.text


def test_a_run_is_refused_where_another_is_at_work(slides, tiny, tmp_path):
    config = tiny(run={"steps": 2})
    with locked(tmp_path / "run"), pytest.raises(RuntimeError, match="no other process to train in"):
        fit(slides, config)
    with locked(tmp_path / "run"), pytest.raises(RuntimeError, match="no other process to train in"):
        fit(slides, config, resume=True)
    fit(slides, config)
    assert not (tmp_path / "run" / LOCK_FILE).exists()
