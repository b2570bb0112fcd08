"""Docstrings, examples and documentation pages hold what they promise."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import re
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest

import stalign
from stalign._constants import Keys
from stalign.encoders.registry import _CARDS

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = ("pp", "tl", "pl", "io", "datasets")
SECTIONS = re.compile(r"^ *(\w+)\n *-{3,}$", re.MULTILINE)
PLACEHOLDERS = re.compile(r"%\(\w|^\s*\{\w+\}\s*$|\b(TODO|FIXME|XXX|TBA)\b|lorem ipsum", re.IGNORECASE | re.MULTILINE)


def _functions():
    for name in PUBLIC:
        module = import_module(f"stalign.{name}")
        for member in module.__all__:
            if inspect.isfunction(getattr(module, member)):
                yield pytest.param(getattr(module, member), id=f"{name}.{member}")


def _documented(doc: str, section: str) -> list[str]:
    """Names that a section of a docstring describes."""
    body = re.search(rf"^ *{section}\n *-+\n(.*?)(?=^ *\w[\w ]*\n *---|\Z)", doc, re.MULTILINE | re.DOTALL)
    names = re.findall(r"^(\*{0,2}\w+(?:, \*{0,2}\w+)*)$", body[1], re.MULTILINE) if body else []
    return [name.lstrip("*") for line in names for name in line.split(", ")]


@pytest.mark.parametrize("function", list(_functions()))
def test_public_functions_are_documented_in_full(function):
    doc = inspect.getdoc(function)
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(SECTIONS.findall(doc))
    assert sorted(_documented(doc, "Parameters")) == sorted(inspect.signature(function).parameters)
    assert ">>> " in doc
    assert not PLACEHOLDERS.search(doc)


@pytest.mark.parametrize("name", ["pp", "tl"])
def test_functions_that_write_say_what_they_read_and_write(name):
    module = import_module(f"stalign.{name}")
    writers = {m for m in module.__all__ if "copy" in getattr(inspect.signature(getattr(module, m)), "parameters", {})}
    assert writers
    for member in writers:
        assert {"Reads", "Writes"} <= set(SECTIONS.findall(inspect.getdoc(getattr(module, member)))), member


@pytest.mark.parametrize("name", ["datasets", "encoders", "io", "pl", "pp", "tl"])
def test_functions_of_many_arguments_say_why(name):
    module = import_module(f"stalign.{name}")
    for member in map(module.__dict__.get, module.__all__):
        if inspect.isfunction(member) and len(inspect.signature(member).parameters) > 12:
            assert "arguments are many because" in inspect.getdoc(member), member


def _modules():
    source = Path(stalign.__file__).parent
    for file in sorted(source.rglob("*.py")):
        if ">>> " in file.read_text(encoding="utf-8"):
            yield ".".join(("stalign", *file.relative_to(source).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(_modules()))
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    module = import_module(name)
    monkeypatch.setattr("stalign.encoders.registry._CARDS", dict(_CARDS))  # an example registers an encoder
    with stalign.settings.override(cache_dir=tmp_path / "cache", offline=True, verbosity="error"):
        failed, tried = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert tried > 0
    assert failed == 0


def test_every_key_is_explained():
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    values = {value for name, value in vars(Keys).items() if name.isupper()}
    assert len(values) > 10
    assert {value for value in values if f"| `{value}` |" not in page} == set()


def _entries(record):
    """Names at all depths of a record, and of the columns of its tables."""
    for name, value in record.items():
        yield name
        if isinstance(value, pd.DataFrame):
            yield from set(value) - {"section"}
        elif isinstance(value, dict) and name not in {"model", "options"}:
            yield from _entries(value)


def test_every_slot_that_is_written_is_on_the_page_of_keys(small_weights):
    adata = stalign.datasets.toy(10, n_sections=2)
    before = {slot: set(getattr(adata, slot)) for slot in ("obs", "obsm", "obsp", "uns")}
    stalign.tl.embed(adata, small_weights(), library_key="library")
    stalign.tl.encode(adata, "colour", level="niche", library_key="library")
    stalign.tl.encode(adata, "pca", library_key="library")
    stalign.tl.domains(adata, stalign.tl.GMM(3, n_init=1), library_key="library")
    written = {name for slot, names in before.items() for name in set(getattr(adata, slot)) - names}
    written -= {"X_colour_niche", "X_pca_spot"}
    predicted = stalign.tl.predict_genes(adata, genes=2, use_rep=Keys.EMBED_IMAGE, split="library")
    for key in ("stalign", "niches", "X_colour_niche", "X_pca_spot", "stalign_domain"):
        written |= set(_entries(adata.uns[key]))
    written |= set(_entries(predicted.uns["stalign"])) | set(predicted.var) | {key for key in predicted.layers if key}
    page = (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"`([^`]+)`", page))
    beside_the_clusterer = {"n_init", "choose"}
    assert len(written) > 50
    assert written - explained - beside_the_clusterer == set()


def test_changelog_has_a_section_for_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{stalign.__version__}]" in text
    assert "### Added" in text
    assert f"version: {stalign.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", sorted((ROOT / "tutorials").glob("*.ipynb")), ids=lambda file: file.stem)
def test_tutorials_are_stored_without_outputs_and_are_in_the_contents(file):
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert "".join(cells[0]["source"]).startswith("# ")
    assert len(code) >= 5
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    contents = "".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("index.md", "tutorials.md"))
    assert contents.count(f"tutorials/{file.stem}") >= 2  # the table and a table of contents


def test_there_are_ten_tutorials():
    assert len(list((ROOT / "tutorials").glob("*.ipynb"))) == 10


_APART = {"clip", "clip_data", "curate"}  # modules of train with a page or a paragraph of their own


def _texts(file):
    """Texts of a module, `…` for what is put into them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield re.sub(r"%[.\d]*[a-z]", "…", node.value)


def _like(text):
    return re.compile(".+".join(map(re.escape, text.rstrip(".").split("…"))))


def test_messages_of_training_are_on_their_page():
    source = Path(stalign.__file__).parent
    page = (ROOT / "docs" / "training-failures.md").read_text(encoding="utf-8")
    quoted = [found.strip() for found in re.findall(r"^\| ``(.+?)`` \|", page, re.MULTILINE)]
    files = [*source.glob("train/*.py"), *source.glob("models/*.py")]
    texts = {text for file in files for text in _texts(file)}
    assert len(quoted) > 60 and len(set(quoted)) == len(quoted)
    assert [q for q in quoted if not any(_like(text).match(q) for text in texts if text.strip("… "))] == []
    own = {text for file in source.glob("train/*.py") for text in _texts(file) if file.stem not in _APART}
    told = {text for text in own if re.match(r"(Expected|Cannot) \S", text)}
    assert sorted(text for text in told if not any(_like(text).match(q) for q in quoted)) == []


def test_nothing_installs_stalign_from_an_index():
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "tutorials").glob("*.ipynb")]
    files += (ROOT / "src").rglob("*.py")
    told = re.compile(r"pip install[^\n&]*[\s\"'=]stalign(?![\w-]).*")
    assert not [f"{file}: {line}" for file in files for line in told.findall(file.read_text(encoding="utf-8"))]
    assert told.search("pip install 'stalign[train]'") and told.search("pip install stalign")
