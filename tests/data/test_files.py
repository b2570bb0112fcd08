from __future__ import annotations

import pytest

import stalign
from stalign.data.files import allow, allowed, below


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_file_that_was_named_and_no_other(here):
    named, other = image(here / "a" / "named.png"), image(here / "a" / "other.png")
    assert not allowed(named)
    assert allow(here / "here" / ".." / "a" / "named.png") == named
    assert allowed(named)
    assert allowed(str(named))
    assert not allowed(other)


def test_the_current_folder_and_the_image_root(here):
    inside, outside = image(here / "here" / "b" / "a.png"), image(here / "root" / "a.png")
    assert allowed("b/a.png")
    assert allowed(inside)
    assert not allowed(outside)
    assert not allowed("../root/a.png")
    with stalign.settings.override(image_root=str(here / "root")):
        assert allowed(outside)
        assert not allowed(here / "rootless" / "a.png")
    assert stalign.settings.image_root is None


def test_links_are_followed(here):
    secret = image(here / "secret.png")
    (here / "here" / "link.png").symlink_to(secret)
    assert not allowed("link.png")
    allow(here / "here" / "link.png")
    assert allowed(secret)


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "\ud800"])
def test_names_of_no_file_are_no_error(here, name):
    assert not allowed(f"/nowhere/{name}")


def test_the_root_of_the_file_system_as_current_folder_allows_nothing(here, monkeypatch):
    monkeypatch.chdir("/")
    assert not allowed(image(here / "a.png"))
    assert below(here / "a.png", [None, here])
