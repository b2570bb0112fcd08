from __future__ import annotations

import anndata
import pytest

import stalign
from stalign.data.names import safe_key
from stalign.data.records import check_key

KEPT = ["A1", "1", "007 b", "section 1.a", ".hidden", "a.b.c", "Ä ß", "日本", "x" * 200, "日" * 66, " a ", "a:b*?", "-"]
CHANGED = [
    "P1/A",
    "/",
    "a\\b",
    ".",
    "..",
    "",
    "a\0b",
    "x" * 201,
    "日" * 67,
    "日" * 200,
    "zarr.json",
    ".zgroup",
    "__a",
    "\ud800",
]


@pytest.mark.parametrize("name", KEPT)
def test_names_that_files_hold_stay(name):
    assert safe_key(name) == name


@pytest.mark.parametrize("name", CHANGED)
def test_other_names_get_a_short_key_of_their_own(name):
    key = safe_key(name)
    assert key != name
    assert 8 < len(key) <= 49
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-")
    assert safe_key(key) == key
    assert safe_key(name + "/") != key


def test_names_that_differ_have_keys_that_differ():
    names = ["P1/A", "P1\\A", "P1//A", "P1-A", "x" * 201, "x" * 202]
    assert len({safe_key(name) for name in names}) == len(names)


@pytest.mark.parametrize(("store", "version"), [("h5ad", 2), ("zarr", 2), ("zarr", 3)])
@pytest.mark.filterwarnings("ignore:Writing zarr v2")
def test_keys_survive_files(tmp_path, store, version):
    adata = stalign.datasets.toy(6)[:, :5].copy()
    names = [*KEPT, *CHANGED[:-1]]
    adata.uns["spatial"] = {safe_key(name): {"metadata": {"image_key": str(i)}} for i, name in enumerate(names)}
    with anndata.settings.override(zarr_write_format=version):
        getattr(adata, f"write_{store}")(tmp_path / "a")
    back = getattr(anndata, f"read_{store}")(tmp_path / "a").uns["spatial"]
    assert set(back) == {safe_key(name) for name in names}
    for i, name in enumerate(names):
        assert back[safe_key(name)]["metadata"]["image_key"] == str(i)


@pytest.mark.parametrize("key", ["a/b", "a\\b", "a\0b", "", ".", ".."])
def test_names_that_files_do_not_keep_are_refused(key):
    adata = stalign.datasets.toy()
    with pytest.raises(ValueError, match="Expected `key_added` to be a name without a slash or backslash"):
        stalign.tl.domains(adata, 3, use_rep="spatial", key_added=key)
    assert key not in adata.obs


@pytest.mark.parametrize("key", ["a b", "a.b", ".hidden", "4 domains", "größe"])
def test_names_that_files_keep(key):
    check_key(key, name="key_added")
