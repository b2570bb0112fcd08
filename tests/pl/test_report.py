"""The report is one sound HTML file, holds what it says, and escapes what came from the data."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

import stalign
from stalign.datasets import toy as make_toy
from stalign.pl import report

VOID = {"meta", "img", "br", "link"}
EVIL = "<script>alert('x')</script>&\"'"


class Page(HTMLParser):
    """A strict reader: every tag closes the one opened last."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.errors = [], [], [], []
        self.source = source
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def section():
    adata = make_toy(n_rows=12)
    stalign.pp.patches(adata)
    adata.obs["stalign_domain"] = pd.Categorical(adata.obs["domain"].cat.rename_categories(lambda name: f"d{name}"))
    adata.uns["stalign"]["embed"] = {
        "weights": "stalign-mini",
        "sha256": "ab" * 32,
        "random_state": 3,
        "sections": {"toy": {"modality": "gene", "gene_coverage": 0.31}},
    }
    adata.uns["stalign"]["domains"] = {"clusterer": "GMM", "n_domains": 5, "model": {"means": np.zeros((5, 15))}}
    return adata


@pytest.fixture(scope="module")
def source(section, tmp_path_factory):
    """The text of the usual report."""
    path = tmp_path_factory.mktemp("usual") / "report.html"
    return report(section, path, truth="domain", notes=["a note of the caller"], umap=False).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def usual(source):
    return Page(source)


@pytest.fixture
def page(section, tmp_path):
    def read(**options):
        path = report(options.pop("data", section), tmp_path / "out" / "report.html", umap=False, **options)
        return Page(path.read_text(encoding="utf-8"))

    return read


def test_page_is_well_formed_and_has_landmarks(usual):
    found = usual
    assert not found.errors and not found.open
    assert found.all("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "title", "h1"):
        assert len(found.all(landmark)) == 1, landmark
    assert all(attrs.get("scope") in {"row", "col"} for attrs in found.all("th"))
    assert len(found.all("caption")) == len(found.all("table")) > 3


def test_every_link_leads_somewhere_and_every_id_is_unique(usual):
    found = usual
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for attrs in found.all("a")]
    assert links[0] == "#main" and found.all("a")[0]["class"] == "skip"
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert {attrs["aria-labelledby"] for attrs in found.all("section")} <= set(ids)


def test_nothing_is_loaded_and_nothing_runs(usual):
    found = usual
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in found.tags}
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on") or name == "style"]
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in found.all("img"))
    (policy,) = [a["content"] for a in found.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_policy_allows_the_style_that_is_there(source):
    (style,) = re.findall(r"<style>(.*?)</style>", source, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in source


def test_figures_have_words_and_true_sizes(usual):
    found = usual
    images = found.all("img")
    assert len(images) == len(found.all("figcaption")) >= 4
    for attrs in images:
        assert len(attrs["alt"]) > 20
        content = base64.b64decode(attrs["src"].split(",", 1)[1])
        assert content.startswith(b"\x89PNG")
        assert int.from_bytes(content[16:20], "big") == int(attrs["width"]) > 100
    sizes = make_toy(n_rows=12).obs["domain"].value_counts()
    assert f"L4 {sizes['L4']}" in images[0]["alt"]


def test_scores_parameters_versions_and_warnings_are_there(usual):
    found = usual
    assert "1.000 1.000" in found.text  # ARI and NMI: the domains are the truth under other names
    assert "random_state 3" in found.text and "clusterer GMM" in found.text
    assert "means" not in found.text  # the model itself is left out
    assert f"stalign {stalign.__version__}" in found.text
    for warning in ("a note of the caller", "genes alone", "31% of its genes"):
        assert warning in found.text


def test_nothing_is_left_out(usual):
    assert "left out" not in usual.text
    for caption in ("Sections and their scale", "Size of the domains", "Agreement of domains and labels", "Software"):
        assert caption in usual.text


def test_scores_leave_unlabelled_spots_out(section, page):
    adata = section.copy()
    labels = adata.obs["domain"].astype(object)
    labels.iloc[:20], labels.iloc[20:30] = np.nan, "undetermined"
    adata.obs["layer"] = pd.Categorical(labels)
    expected = stalign.tl.score(adata, "layer").iloc[0]
    found = page(data=adata, truth="layer")
    row = f"{expected['n_spots']} 30 {expected['n_scored']} {expected['ARI']:.3f} {expected['NMI']:.3f}"
    assert expected["n_unlabelled"] == 30 and row in found.text


def test_everything_from_the_data_is_escaped(tmp_path):
    adata = make_toy(n_rows=10)
    adata.uns["spatial"] = {EVIL: adata.uns["spatial"]["toy"]}
    names = dict(zip(adata.obs["domain"].cat.categories, [EVIL, "a<b>", "c&amp;d", "é µ", '"e"'], strict=True))
    adata.obs["stalign_domain"] = adata.obs["domain"].cat.rename_categories(names)
    adata.obs[EVIL] = adata.obs["stalign_domain"]
    adata.obs_names = [f"<img src=x onerror=alert({i})>" for i in range(adata.n_obs)]
    stalign.pp.patches(adata)
    adata.uns["stalign"]["embed"] = {"weights": f"../../{EVIL}", EVIL: EVIL, "list": [EVIL, 1]}
    predicted = adata[:, :3].copy()
    predicted.var_names = [EVIL, "<b>", "ok"]
    predicted.var["pearson"] = [0.1, 0.2, 0.3]
    path = report(adata, tmp_path / "r.html", truth=EVIL, predicted=predicted, notes=[EVIL], title=EVIL, umap=False)
    source = path.read_text(encoding="utf-8")
    found = Page(source)
    assert not found.errors and "<script" not in source and "onerror=alert(0)>" not in source
    assert not found.all("script") and not found.all("b")
    assert EVIL in found.text and "c&amp;d" in found.text
    assert any(EVIL in attrs["alt"] for attrs in found.all("img"))


def test_bare_data_give_a_report_that_says_what_is_missing(page):
    adata = make_toy(n_rows=10, image=False)
    found = page(data=adata)
    assert "There are no domains yet" in found.text and "has no image" in found.text
    assert not found.all("img") and "None are recorded" in found.text


def test_a_figure_that_cannot_be_drawn_is_named(section, page):
    adata = section.copy()
    adata.uns["spatial"]["toy"]["images"] = {}  # the windows are there, the image is gone
    predicted = section[:, :2].copy()
    del predicted.obsm["spatial"]
    found = page(data=adata, predicted=predicted)
    assert "A figure was left out" in found.text and "Expected coordinates" in found.text
    assert "Predicted genes" in found.text


@pytest.mark.parametrize(
    ("name", "heading"),
    [("domains", "Domains"), ("draw_scores", "Scores"), ("niches", "Parameters"), ("patches", "Parameters"),
     ("embedding", "Sections"), ("genes", "Predicted genes"), ("training", "Versions")],
)  # fmt: skip
def test_no_figure_takes_the_report_with_it(section, tmp_path, monkeypatch, log, name, heading):
    from matplotlib import pyplot as plt

    def fail(*args, **kwargs):
        plt.figure()
        raise AttributeError("module 'pynndescent' has no attribute 'x'")

    open_before = plt.get_fignums()
    adata, predicted = section.copy(), section[:, :2].copy()
    adata.obsm["X_stalign"] = np.asarray(adata.obsm["spatial"], np.float32)
    for other in ("domains", "draw_scores", "niches", "patches", "embedding", "genes", "training"):
        monkeypatch.setattr(f"stalign.pl._report.{other}", fail if other == name else lambda *a, **k: plt.figure())
    path = report(adata, tmp_path / "r.html", truth="domain", predicted=predicted, metrics=pd.DataFrame({"a": [1]}))
    found = Page(path.read_text(encoding="utf-8"))
    assert "A figure was left out" in found.text and "AttributeError: module 'pynndescent'" in found.text
    assert heading in found.text and len(found.all("img")) == 6 and not found.errors
    assert plt.get_fignums() == open_before and "pynndescent" in log.text and "Traceback" not in log.text


@pytest.mark.parametrize("name", ["section_table", "size_table", "score_table", "findings", "parameters", "versions",
                                  "map_text", "card"])  # fmt: skip
def test_no_table_takes_the_report_with_it(section, page, monkeypatch, name):
    def fail(*args, **kwargs):
        raise TypeError("no such luck")

    monkeypatch.setattr(f"stalign.pl._findings.{name}", fail)
    found = page(truth="domain")
    assert "left out" in found.text and "TypeError: no such luck" in found.text and not found.errors


def test_tracebacks_are_logged_for_those_who_ask(section, page, monkeypatch, log):
    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr("stalign.pl._report.domains", fail)
    with stalign.settings.override(verbosity="debug"):
        log.set_level("DEBUG", logger="stalign")
        page()
    assert "Traceback" in log.text and "RuntimeError" in log.text


def test_training_and_split_are_said_under_the_figures(section, page):
    adata, predicted = section.copy(), section[:, :2].copy()
    adata.uns["spatial"] = {"A1": adata.uns["spatial"]["toy"]}
    adata.uns["stalign"]["embed"] = {"weights": "stalign-mini"}
    predicted.uns["stalign"] = {"predict_genes": {"split": "spot"}}

    def captions(found):
        return re.findall(r"<figcaption>(.*?)</figcaption>", found.source)

    said = "A section named A1 was in the training of stalign-mini (Andersson 2021, donor A, 346 spots; here"
    found = page(data=adata, predicted=predicted, truth="domain")
    listed = captions(found)
    assert said in listed[0] and said in listed[1] and said in listed[-1] and said not in listed[2]
    assert "Held-out spots of the same section" in listed[-1]
    assert found.text.count(said) == 4  # and among the warnings
    adata.uns["stalign"]["domains"] = {"use_rep": "X_uni_niche"}
    listed = captions(page(data=adata, predicted=predicted, truth="domain"))
    assert said not in listed[0] and said not in listed[1] and said in listed[-1]


def test_records_of_other_forms(section, page):
    adata = section.copy()
    row = {"section": ["toy"], "modality": ["gene"], "n_valid": [12345], "gene_coverage": [0.31]}
    adata.uns["stalign"]["embed"]["sections"] = pd.DataFrame(row)
    adata.uns["neighbors"] = {"params": {"n_neighbors": 17}}
    adata.uns["stalign_domain"] = {"params": {"use_rep": "X_stalign"}}
    found = page(data=adata)
    for text in ("genes alone", "31% of its genes", "sections.toy.n_valid 12,345", "n_neighbors 17"):
        assert text in found.text, text
    adata.uns["stalign"] = np.array(["of another tool"])
    assert not page(data=adata).errors


def test_patches_have_the_colours_of_the_map(section, tmp_path, monkeypatch):
    adata, given = section.copy(), {}
    adata.uns["stalign_domain_colors"] = ["#111111", "#222222", "#333333", "#444444", "#555555"]
    monkeypatch.setattr("stalign.pl._report.patches", lambda *args, **options: given.update(options))
    report(adata, tmp_path / "r.html", truth="domain", umap=False)
    assert given["by"] == "domain"
    assert list(given["palette"].values()) == adata.uns["stalign_domain_colors"]


def test_card_of_a_checkpoint(section, page, tmp_path):
    card = {"weights": {"sha256": "ab" * 32, "parameters": 5_000_000},
            "meta": {"licence": "BSD-3-Clause", "training": {"sections": ["151507", "A1 <x>"]},
                     "training_data": [{"section": "s1", "spots": 7}, {"section": "s2", "spots": 8}],
                     "recipe": {f"key{i}": i for i in range(20)}}}  # fmt: skip
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "config.json").write_text(json.dumps(card))
    found = page(weights=tmp_path / "w")
    assert "5,000,000" in found.text and "training.sections 151507, A1 <x>" in found.text
    assert "hash differs" not in found.text
    assert "s2 8" in found.text and "key19 19" in found.text and len(found.all("details")) == 2 and not found.errors
    card["weights"]["sha256"] = "cd" * 32
    (tmp_path / "w" / "config.json").write_text(json.dumps(card))
    assert "hash differs" in page(weights=tmp_path / "w").text
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        page(weights=tmp_path / "nothing")


def test_many_sections_and_spatialdata(page):
    adata = make_toy(n_rows=8, n_sections=2)
    adata.obs["stalign_domain"] = adata.obs["domain"]
    found = page(data=adata, truth="domain", library_key="library")
    assert "toy_1" in found.text and "toy_2" in found.text and "2 sections" in found.text
    sdata = make_toy(n_rows=8, spatialdata=True)
    sdata.tables["table"].obs["stalign_domain"] = sdata.tables["table"].obs["domain"]
    assert len(page(data=sdata, truth="domain").all("img")) == 2


def test_figures_are_written_beside_the_page_as_they_are_in_it(section, tmp_path):
    section = section.copy()
    section.obsm["X_two"] = section.obsm["spatial"][:, ::-1].copy()
    folder = tmp_path / "new" / "figures"
    path = report(section, tmp_path / "report.html", truth="domain", basis="X_two", figures=folder)
    page = path.read_text(encoding="utf-8")
    names = ("domains", "embedding", "niches", "patches", "scores")
    assert {one.name for one in folder.iterdir()} == {f"{name}.png" for name in names}
    for one in folder.iterdir():
        assert base64.b64encode(one.read_bytes()).decode() in page, one.name
    assert "X_two" in Page(page).text and "UMAP" not in Page(page).text


def test_an_old_report_survives_an_error(section, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(KeyError, match="nothing"):
        report(section, path, truth="nothing")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_figures_are_closed_and_data_unchanged(section, tmp_path):
    from matplotlib import pyplot as plt

    before, open_before = section.copy(), plt.get_fignums()
    report(section, tmp_path / "r.html", truth="domain", umap=False)
    assert plt.get_fignums() == open_before
    pd.testing.assert_frame_equal(section.obs, before.obs)
    assert set(section.uns) == set(before.uns)


def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@pytest.mark.skipif(browser() is None, reason="no Chromium or Chrome is installed")
def test_opens_in_headless_chromium(section, tmp_path):
    """The browser shows the page: it obeys the policy, applies the style, decodes the figures, and logs no error."""
    path = report(section, tmp_path / "report.html", truth="domain", notes=[EVIL], umap=False)
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
    ]  # fmt: skip
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [*command, "--window-size=1100,3000", f"--screenshot={shot}", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr and "Content Security Policy" not in done.stderr
    from PIL import Image

    pixels = np.asarray(Image.open(shot).convert("RGB")).reshape(-1, 3)
    assert (np.abs(pixels.astype(int) - (0, 114, 178)).max(axis=1) < 40).sum() > 500  # spots of the first domain
    assert (np.abs(pixels.astype(int) - (213, 94, 0)).max(axis=1) < 10).sum() > 50  # the rule beside the warnings
    done = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    found = Page(done.stdout)
    assert not found.all("script") and EVIL in found.text
