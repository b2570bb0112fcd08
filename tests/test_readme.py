"""What the README says can be done, can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import stalign
from stalign.__main__ import parser

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = {'st.io.read_visium("path/to/outs")': "st.datasets.toy(16)"}  # the reader of a folder that nobody has


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    blocks = _blocks("python")
    for block in blocks:
        for theirs, ours in OWN.items():
            block = block.replace(theirs, ours)
        exec(compile(block, "README.md", "exec"), space)
    assert len(blocks) >= 3
    assert space["scores"]["ARI"].between(0, 1).all()
    assert space["predicted"].shape == (space["predicted"].n_obs, 20)
    assert "stalign_domain" in stalign.io.read_h5ad(tmp_path / "section.h5ad").obs


def test_demo_commands_are_understood():
    lines = "\n".join(_blocks("bash")).splitlines()
    commands = [line.split("python -m stalign ", 1)[1] for line in lines if "python -m stalign " in line]
    assert len(commands) >= 3
    for command in commands:
        assert parser().parse_args(shlex.split(command)).command == "demo"


def test_ci_runs_the_commands_of_the_readme_word_for_word():
    first, second = (block.strip() for block in _blocks("bash") if "venv" in block)
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert first in lines
    assert lines[-1] == second
    assert not any(line.startswith("export") for line in lines)  # nor with variables that a newcomer lacks


def test_first_screen_says_what_this_is_and_is_not():
    screen = README[:3000]
    assert "not** [STalign](https://github.com/JEFworks-Lab/STalign)" in screen
    assert "python -m stalign demo" in screen
    assert "pytest -n 2" in screen
    figure = ROOT / re.search(r"!\[.+?\]\((.+?)\)", screen)[1]
    assert figure.stat().st_size < 300_000


PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    made = ("generated/", "tutorials/")  # by Sphinx
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" in target or (page.startswith("docs/") and target.startswith(made)) or target == "MODEL_CARD.md":
            continue
        assert (ROOT / page).parent.joinpath(target).exists(), target
