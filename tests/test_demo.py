from __future__ import annotations

import base64
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

import stalign
from stalign import __main__ as program
from stalign._constants import Keys

FIGURES = {"domains.png", "embedding.png", "niches.png"}
ALWAYS = FIGURES | {"section.h5ad", "report.html"}


@pytest.fixture(autouse=True)
def _small_weights(small_weights, monkeypatch):
    """Small untrained weights in the place of those that ship, and small figures."""
    monkeypatch.setattr("stalign.models.weights._packaged", lambda entry, device, images: small_weights())
    monkeypatch.setattr("stalign.cli._demo._DPI", 40)


@pytest.fixture
def slide():
    return stalign.datasets.toy(n_rows=10)


@pytest.fixture
def no_figures(monkeypatch):
    monkeypatch.setattr("stalign.cli._demo._report", lambda *args, **options: None)


@pytest.fixture
def run(tmp_path, capsys):
    """Run the command on a table, and return its status, output folder and what it wrote to the terminal."""

    def demo(adata, *arguments):
        out = tmp_path / "out"
        if adata is not None:
            adata.write_h5ad(tmp_path / "slide.h5ad")
            arguments = ("--section", str(tmp_path / "slide.h5ad"), *arguments)
        status = program.main(["demo", "--out", str(out), *arguments])
        return status, out, capsys.readouterr()

    return demo


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_section_of_the_users_own(slide, run):
    status, out, shown = run(slide, "--truth", "domain", "--domains", "4", "--genes", "3")
    assert status == 0
    assert names(out) == ALWAYS | {"patches.png", "genes.png", "scores.png", "scores.csv", "genes.csv"}
    done = anndata.read_h5ad(out / "section.h5ad")
    assert done.obs[Keys.DOMAIN].nunique() == 4
    assert done.obsm[Keys.EMBED].shape[0] == slide.n_obs
    scores, genes = pd.read_csv(out / "scores.csv"), pd.read_csv(out / "genes.csv")
    assert scores["n_spots"].tolist() == [slide.n_obs]
    assert len(genes) == 3
    assert {"gene", "pearson", "mse"} <= set(genes)
    assert genes["reliability"].is_monotonic_decreasing
    page = (out / "report.html").read_text(encoding="utf-8")
    for name in names(out):
        if name.endswith(".png"):
            png = (out / name).read_bytes()
            assert png[:4] == b"\x89PNG"
            assert base64.b64encode(png).decode() in page, name
    for text in (f"Embed {slide.n_obs} spots", "Cut 4 domains", f"{scores['ARI'][0]:.3f}", "section.h5ad"):
        assert text in shown.out.replace("\n", " "), text
    axes = done.obsm["X_stalign_pca"]
    assert axes.shape == (slide.n_obs, 2)
    spread = np.linalg.svd(done.obsm[Keys.EMBED] - done.obsm[Keys.EMBED].mean(axis=0), compute_uv=False)[:2]
    np.testing.assert_allclose(np.linalg.norm(axes, axis=0), spread, rtol=1e-3)


def test_nothing_is_compiled_for_it(slide, tmp_path):
    slide.write_h5ad(tmp_path / "slide.h5ad")
    script = "import sys; from stalign.cli import main; assert not main(sys.argv[1:]); print(*sys.modules)"
    demo = ["demo", "--section", tmp_path / "slide.h5ad", "--genes", "2", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, "-c", script, *demo], check=True, capture_output=True, text=True)
    assert (tmp_path / "out" / "embedding.png").is_file()
    assert not {"numba", "umap", "scanpy"} & set(done.stdout.split())


@pytest.mark.usefixtures("no_figures")
def test_without_truth_nothing_is_scored(slide, run):
    status, out, _ = run(slide, "--genes", "2", "--domains", "3")
    assert status == 0
    assert names(out) == {"section.h5ad", "genes.csv"}


@pytest.mark.usefixtures("no_figures")
def test_as_many_domains_as_labels(slide, run):
    slide.obs["layer"] = np.where(np.arange(slide.n_obs) % 2, "a", "undetermined")
    slide.obs["layer"] = slide.obs["layer"].mask(np.arange(slide.n_obs) % 4 == 1, "b")
    _, out, _ = run(slide, "--truth", "layer", "--genes", "1")
    assert anndata.read_h5ad(out / "section.h5ad").obs[Keys.DOMAIN].nunique() == 2


def test_genes_alone(slide, run):
    del slide.uns[Keys.UNS_SPATIAL]
    status, out, _ = run(slide)
    assert status == 0
    assert names(out) == ALWAYS
    assert anndata.read_h5ad(out / "section.h5ad").obs[Keys.DOMAIN].nunique() == 7


def test_an_image_alone(slide, run):
    status, out, _ = run(slide[:, :0].copy())
    assert status == 0
    assert names(out) == ALWAYS | {"patches.png"}


def test_several_sections(run):
    pair = stalign.datasets.toy(n_rows=10, n_sections=2)
    status, _, shown = run(pair)
    assert status == 1
    assert "library_key" in shown.err
    del pair.uns[Keys.UNS_SPATIAL]["toy_2"]["images"]["hires"]
    status, out, _ = run(pair, "--library-key", "library", "--truth", "domain", "--genes", "2")
    assert status == 0
    assert "patches.png" not in names(out)
    assert pd.read_csv(out / "scores.csv")["library"].tolist() == ["toy_1", "toy_2", "all"]


@pytest.mark.usefixtures("no_figures")
def test_counts_in_a_layer_and_symbols_in_a_column(slide, run):
    slide.layers["raw"] = slide.X.copy()
    slide.X = -slide.X
    slide.var["name"] = slide.var_names
    slide.var_names = [f"ENSG{i:011d}" for i in range(slide.n_vars)]
    status, _, shown = run(slide)
    assert status == 1
    assert shown.err.startswith("stalign: ")
    status, _, _ = run(slide, "--layer", "raw", "--gene-key", "name", "--genes", "2")
    assert status == 0


@pytest.mark.usefixtures("no_figures")
def test_the_same_seed_gives_the_same_domains(slide, run):
    labels = []
    for _ in range(2):
        _, out, _ = run(slide, "--seed", "3", "--domains", "3", "--genes", "1")
        labels.append(anndata.read_h5ad(out / "section.h5ad").obs[Keys.DOMAIN].tolist())
    assert labels[0] == labels[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--section", "nowhere.h5ad"), "nothing at nowhere.h5ad"),
        (("--truth", "layers"), "`--truth` to name an obs column. Found: 'layers'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(run, arguments, says):
    status, _, shown = run(None, *arguments)
    assert status == 1
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert shown.err.count("\n") == 1


def test_a_file_that_is_no_table(run, tmp_path):
    (tmp_path / "notes.h5ad").write_text("no table")
    status, _, shown = run(None, "--section", str(tmp_path / "notes.h5ad"))
    assert status == 1
    assert shown.err.startswith("stalign: ")


def test_a_file_where_the_folder_should_be(run, tmp_path, slide):
    (tmp_path / "out").write_text("in the way")
    status, _, shown = run(slide)
    assert status == 1
    assert "out" in shown.err


@pytest.mark.parametrize("arguments", [("--domains", "0"), ("--genes", "-1"), ("--domains", "many"), ("--unknown",)])
def test_numbers_are_checked(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(["demo", *arguments])
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_what_was_there_survives_a_failure(slide, run, monkeypatch):
    _, out, _ = run(slide, "--genes", "1", "--domains", "2")
    before = (out / "section.h5ad").read_bytes()

    def fail(self, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", fail)
    status = program.main(
        ["demo", "--section", str(out.parent / "slide.h5ad"), "--out", str(out), "--genes", "1", "--domains", "2"]
    )
    assert status == 1
    assert (out / "section.h5ad").read_bytes() == before
    assert not [name for name in names(out) if name.endswith(".part")]


def test_a_slide_that_was_never_sequenced(run, tmp_path):
    from PIL import Image

    reference = stalign.datasets.toy(n_rows=12)
    Image.fromarray(reference.uns["spatial"]["toy"]["images"]["hires"]).save(tmp_path / "case.png")
    reference.write_h5ad(tmp_path / "reference.h5ad")
    given = ["--slide", str(tmp_path / "case.png"), "--mpp", "2.0", "--domains", "3", "--genes", "3"]
    status, out, shown = run(None, *given, "--reference", str(tmp_path / "reference.h5ad"))
    assert status == 0, shown.err
    wanted = {"slide.h5ad", "predicted.h5ad", "slide.png", "domains.png", "genes.png", "genes.csv", "report.html"}
    assert wanted <= names(out)
    slide, predicted = (anndata.read_h5ad(out / name) for name in ("slide.h5ad", "predicted.h5ad"))
    assert slide.n_obs == predicted.n_obs > 50 and predicted.n_vars == 3
    status, _, shown = run(None, *given)
    assert status == 1 and "--reference" in shown.err
