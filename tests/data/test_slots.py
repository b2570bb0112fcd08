from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import stalign
from stalign.data import write


def make():
    adata = AnnData(X=np.ones((3, 2), dtype=np.float32))
    adata.uns["stalign"] = {"niches": 3}
    return adata


def test_in_place_returns_none_and_merges_uns():
    adata = make()
    slots = {"obsm": {"X": np.zeros((3, 4))}, "obs": {"ok": np.array([True] * 3)}, "uns": {"stalign": {"embed": 1}}}
    assert write(adata, slots) is None
    assert adata.obsm["X"].shape == (3, 4)
    assert adata.obs["ok"].all()
    assert adata.uns["stalign"] == {"niches": 3, "embed": 1}


def test_a_copy_is_changed_and_the_original_is_not():
    adata = make()
    other = write(adata, {"uns": {"stalign": {"embed": 1}}, "obs": {"a": [1, 2, 3]}}, copy=True)
    assert adata.uns["stalign"] == {"niches": 3}
    assert "a" not in adata.obs
    assert other.uns["stalign"] == {"niches": 3, "embed": 1}


@pytest.mark.parametrize(
    "bad",
    [
        {"obsm": {"X": np.zeros((2, 4))}},
        {"obsp": {"g": sparse.csr_matrix((3, 2))}},
        {"nope": {"a": 1}},
        {"obs": {"a": pd.Series([1, 2, 3], index=["x", "y", "z"])}},
    ],
)
def test_after_an_error_nothing_is_written(bad):
    adata = make()
    with pytest.raises(ValueError, match="Expected"):
        write(adata, {"obs": {"first": [1, 2, 3]}, **bad} if "obs" not in bad else {"uns": {"k": 1}, **bad})
    assert list(adata.obs) == []
    assert "k" not in adata.uns


def test_a_view_becomes_its_own_object_and_its_parent_stays():
    adata = make()
    view = adata[:2]
    with pytest.warns(UserWarning, match="view"):
        write(view, {"obs": {"a": [1, 2]}})
    assert list(view.obs["a"]) == [1, 2]
    assert "a" not in adata.obs


def test_copy_of_a_spatialdata_shares_images_and_not_the_table():
    sdata = stalign.datasets.toy(n_rows=8, spatialdata=True)
    n = sdata.tables["table"].n_obs
    other = write(sdata, {"obs": {"a": np.arange(n)}}, copy=True)
    assert "a" not in sdata.tables["table"].obs
    assert (other.tables["table"].obs["a"] == np.arange(n)).all()
    assert other.images["toy_hires_image"] is sdata.images["toy_hires_image"]
    assert write(sdata, {"obs": {"a": np.arange(n)}}) is None
    assert "a" in sdata.tables["table"].obs
