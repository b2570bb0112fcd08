"""`stalign embed`, `encode` and `predict` on folders of sections, here and on a dask cluster of which a worker dies."""

from __future__ import annotations

import os
import signal
import threading
import time

import anndata
import numpy as np
import pytest

import stalign
from stalign._constants import Keys
from stalign.cli import main

distributed = pytest.importorskip("distributed")
ROUNDING = 2e-6  # of values around 1
N_SECTIONS = 5


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "cohort"
    folder.mkdir()
    for seed in range(N_SECTIONS):
        stalign.datasets.toy(8, seed).write_h5ad(folder / f"{seed}.h5ad")
    return folder


def _kill_one(client, out):
    """Kill a worker once it has written something."""
    while not any(out.glob("*.h5ad")):
        time.sleep(0.02)
    os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="ends a process as Unix does")
def test_a_cohort_is_complete_and_the_same_although_a_worker_dies(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        death = threading.Thread(target=_kill_one, args=(client, out))
        death.start()
        assert main(["embed", str(folder), "--out", str(out), "--dask", cluster.scheduler_address]) == 0
        death.join()
    assert capsys.readouterr().out.count(": embedded in") == N_SECTIONS
    for seed in range(N_SECTIONS):
        expected = stalign.datasets.toy(8, seed)
        stalign.tl.embed(expected)
        found = anndata.read_h5ad(out / f"{seed}.stalign.h5ad")
        np.testing.assert_allclose(found.obsm[Keys.EMBED], expected.obsm[Keys.EMBED], atol=ROUNDING)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.h5ad")}
    assert main(["embed", str(folder), "--out", str(out), "--dask", "2"]) == 0
    assert capsys.readouterr().out.count("there already") == N_SECTIONS
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("*.h5ad")}


def test_workers_name_the_section_that_fails_and_do_the_others(folder, tmp_path, capsys):
    for seed in range(2, N_SECTIONS):
        (folder / f"{seed}.h5ad").unlink()
    (folder / "broken.h5ad").write_text("no table")
    out = tmp_path / "out"
    assert main(["embed", str(folder), "--out", str(out), "--dask", "1"]) == 1
    told = capsys.readouterr()
    assert "broken.h5ad: Expected" in told.err and told.out.count(": embedded in") == 2


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "no-such-host"])
def test_a_cluster_that_is_not_there_is_named(folder, capsys, address, monkeypatch):
    monkeypatch.setattr("stalign.cli._cohort._PATIENCE", "1s")
    assert main(["embed", str(folder), "--dask", address]) == 1
    assert address in capsys.readouterr().err and len(list(folder.iterdir())) == N_SECTIONS


def test_a_file_made_with_other_options_is_not_taken_for_done(folder, tmp_path, capsys):
    section, out = folder / "0.h5ad", tmp_path / "out.h5ad"
    assert main(["embed", str(section), "--out", str(out)]) == 0
    kept = out.read_bytes()
    assert main(["embed", str(section), "--out", str(out), "--mpp", "3", "--seed", "1"]) == 1
    assert "another mpp, seed" in capsys.readouterr().err and out.read_bytes() == kept
    assert main(["embed", str(section), "--out", str(out), "--device", "cpu"]) == 0  # changes no result
    assert "there already" in capsys.readouterr().out
    aliases = tmp_path / "aliases.tsv"
    aliases.write_text("alias\tsymbol\nOLD\tACTB\n")
    assert main(["embed", str(section), "--out", str(out), "--aliases", str(aliases)]) == 1
    assert "another aliases" in capsys.readouterr().err
    assert main(["embed", str(section), "--out", str(out), "--aliases", str(aliases), "--overwrite"]) == 0
    stalign.datasets.toy(n_rows=8).write_h5ad(out)
    assert main(["embed", str(section), "--out", str(out)]) == 1
    assert "another program" in capsys.readouterr().err


def test_encode_and_predict_write_what_the_functions_return(folder, tmp_path):
    out = tmp_path / "out"
    files = [str(folder / "0.h5ad"), str(folder / "1.h5ad")]
    assert main(["encode", *files, "--out", str(out), "--encoder", "colour", "--level", "112"]) == 0
    expected = stalign.datasets.toy(8, 1)
    stalign.tl.encode(expected, "colour", level=112)
    key = next(key for key in expected.obsm if key.startswith("X_"))
    found = anndata.read_h5ad(out / "1.stalign-colour.h5ad")
    np.testing.assert_array_equal(found.obsm[key], expected.obsm[key])
    reference = str(folder / "2.h5ad")
    assert main(["predict", *files, "--out", str(out), "--reference", reference, "--genes", "3"]) == 0
    expected = stalign.tl.predict_genes(expected, anndata.read_h5ad(reference), genes=3, random_state=0)
    found = anndata.read_h5ad(out / "1.stalign-genes.h5ad")
    assert list(found.var_names) == list(expected.var_names) and len(list(out.iterdir())) == 4
    np.testing.assert_allclose(found.X, expected.X, atol=1e-5)
