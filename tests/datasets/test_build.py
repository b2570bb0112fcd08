from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.datasets.test_public import known, mirror, small_dlpfc, small_her2st  # noqa: F401 (fixtures)

import stalign
from stalign.cli import main
from stalign.datasets import _build, _fetch


def put_section(path, *, obs=(), var=(), image=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    adata = ad.AnnData(np.ones((4, 3), np.float32))
    adata.obsm["spatial"] = np.arange(8.0).reshape(4, 2)
    for key in obs:
        adata.obs[key] = "x"
    for key in var:
        adata.var[key] = "x"
    if image is not None:
        (path.parent / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path.parent / image)
        adata.uns["spatial"] = {"s": {"images": {}, "scalefactors": {}, "metadata": {"image_file": image}}}
    adata.write_h5ad(path)


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "given"
    for name, facts in _build.layout().items():
        if name.endswith(".h5ad"):
            image = "images/a.png" if name.startswith("mob") else None
            put_section(root / name, obs=facts.get("obs", ()), var=facts.get("var", ()), image=image)
        elif "." in name:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text("x")
        else:
            (root / name / "spatial").mkdir(parents=True)
    return root


@pytest.fixture(autouse=True)
def _nowhere(tmp_path, monkeypatch):
    """No network: a mirror that nobody answers for."""
    monkeypatch.setenv(_fetch.ENVIRONMENT, "http://127.0.0.1:9")
    with stalign.settings.override(cache_dir=tmp_path / "cache"):
        yield


@pytest.mark.parametrize("copy", [False, True])
def test_from_a_folder_that_has_it(source, tmp_path, copy):
    out = tmp_path / "out"
    table = stalign.datasets.build(out, source, copy=copy)
    assert set(table["state"]) == {"copied" if copy else "linked"} and (table["why"] == "").all()
    assert (out / "mob/rep1.h5ad").is_symlink() is not copy
    assert (out / "mob/images/a.png").is_file() and (out / "visium-mouse-embryo/spatial").is_dir()
    assert set(stalign.datasets.build(out, source)["state"]) == {"there"}
    assert list(stalign.io.read_h5ad(out / "mob/rep1.h5ad").obs) == ["layer"]


def test_what_cannot_be_had_is_listed_with_its_reason(source, tmp_path, capsys):
    (source / "mob/images/a.png").unlink()
    put_section(source / "dlpfc/151673.h5ad", obs=["layer"])
    (source / "tnbc/120E.h5ad").write_text("damaged")
    (source / "fetal-colon/A3.h5ad").unlink()
    assert main(["datasets", "build", str(tmp_path / "out"), "--from", str(source)]) == 1
    told = capsys.readouterr().out
    assert "rep1.h5ad: it lacks its image images/a.png; no fetcher reads" in told
    assert "151673.h5ad: it lacks obs['sum_umi'], var['gene_name']; Expected to reach http://127.0.0.1:9/dlpfc" in told
    assert "120E.h5ad: it cannot be read" in told
    assert "missing  fetal-colon/A3.h5ad: no fetcher reads github.com/qunhualilab" in told
    assert "18 of 23 are in" in told
    assert not (tmp_path / "out/tnbc/120E.h5ad").exists()


def test_from_the_fetchers(mirror, known, tmp_path, monkeypatch):  # noqa: F811
    root, url = mirror
    counts = small_dlpfc(root / "dlpfc")
    monkeypatch.setattr(_build, "_HER2ST", ["C2"])
    small_her2st(root / "her2st")
    known("her2st", root / "her2st")
    table = stalign.datasets.build(tmp_path / "out", base_url=url).set_index("file")
    assert table.loc["dlpfc/151673.h5ad", "state"] == "fetched" == table.loc["her2st/her2st.h5ad", "state"]
    assert table.loc["mob/rep1.h5ad", "why"].startswith("no fetcher reads github.com/ludvigla/spaceST")
    section = stalign.io.read_h5ad(tmp_path / "out/dlpfc/151673.h5ad")
    np.testing.assert_array_equal(section.obs["sum_umi"], np.asarray(counts.sum(axis=0)).ravel())
    assert section.var["gene_name"].tolist()[0] == "MOBP"
    assert list(section.obs["layer"].cat.categories) == ["L1", "L3", "WM"]
    whole = stalign.io.read_h5ad(tmp_path / "out/her2st/her2st.h5ad")
    assert set(whole.obs["section"]) == {"C2"} and list(whole.uns["spatial"]) == ["C2"]
    assert set(stalign.datasets.build(tmp_path / "out", base_url=url)["state"]) == {"there", "missing"}


def test_folders_that_are_wrong(source, tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected `source` to be a folder"):
        stalign.datasets.build(tmp_path / "out", tmp_path / "none")
    with pytest.raises(ValueError, match="another folder than `source`"):
        stalign.datasets.build(source, source)


def stimage_rows():
    rows = {"slide": ["a", "b", "c", "c"], "tissue": ["brain", "brain", "breast", "breast"],
            "pmid": ["1", "1", None, None], "species": ["human", "mouse", "human", "human"],
            "tech": ["Visium", "Visium", "ST", "ST"], "spot_num": ["10", "20", "30", "30"]}  # fmt: skip
    return pd.DataFrame(rows)


def test_summary_of_stimage_and_of_hest(tmp_path, capsys):
    stimage_rows().to_csv(tmp_path / "meta_all_gene.csv", index=False)
    found = stalign.datasets.summary(tmp_path / "meta_all_gene.csv")
    assert found.attrs["collection"] == "STimage-1K4M"
    assert found.to_numpy().tolist() == [
        ["all", "", 3, 60, 1],
        ["technology", "Visium", 2, 30, 1],
        ["technology", "ST", 1, 30, 0],
        ["species", "human", 2, 40, 1],
        ["species", "mouse", 1, 20, 1],
        ["organ", "brain", 2, 30, 1],
        ["organ", "breast", 1, 30, 0],
    ]
    hest = pd.DataFrame({"id": ["A", "B"], "organ": ["Brain", None], "species": "Homo sapiens", "dataset_title": "t",
                         "st_technology": "Visium", "spots_under_tissue": [5, 6]})  # fmt: skip
    assert stalign.datasets.summary(hest).iloc[-1].tolist() == ["organ", "not stated", 1, 6, 1]
    assert main(["datasets", "summary", str(tmp_path / "meta_all_gene.csv")]) == 0
    assert "technology" in capsys.readouterr().out
    assert main(["datasets", "list", "--out", str(tmp_path / "list.csv")]) == 0
    assert "hgnc" in set(pd.read_csv(tmp_path / "list.csv")["name"])
    with pytest.raises(ValueError, match="HEST-1k"):
        stalign.datasets.summary(pd.DataFrame({"a": [1]}))
    assert main(["datasets", "summary"]) == 1
