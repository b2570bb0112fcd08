"""`stalign embed` and `stalign curate`: what is written, what is skipped, and how errors are told."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
import spatialdata
from tests.io.folders import write_visium

import stalign
from stalign._constants import Keys
from stalign.cli import main


@pytest.fixture(autouse=True)
def _small_weights(small_weights, monkeypatch):
    monkeypatch.setattr("stalign.models.weights._packaged", lambda entry, device: small_weights(seed=len(entry.name)))


@pytest.fixture
def section(tmp_path):
    path = tmp_path / "a.h5ad"
    stalign.datasets.toy(n_rows=8).write_h5ad(path)
    return path


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_file_is_embedded_beside_itself_and_once(section, capsys):
    before = section.read_bytes()
    assert main(["embed", str(section)]) == 0
    out = section.with_name("a.stalign.h5ad")
    assert f"1/1 {out}: embedded" in capsys.readouterr().out
    expected = stalign.io.read_h5ad(section)
    stalign.tl.embed(expected)
    np.testing.assert_array_equal(anndata.read_h5ad(out).obsm[Keys.EMBED], expected.obsm[Keys.EMBED])
    assert section.read_bytes() == before
    written = content(section.parent)
    assert main(["embed", str(section)]) == 0
    assert "there already" in capsys.readouterr().out and content(section.parent) == written
    earlier = anndata.read_h5ad(out)
    earlier.uns[Keys.UNS]["embed"] |= earlier.uns[Keys.UNS]["embed"].pop("params")
    earlier.write_h5ad(out)
    assert main(["embed", str(section)]) == 0
    assert "there already" in capsys.readouterr().out


def test_a_folder_of_all_kinds_goes_on_where_it_was(section, tmp_path, capsys):
    folder = tmp_path / "sections"
    folder.mkdir()
    section.rename(folder / "a.h5ad")
    write_visium(folder / "b")
    stalign.datasets.toy(n_rows=8).write_zarr(folder / "c.zarr")
    stalign.datasets.toy(n_rows=8, spatialdata=True).write(folder / "d.zarr")
    (folder / "e.h5ad").write_text("no table")
    (folder / "notes.txt").write_text("no section")
    before = content(folder)
    assert main(["embed", str(folder)]) == 1
    told = capsys.readouterr()
    assert "e.h5ad: Expected" in told.err and "Traceback" not in told.err and told.out.count("embedded in") == 4
    assert {path: text for path, text in content(folder).items() if path in before} == before
    for name in ("a.stalign.h5ad", "b.stalign.h5ad"):
        assert Keys.EMBED in anndata.read_h5ad(folder / name).obsm
    assert Keys.EMBED in anndata.read_zarr(folder / "c.stalign.zarr").obsm
    assert Keys.EMBED in spatialdata.read_zarr(folder / "d.stalign.zarr").tables["table"].obsm
    (folder / "e.h5ad").unlink()
    assert main(["embed", str(folder)]) == 0
    assert capsys.readouterr().out.count("there already") == 4
    assert main(["embed", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.stalign.h5ad", "b.stalign.h5ad", "c.stalign.zarr", "d.stalign.zarr"
    }  # fmt: skip


@pytest.mark.parametrize("zarr", [False, True])
def test_the_section_is_overwritten_only_if_asked(section, tmp_path, capsys, zarr):
    if zarr:
        section = tmp_path / "d.zarr"
        stalign.datasets.toy(n_rows=8, spatialdata=True).write(section)
    before = content(tmp_path)
    assert main(["embed", str(section), "--out", str(section)]) == 1
    assert "the section itself" in capsys.readouterr().err and content(tmp_path) == before
    assert main(["embed", str(section), "--out", str(section), "--overwrite"]) == 0
    table = spatialdata.read_zarr(section).tables["table"] if zarr else anndata.read_h5ad(section)
    assert Keys.EMBED in table.obsm
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5ad", section.name}


def test_what_is_there_is_kept_if_it_is_something_else_or_writing_fails(section, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out.h5ad"
    assert main(["embed", str(section), "--out", str(out)]) == 0
    kept = out.read_bytes()
    assert main(["embed", str(section), "--out", str(out), "--weights", "stalign-small"]) == 1
    capsys.readouterr()

    def fail(self, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", fail)
    assert main(["embed", str(section), "--out", str(out), "--overwrite"]) == 1
    assert capsys.readouterr().err == f"stalign: {section}: disk full\n"
    assert out.read_bytes() == kept and {path.name for path in tmp_path.iterdir()} == {"a.h5ad", "out.h5ad"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "nothing at nowhere"),
        (["."], "folder of such"),
        (["a.h5ad", "a.h5ad"], "different names"),
        (["a.h5ad", "a.h5ad", "--out", "b.h5ad"], "to be a folder"),
        (["a.h5ad", "--weights", "no-such"], "no-such"),
        (["a.h5ad", "--layer", "raw"], "layer"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(section, tmp_path, monkeypatch, capsys, arguments, expected):
    monkeypatch.chdir(tmp_path)
    if arguments == ["."]:
        section.unlink()
    before = content(tmp_path)
    assert main(["embed", *arguments]) == 1
    told = capsys.readouterr().err
    assert told.startswith("stalign: ") and expected in told.splitlines()[-1] and content(tmp_path) == before
    with pytest.raises((ValueError, KeyError, OSError)):
        main(["--debug", "embed", *arguments])


@pytest.mark.parametrize("arguments", [[], ["embed"], ["embed", "a", "--no-such"], ["nothing"], ["curate", "x", "y"]])
def test_wrong_usage_ends_with_two(arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_help_names_the_exit_codes(capsys):
    for arguments in (["--help"], ["embed", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0 and "2 wrong usage" in " ".join(capsys.readouterr().out.split())


def test_curate_writes_the_manifest(tmp_path, capsys):
    slides = {"A": "human", "B": "mouse"}
    for file in ("gene_exp/{}_count.csv", "coord/{}_coord.csv", "image/{}.png"):
        for name in slides:
            path = tmp_path / "Visium" / file.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    (tmp_path / "meta").mkdir()
    table = pd.DataFrame({"slide": list(slides), "species": list(slides.values()), "tech": "Visium", "spot_num": 99})
    table.to_csv(tmp_path / "meta" / "meta_all_gene.csv")
    out = tmp_path / "chosen.csv"
    assert main(["curate", "stimage", str(tmp_path), "--out", str(out), "--exclude", "nothing*"]) == 0
    assert "1 of 2 slides are kept" in capsys.readouterr().out
    assert pd.read_csv(out).set_index("slide")["kept"].to_dict() == {"A": True, "B": False}
