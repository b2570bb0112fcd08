"""Single tables of the benchmark program, on small sections."""

from __future__ import annotations

import json
from dataclasses import replace
from subprocess import CompletedProcess

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from benchmarks.cells import Missing, Results
from benchmarks.config import Config
from benchmarks.features import encoder
from benchmarks.sections import find
from benchmarks.tables import (
    TABLES,
    hest_bench,
    peers,
    scale,
    speed,
    st_align_table3,
    stimage_probe,
    stimage_tsne,
    table,
)

import stalign
from benchmarks import short_training
from stalign.train.slides import as_slides
from stalign.train.store import open_store


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two small sections of two donors."""
    folder = tmp_path_factory.mktemp("sections")
    for i in range(2):
        adata = stalign.datasets.toy(12, seed=i)
        adata.obs["donor"] = f"D{i}"
        adata.write_h5ad(folder / f"s{i}.h5ad")
    return [f"{folder / f's{i}.h5ad'}@domain" for i in range(2)]


def _config(tmp_path, *slices, **more) -> Config:
    return Config(data=tmp_path, cache=tmp_path / "cache", out=tmp_path / "out", slices=slices, **more)


def _values(module, config, *rows):
    return {
        (cell.row, cell.column, cell.seed, cell.settings): cell.compute()
        for cell in module.cells(config)
        if any(row in cell.row for row in rows)
    }


@pytest.mark.parametrize("name", list(TABLES))
def test_tables_have_what_the_program_asks_of_them(name):
    module = table(name)
    assert module.TITLE and module.NOTE.strip() and callable(module.cells)
    best = getattr(module, "BEST", {})
    assert set([best] if isinstance(best, str) else best.values()) <= {"min", "max", "none"}


def test_genes_by_spot_and_by_patient(tmp_path, files, monkeypatch):
    names = list(find(files[0], _config(tmp_path)).read().var_names[:3])
    monkeypatch.setattr(st_align_table3, "GENES", names)
    monkeypatch.setattr(st_align_table3, "GROUPS", {"group": tuple(names[:2])})
    found = _values(st_align_table3, _config(tmp_path, *files), "colour statistics", "the level alone")
    spot, patient = st_align_table3.SPLITS.values()
    errors = found["colour statistics", "all", 0, "s0, by spot"]
    parts = [errors[name, spot] for name in names]
    assert errors["group", spot] == pytest.approx(np.mean(parts[:2]))
    assert errors["all", spot] == pytest.approx(np.mean(parts))
    assert {metric for _, metric in found["colour statistics", "all", 0, "s1, by patient"]} == {patient}
    assert found["the level alone", "all", 0, "s0, by spot"]["all", spot] > 0
    with pytest.raises(Missing, match="another donor"):
        _values(st_align_table3, _config(tmp_path, files[0]), "raw pixels")


def test_probes_and_scores_of_regions(tmp_path, files):
    found = _values(stimage_probe, _config(tmp_path, files[0], seeds=2), "colour statistics")
    adata = find(files[0], _config(tmp_path)).read()
    probed = stalign.tl.probe(adata, "domain", use_rep="X_colour_spot", seeds=(0, 1))
    mean = np.mean([found["colour statistics", "s0", seed, "of 2 splits"]["macro-F1"] for seed in (0, 1)])
    assert mean == pytest.approx(probed["macro_f1"].iloc[0])
    assert set(found["colour statistics", "s0", 0, "regions"]) == {"silhouette", "Calinski-Harabasz", "Davies-Bouldin"}
    with pytest.raises(Missing, match="--weights clip-vit-b32=PATH"), stalign.settings.override(offline=True):
        _values(stimage_probe, _config(tmp_path, files[0]), "CLIP, tuned, hvg")


def test_tsne_is_drawn(tmp_path, files, monkeypatch):
    config = _config(tmp_path, files[0])
    only = [row for row in stimage_probe.methods(config, []) if row.name in ("colour statistics", "UNI, zero-shot")]
    monkeypatch.setattr(stimage_tsne, "methods", lambda *_: only)
    with stalign.settings.override(offline=True):
        ((_, drawn),) = _values(stimage_tsne, config, "figure").items()
    assert drawn == {"embeddings": 1.0} and (config.out / "stimage-tsne-s0.png").is_file()


@pytest.fixture
def bench(tmp_path):
    """A task in the layout of HEST-bench: three samples, two folds, genes that follow the colour of the patch."""
    folder, rng = tmp_path / "bench" / "IDC", np.random.default_rng(0)
    for name in ("patches", "adata", "splits"):
        (folder / name).mkdir(parents=True)
    genes = [f"G{i}" for i in range(6)]
    for sample in ("S1", "S2", "S3"):
        shade = rng.uniform(40, 220, 40)
        patches = np.clip(shade[:, None, None, None] + rng.normal(0, 5, (40, 32, 32, 3)), 0, 255).astype(np.uint8)
        barcodes = [f"b{i}" for i in range(40)]
        with h5py.File(folder / "patches" / f"{sample}.h5", "w") as file:
            file["img"], file["coords"] = patches, np.zeros((40, 2))
            file["barcodes"] = np.array(barcodes, dtype="S")[:, None]
        counts = rng.poisson(shade[:, None] / 10, (40, 6)).astype(np.float32)
        order = rng.permutation(40)  # tables are in another order, and have a spot without a patch
        obs = pd.DataFrame(index=[*np.array(barcodes)[order], "off"])
        adata = AnnData(np.vstack([counts[order], np.ones((1, 6), np.float32)]), obs, pd.DataFrame(index=genes))
        adata.obsm["spatial"] = rng.uniform(0, 1000, (41, 2))
        adata.write_h5ad(folder / "adata" / f"{sample}.h5ad")
    (folder / "var_50genes.json").write_text(json.dumps({"genes": genes[:4]}))
    for i, (train, test) in enumerate(((["S1", "S2"], ["S3"]), (["S2", "S3"], ["S1"]))):
        for part, names in (("train", train), ("test", test)):
            rows = [(name, f"patches/{name}.h5", f"adata/{name}.h5ad") for name in names]
            frame = pd.DataFrame(rows, columns=["sample_id", "patches_path", "expr_path"])
            frame.to_csv(folder / "splits" / f"{part}_{i}.csv", index=False)
    return folder.parent


def test_hest_bench_reads_its_layout_and_splits(tmp_path, bench):
    config = _config(tmp_path, bench=bench)
    cells = [cell for cell in hest_bench.cells(config) if cell.row.startswith("colour;")]
    there = {(cell.row, cell.seed): cell.compute()["Pearson"] for cell in cells if cell.column == "IDC"}
    assert set(there) == {(f"colour; {model}", fold) for model in hest_bench.MODELS for fold in (0, 1)}
    assert min(there.values()) > 0.5
    with pytest.raises(Missing, match="no folder PRAD.*MahmoodLab/hest-bench"):
        next(cell for cell in cells if cell.column == "PRAD").compute()
    with pytest.raises(Missing, match="--bench FOLDER"):
        next(hest_bench.cells(_config(tmp_path))).compute()


def test_ridge_of_hest_bench_is_the_published_formula():
    rng = np.random.default_rng(0)
    x, y, new = rng.normal(size=(60, 5)), rng.normal(size=(60, 3)) + 2, rng.normal(size=(4, 5))
    scaled, moved = ((values - x.mean(0)) / x.std(0) for values in (x, new))
    weights = np.linalg.solve(scaled.T @ scaled + 100 / (5 * 3) * np.eye(5), scaled.T @ y)
    assert np.allclose(hest_bench.ridge(x, y, new), moved @ weights, atol=1e-3)  # components turn, and change nothing


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    """A folder of adapters that a test writes."""
    folder = tmp_path / "peers"
    folder.mkdir()
    (folder / "common.py").write_text((peers.HERE / "common.py").read_text())
    monkeypatch.setattr(peers, "HERE", folder)
    return folder


def test_peers_run_in_a_process_of_their_own(tmp_path, files, adapters, monkeypatch):
    (adapters / "run_scanpy.py").write_text(
        "from common import main\nmain(lambda adata, n, seed: [str(i % n) for i in range(adata.n_obs)])\n"
    )
    (adapters / "run_squidpy.py").write_text("raise ValueError('not today')\n")
    (adapters / "banksy.txt").write_text("nothing==1\n")
    config = _config(tmp_path, files[0], seeds=1)
    cells = {cell.row: cell for cell in peers.cells(config)}
    found = cells["scanpy"].compute()
    assert set(found) == {"ARI", "NMI", "seconds", "CPU seconds", "GB"} and found["GB"] > 0 and abs(found["ARI"]) < 0.2
    with pytest.raises(Missing, match="failed: ValueError: not today"):
        cells["squidpy"].compute()
    with pytest.raises(Missing, match="named with `--peers graphst`"):
        cells["graphst"].compute()

    named = {cell.row: cell for cell in peers.cells(_config(tmp_path, files[0], seeds=1, peers=("banksy",)))}

    def pip(command, **_):
        return CompletedProcess(command, int("pip" in command), "", "ERROR: No matching distribution\n[notice] new pip")

    monkeypatch.setattr(peers.subprocess, "run", pip)
    for _ in range(2):  # the second time from what was noted
        peers.environment.cache_clear()
        with pytest.raises(Missing, match="does not install: ERROR: No matching distribution"):
            named["banksy"].compute()
    with pytest.raises(SystemExit, match="Expected --peers among"):
        list(peers.cells(_config(tmp_path, files[0], peers=("nobody",))))


_STEPS = """\
import time
from common import main

def embed(adata, n, seed):
    held = b'1' * ({mb} * 1_000_000)
    end = time.process_time() + {seconds}
    while time.process_time() < end:
        pass

def domains(adata, n, seed):
    return [str(i % max(n, 1)) for i in range(adata.n_obs)]

main(embed, domains)
"""
_ONE_STEP = "import time\nfrom common import main\n\ndef domains(adata, n, seed):\n    {}\n\nmain(domains)\n"


def test_speed_is_of_each_step_and_over_the_baseline(tmp_path, files, adapters):
    (adapters / "run_stalign.py").write_text(_STEPS.format(mb=400, seconds=0.2))
    (adapters / "run_niche_mean.py").write_text(_ONE_STEP.format("time.sleep(0.1); return ['0'] * adata.n_obs"))
    (adapters / "run_scanpy.py").write_text(_ONE_STEP.format("raise ValueError('not today')"))
    cells = {cell.row: cell for cell in speed.cells(_config(tmp_path, files[0]))}
    found = {row: cells[row].compute() for row in speed.ROWS[:4]}
    base, embed, domains, both = ({name: v for (name, _), v in found[row].items()} for row in speed.ROWS[:4])
    assert set(base) == set(speed.COLUMNS) == set(cells["BANKSY"].columns)
    assert base["times the baseline"] == 1 and base["seconds"] >= 0.1 > base["CPU seconds"]
    assert embed["CPU seconds"] >= 0.19 and embed["times the baseline"] == embed["seconds"] / base["seconds"]
    assert both["seconds"] == embed["seconds"] + domains["seconds"] and both["runs"] == speed.RUNS
    assert embed["GB"] > domains["GB"] + 0.3 and both["GB"] == embed["GB"]
    with pytest.raises(Missing, match="not today"):
        cells["scanpy: PCA and Leiden"].compute()
    with pytest.raises(Missing, match="--peers banksy"):
        cells["BANKSY"].compute()
    absent = next(speed.cells(_config(tmp_path)))
    with pytest.raises(Missing, match="no dlpfc/151673.h5ad"):
        absent.compute()


def test_scale_fits_exponents_and_ends_what_takes_too_long(tmp_path, adapters):
    for name in ("stalign", "niche_mean"):
        (adapters / f"run_{name}.py").write_text(_STEPS.format(mb=1, seconds="adata.n_obs / 5000"))
    (adapters / "run_scanpy.py").write_text(_ONE_STEP.format("time.sleep(100)"))
    config, results = _config(tmp_path, bins=(500, 2000)), Results("scale", tmp_path / "out")
    (reason,) = {results.run(cell) for cell in scale.cells(config) if cell.row == "`tl.embed`, from genes"}
    assert reason == ""
    table = results.rows.set_index(["column", "metric"])["value"]
    first, last = (table[f"{n} bins" if n < 1000 else "2,000 bins", "CPU seconds"] for n in config.bins)
    assert table["exponent", "CPU seconds"] == pytest.approx(np.log(last / first) / np.log(4))
    assert table["exponent", "CPU seconds"] == pytest.approx(1, abs=0.3)
    quick = config.model_copy(update={"limit": 3})
    cell = next(cell for cell in scale.cells(quick) if cell.row.startswith("scanpy"))
    with pytest.raises(Missing, match="more than 3 s; `--limit SECONDS`"):
        cell.compute()
    exponent = next(cell for cell in scale.cells(quick) if cell.row == "BANKSY" and cell.column == "exponent")
    with pytest.raises(Missing, match="two sizes"):
        exponent.compute()


def test_features_of_one_encoder_are_computed_once_for_all_tables(tmp_path, files, monkeypatch):
    config, calls = _config(tmp_path, files[0]), []
    section = find(files[0], config)
    section.read().obsm.pop("X_colour_spot", None)
    encode = stalign.tl.encode
    monkeypatch.setattr(stalign.tl, "encode", lambda *given, **more: calls.append(given[1]) or encode(*given, **more))
    for row in ("colour statistics", "colours"):
        assert encoder(row, "colour", config).of(section) == "X_colour_spot"
    assert calls == ["colour"]


def test_variants_of_the_same_changes_are_trained_once_for_all_tables(tmp_path, monkeypatch):
    config = _config(tmp_path, steps=1)
    recipe, shape = short_training._recipe(config)
    data = replace(recipe.data, vocabulary=None, exclude=())
    store = open_store(as_slides([stalign.datasets.toy(12)]), data, shape.input)
    monkeypatch.setattr(short_training, "_store", lambda *_: store)
    with stalign.settings.override(show_progress=False):
        full, same = (short_training.train({"loss": {"lambda_spot": 0.4}}, seed, config) for seed in (0, 0))
        other = short_training.train({"loss": {"lambda_spot": 0.4}}, 1, config)
    assert full is same and full is not other
    adata = stalign.datasets.toy(12)
    stalign.tl.embed(adata, full)
    assert np.isfinite(adata.obsm["X_stalign_fused"]).all()
