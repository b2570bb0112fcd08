"""UMAP on the fly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex

from stalign.core.palette import palette
from stalign.datasets import toy as make_toy
from stalign.pl import embedding


@pytest.fixture
def embedded():
    adata = make_toy(n_rows=10, n_sections=2, image=False)
    rng = np.random.default_rng(0)
    codes = adata.obs["domain"].cat.codes.to_numpy()
    adata.obsm["X_stalign"] = (np.eye(5)[codes] * 8 + rng.normal(0, 1, (adata.n_obs, 5))).astype(np.float32)
    return adata


def test_umap_keeps_groups_together_and_writes_nothing(embedded):
    embedded.obsm["X_stalign"][:4] = np.nan
    before = embedded.copy()
    ax = embedding(embedded, "domain", show=False)
    points = ax.collections[0].get_offsets()
    assert points.shape == (embedded.n_obs - 4, 2)
    colors = np.array([to_hex(color).upper() for color in ax.collections[0].get_facecolors()])
    assert set(colors) == set(palette(5))
    centres = np.array([points[colors == color].mean(axis=0) for color in palette(5)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=-1).argmin(axis=1)
    assert (np.array(palette(5))[nearest] == colors).mean() > 0.9
    assert set(embedded.obsm) == set(before.obsm) and set(embedded.obsp) == set(before.obsp)
    assert set(embedded.uns) == set(before.uns)


def test_own_basis_truth_and_section_panels(embedded):
    embedded.obsm["X_two"] = embedded.obsm["X_stalign"][:, :2]
    embedded.obs["stalign_domain"] = embedded.obs["domain"].cat.rename_categories(lambda name: "d" + name)
    axes = embedding(embedded, truth="domain", basis="X_two", library_key="library", show=False)
    assert [ax.get_title() for ax in axes] == ["domain", "stalign_domain", "library"]
    assert axes[0].get_xlabel() == "two 1"
    for ax in axes:
        assert len(ax.collections[0].get_offsets()) == embedded.n_obs
    first, second = (ax.collections[0].get_facecolors() for ax in axes[:2])
    np.testing.assert_allclose(first, second)
    drawn = np.asarray(axes[0].collections[0].get_offsets())
    np.testing.assert_allclose(np.sort(drawn, axis=0), np.sort(embedded.obsm["X_two"], axis=0), rtol=1e-6)


def test_of_many_spots_a_sample_is_drawn_and_the_title_says_so(embedded, monkeypatch):
    monkeypatch.setattr("stalign.pl._embedding._MOST", 60)
    embedded.obsm["X_two"] = embedded.obsm["X_stalign"][:, :2]
    embedded.obsm["X_two"][:3] = np.nan
    first, again = (embedding(embedded, "domain", basis="X_two", show=False) for _ in range(2))
    assert first.get_title() == f"domain\n60 of {embedded.n_obs - 3} spots, at random"
    points, others = (np.asarray(ax.collections[0].get_offsets()) for ax in (first, again))
    assert len(points) == 60
    np.testing.assert_array_equal(points, others)
    assert embedding(embedded, "domain", basis="X_two", title="mine", show=False).get_title() == "mine"


def test_neighbours_are_exact_however_many_rows_there_are(monkeypatch):
    import scanpy

    asked = {}

    def stop(own, **options):
        asked.update(options, n=own.n_obs)
        raise RuntimeError("enough")

    monkeypatch.setattr(scanpy.pp, "neighbors", stop)
    adata = AnnData(obs=pd.DataFrame({"domain": pd.Categorical(["a"] * 9000)}, index=[f"s{i}" for i in range(9000)]))
    adata.obsm["X_stalign"] = np.random.default_rng(0).normal(size=(9000, 4)).astype(np.float32)
    with pytest.raises(RuntimeError, match="enough"):
        embedding(adata, "domain", show=False)
    assert asked["n"] == 9000
    assert asked["transformer"] == "sklearn"  # not pynndescent, as scanpy takes by itself for as many


def test_errors_say_what_to_do(embedded):
    del embedded.obsm["X_stalign"]
    with pytest.raises(KeyError, match=r"stalign\.tl\.embed"):
        embedding(embedded, "domain")
    embedded.obsm["X_stalign"] = np.full((embedded.n_obs, 3), np.nan)
    with pytest.raises(ValueError, match="at least 4"):
        embedding(embedded, "domain")
    with pytest.raises(KeyError, match=r"stalign\.tl\.domains"):
        embedding(embedded)


def test_a_basis_may_be_named_as_in_scanpy(embedded):
    embedded.obsm["X_tsne"] = embedded.obsm["X_stalign"][:, :2]
    drawn, same = (
        np.asarray(embedding(embedded, "domain", basis=basis, show=False).collections[0].get_offsets())
        for basis in ("tsne", "X_tsne")
    )
    np.testing.assert_array_equal(drawn, same)
