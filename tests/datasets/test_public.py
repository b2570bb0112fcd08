"""Public data sets, fetched from a server on this machine that holds small files in their layouts."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import json
import threading

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import sparse

import stalign
from stalign.datasets import _fetch
from stalign.datasets._fetch import fetch, git_blob, registry


class Handler(http.server.SimpleHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self):
        Handler.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A folder and the URL under which it is served."""
    root = tmp_path / "mirror"
    root.mkdir()
    Handler.asked = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.delenv(_fetch.ENVIRONMENT, raising=False)
    with stalign.settings.override(cache_dir=tmp_path / "cache"):
        yield


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def known(monkeypatch):
    """Give the files below a folder the hashes that the registry would hold."""

    def register(dataset, root, blobs=(), without=()):
        hashes = {}
        for file in (path for path in root.rglob("*") if path.is_file()):
            name = str(file.relative_to(root))
            if name in without:
                continue
            sha = hashlib.sha256(file.read_bytes()).hexdigest()
            hashes[name] = f"gitblob:{git_blob(file)}" if name in blobs else f"sha256:{sha}"
        monkeypatch.setattr(_fetch, "registry", lambda: {dataset: hashes})
        monkeypatch.setattr(stalign.datasets._public, "registry", lambda: {dataset: hashes})

    return register


def small_dlpfc(root, section="151673", n=8):
    rng = np.random.default_rng(0)
    row, column = (index.ravel() for index in np.mgrid[0:n, 0:n])
    column = 2 * column + row % 2
    barcodes = [f"AAAC{i:04d}-1" for i in range(n * n)]
    x, y = 200 + column * 69, 200 + row * 119.3
    inside = np.ones(n * n, dtype=int)
    inside[-1] = 0
    positions = pd.DataFrame({"b": barcodes, "t": inside, "r": row, "c": column, "y": y.round(), "x": x.round()})
    folder = root / "10X" / section
    put(folder / "tissue_positions_list.txt", positions.to_csv(index=False, header=False))
    factors = {"tissue_hires_scalef": 0.15, "tissue_lowres_scalef": 0.045, "spot_diameter_fullres": 96.4,
               "fiducial_diameter_fullres": 144.6}  # fmt: skip
    put(folder / "scalefactors_json.json", json.dumps(factors))
    for name, size in (("hires", 240), ("lowres", 72)):
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(folder / f"tissue_{name}_image.png")
    labels = ["L1", "L3", "WM"]
    rows = [f"{b}\t{section}\t{labels[i % 3]}" for i, b in enumerate(barcodes) if i != 5]
    rows += [f"{b}\t151507\tL6" for b in barcodes]  # the same barcodes in another section
    put(root / "10X" / "barcode_level_layer_map.tsv", "\n".join(rows) + "\n")
    counts = sparse.csc_matrix(rng.poisson(1.0, (5, n * n - 1)).astype(np.int32))
    (root / "h5").mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "h5" / f"{section}_filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        group["data"], group["indices"], group["indptr"] = counts.data, counts.indices, counts.indptr
        group["shape"] = np.array(counts.shape, dtype=np.int32)
        group["barcodes"] = np.array(barcodes[:-1], dtype="S")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(5)], dtype="S")
        features["name"] = np.array(["MOBP", "PCP4", "SNAP25", "TBCE", "TBCE"], dtype="S")
        features["feature_type"] = np.array(["Gene Expression"] * 5, dtype="S")
        features["genome"] = np.array(["GRCh38"] * 5, dtype="S")
    return counts


def test_dlpfc(mirror, known):
    root, url = mirror
    counts = small_dlpfc(root)
    known("dlpfc", root, {"10X/151673/tissue_hires_image.png"}, {"h5/151673_filtered_feature_bc_matrix.h5"})
    adata = stalign.datasets.dlpfc(151673, base_url=url)
    assert adata.shape == (63, 5) and adata.var_names.is_unique
    np.testing.assert_array_equal(adata.X.toarray(), counts.T.toarray())
    assert list(adata.obs["layer"].cat.categories) == ["L1", "L3", "WM"] and adata.obs["layer"].cat.ordered
    assert adata.obs["layer"].isna().sum() == 1 and adata.obs["layer"].isna().iloc[5]
    assert adata.obs["layer"].iloc[2] == "WM" and set(adata.obs["donor"]) == {"Br8100"}
    np.testing.assert_allclose(adata.obsm["spatial"][9], [200 + 3 * 69, 319])
    assert adata.uns["spatial"]["151673"]["images"]["hires"].shape == (240, 240, 3)
    (view,) = stalign.data.open_sections(adata)
    assert view.technology == "visium" and view.coord_mpp == pytest.approx(100 / 138, rel=0.01)


def test_second_time_asks_nothing_of_the_network(mirror, known):
    root, url = mirror
    small_dlpfc(root)
    known("dlpfc", root, {"10X/151673/tissue_hires_image.png"}, {"h5/151673_filtered_feature_bc_matrix.h5"})
    stalign.datasets.dlpfc("151673", base_url=url)
    first = len(Handler.asked)
    assert first == 5
    adata = stalign.datasets.dlpfc("151673", base_url="http://127.0.0.1:9")
    assert len(Handler.asked) == first and adata.n_obs == 63


def test_mirror_from_the_environment(mirror, known, monkeypatch):
    root, url = mirror
    small_dlpfc(root / "dlpfc")
    known("dlpfc", root / "dlpfc")
    monkeypatch.setenv(_fetch.ENVIRONMENT, url + "/")
    assert stalign.datasets.dlpfc("151673", image="lowres").n_obs == 63
    assert all(path.startswith("/dlpfc/") for path in Handler.asked)


def small_her2st(root, section="C2"):
    """Spots on a bent grid, a table with one spot that has no position, labels with a missing row."""
    rng = np.random.default_rng(0)
    x, y = (index.ravel() for index in np.mgrid[2:8, 3:9])
    new_x, new_y = (np.round(v + rng.normal(0, 0.05, 36), 3) for v in (x, y))
    spots = pd.DataFrame({"x": x, "y": y, "new_x": new_x, "new_y": new_y, "pixel_x": new_x * 290 + 7,
                          "pixel_y": new_y * 290 - 3, "selected": 1})  # fmt: skip
    put(root / "data" / "ST-spotfiles" / f"{section}_selection.tsv", spots.to_csv(sep="\t", index=False))
    names = [f"{a}x{b}" for a, b in zip(x, y, strict=True)][::-1]
    table = pd.DataFrame(rng.poisson(2, (37, 3)), index=[*names, "30x30"], columns=["ERBB2", "GAPDH", "A.1"])
    put(root / "data" / "ST-cnts" / f"{section}.tsv.gz", gzip.compress(table.to_csv(sep="\t").encode()))
    labels = pd.DataFrame({"Row.names": "x", "x": new_x, "y": new_y, "pixel_x": 0.0, "pixel_y": 0.0,
                           "label": np.where(x < 5, "invasive cancer", "adipose tissue")})  # fmt: skip
    labels.loc[3, ["x", "y"]] = np.nan
    put(root / "data" / "ST-pat" / "lbl" / f"{section}_labeled_coordinates.tsv", labels.to_csv(sep="\t", index=False))
    (root / "data" / "ST-imgs" / section[0] / section).mkdir(parents=True)
    Image.new("RGB", (2600, 2700), "white").save(root / "data" / "ST-imgs" / section[0] / section / "some name.jpg")
    return spots, table


def test_her2st(mirror, known):
    root, url = mirror
    spots, table = small_her2st(root)
    known("her2st", root)
    adata = stalign.datasets.her2st("C2", base_url=url)
    np.testing.assert_array_equal(adata.X.toarray(), table.to_numpy())
    assert adata.obs_names[0] == "C2_7x8" and adata.X.dtype == np.int32
    np.testing.assert_allclose(adata.obsm["spatial"][0], spots.iloc[-1][["pixel_x", "pixel_y"]].astype(float))
    assert np.isnan(adata.obsm["spatial"][-1]).all() and adata.obsm["spatial"].flags.writeable
    expected = np.where(spots["x"] < 5, "invasive cancer", "adipose tissue")[::-1]
    found = adata.obs["label"][:36]
    assert found.isna().sum() == 1 and (found.dropna().to_numpy() == expected[found.notna().to_numpy()]).all()
    (view,) = stalign.data.open_sections(adata)
    assert view.technology == "st" and view.coord_mpp == pytest.approx(200 / 290, rel=0.01)
    assert view.spot_diameter_um == pytest.approx(100, rel=0.01) and view.image.shape == (2700, 2600)


def test_her2st_without_image_or_labels(mirror, known):
    root, url = mirror
    small_her2st(root)
    known("her2st", root, without={"data/ST-pat/lbl/C2_labeled_coordinates.tsv"})
    adata = stalign.datasets.her2st("C2", image=False, base_url=url)
    assert "label" not in adata.obs and not any("ST-imgs" in path for path in Handler.asked)


@pytest.mark.parametrize("blob", [True, False])
def test_wrong_content_is_refused_and_not_kept(mirror, known, tmp_path, blob):
    root, url = mirror
    put(root / "file.bin", b"right")
    known("some", root, {"file.bin"} if blob else ())
    put(root / "file.bin", b"wrong")
    target = tmp_path / "kept" / "file.bin"
    with pytest.raises(ValueError, match="hash"):
        fetch("some", "file.bin", target, host=url, base_url=None)
    assert not target.exists()


@pytest.mark.parametrize("blob", [True, False])
def test_a_broken_copy_is_fetched_again(mirror, known, tmp_path, blob):
    root, url = mirror
    put(root / "file.bin", b"right")
    known("some", root, {"file.bin"} if blob else ())
    target = tmp_path / "kept" / "file.bin"
    put(target, b"half")
    fetch("some", "file.bin", target, host=url, base_url=None)
    assert target.read_bytes() == b"right"


def test_first_hash_holds_where_none_is_published(mirror, known, tmp_path):
    root, url = mirror
    put(root / "file.bin", b"first")
    known("some", root, without={"file.bin"})
    target = tmp_path / "kept" / "file.bin"
    fetch("some", "file.bin", target, host=url, base_url=None)
    target.unlink()
    put(root / "file.bin", b"other")
    with pytest.raises(ValueError, match="hash"):
        fetch("some", "file.bin", target, host=url, base_url=None)


def test_missing_file_and_no_network(mirror, known, tmp_path):
    root, url = mirror
    known("some", root)
    target = tmp_path / "kept" / "file.bin"
    with pytest.raises(FileNotFoundError, match="404"):
        fetch("some", "file.bin", target, host=url, base_url=None)
    with pytest.raises(ConnectionError, match="put it at") as caught:
        fetch("some", "file.bin", target, host="http://127.0.0.1:9", base_url=None)
    assert str(target) in str(caught.value) and not target.exists()


def test_unknown_sections_are_listed():
    with pytest.raises(ValueError, match="151507"):
        stalign.datasets.dlpfc("151500")
    with pytest.raises(ValueError, match="A1"):
        stalign.datasets.her2st("Z9")
    with pytest.raises(ValueError, match="hires"):
        stalign.datasets.dlpfc("151673", image="full")


def test_git_blob_is_that_of_git(tmp_path):
    put(tmp_path / "a", b"hello\n")
    assert git_blob(tmp_path / "a") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_registry_is_complete():
    hashes = registry()
    sections = [str(n) for n in (*range(151507, 151511), *range(151669, 151677))]
    for section in sections:
        for name in ("scalefactors_json.json", "tissue_positions_list.txt", "tissue_lowres_image.png"):
            assert hashes["dlpfc"][f"10X/{section}/{name}"].startswith("sha256:")
        assert hashes["dlpfc"][f"10X/{section}/tissue_hires_image.png"].startswith("gitblob:")
    counts = [path for path in hashes["her2st"] if "ST-cnts" in path]
    assert len(counts) == 36
    for path in counts:
        section = path.split("/")[-1].removesuffix(".tsv.gz")
        assert f"data/ST-spotfiles/{section}_selection.tsv" in hashes["her2st"]
    lengths = {"sha256": 64, "gitblob": 40}
    for value in (*hashes["dlpfc"].values(), *hashes["her2st"].values()):
        kind, digits = value.split(":")
        assert len(digits) == lengths[kind]


@pytest.mark.real
def test_registry_agrees_with_real_files(shared_data):
    hashes = registry()["dlpfc"]
    for name in ("scalefactors_json.json", "tissue_lowres_image.png"):
        content = (shared_data / "dlpfc" / "sections" / "151673" / name).read_bytes()
        assert hashes[f"10X/151673/{name}"] == f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_visium_goes_through_squidpy(monkeypatch, tmp_path):
    import requests
    import squidpy

    asked = {}

    def fake(sample, *, include_hires_tiff, base_dir):
        asked.update(sample=sample, tiff=include_hires_tiff, where=base_dir)
        if sample == "offline":
            raise requests.exceptions.ConnectionError
        adata = stalign.datasets.toy(8, image=False)
        adata.var_names = ["TBCE", *adata.var_names[1:-1], "TBCE"]
        return adata

    monkeypatch.setattr(squidpy.datasets, "visium", fake)
    adata = stalign.datasets.visium("V1_Human_Brain_Section_1")
    assert adata.var_names.is_unique and asked["where"] == tmp_path / "cache" / "datasets" / "visium"
    with pytest.raises(ConnectionError, match="offline"):
        stalign.datasets.visium("offline")


HGNC = (
    "hgnc_id\tsymbol\tname\tlocus_group\tlocus_type\tstatus\tlocation\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    'HGNC:11075\tNHERF1\tNHERF family\tp\tg\tApproved\t17\t"EBP50|NHERF"\tSLC9A3R1\tENSG00000109062\n'
)


def test_gene_aliases_are_fetched_once_and_pinned(mirror):
    root, url = mirror
    put(root / "hgnc_complete_set.txt", HGNC)
    assert stalign.datasets.gene_aliases(base_url=url)["SLC9A3R1"] == "NHERF1"
    assert stalign.datasets.gene_aliases(base_url="http://127.0.0.1:9")["EBP50"] == "NHERF1"
    kept = stalign.settings.cache_dir / "datasets" / "hgnc" / "hgnc_complete_set.txt"
    assert stalign.datasets.gene_aliases(kept) == stalign.datasets.gene_aliases(base_url="http://127.0.0.1:9")
    kept.write_text("changed")
    put(root / "hgnc_complete_set.txt", HGNC + "more")
    with pytest.raises(ValueError, match="sha256"):
        stalign.datasets.gene_aliases(base_url=url)


def test_orthologs_are_public(tmp_path):
    put(tmp_path / "o.tsv", "human_symbol\tmouse_symbol\nSNAP25\tSnap25\n")
    assert stalign.datasets.orthologs(str(tmp_path / "o.tsv")) == {"Snap25": "SNAP25"}
    assert stalign.datasets.orthologs(tmp_path / "o.tsv", columns=("human_symbol", "mouse_symbol")) == {
        "SNAP25": "Snap25"
    }


def test_sources_have_a_licence_and_a_citation():
    table = stalign.datasets.sources()
    assert (table[["call", "url", "licence", "citation", "check"]].map(len) > 0).all(axis=None)
    assert set(registry()) <= set(table.index)
    assert all(hasattr(stalign.datasets, call.removeprefix("datasets.")) for call in table["call"])
