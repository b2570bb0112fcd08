from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, concat, read_h5ad, read_zarr
from scipy import sparse

import stalign
from stalign._constants import Keys
from stalign.core.niches import nearest, niche_graph


def plain(coords, **obs) -> AnnData:
    """A table with coordinates and nothing else."""
    coords = np.asarray(coords, dtype=float)
    return AnnData(obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(len(coords))]), obsm={Keys.SPATIAL: coords})


def scattered(n, seed=0):
    return np.random.default_rng(seed).random((n, 2)) * 1000


def test_niches_write_graph_and_record(toy):
    before = toy.copy()
    assert stalign.pp.niches(toy) is None
    graph = toy.obsp[Keys.NICHE_GRAPH]
    assert sparse.issparse(graph)
    assert graph.format == "csr"
    assert graph.dtype == np.float32
    np.testing.assert_allclose(graph.sum(axis=1), 1, rtol=1e-6)
    assert (np.diff(graph.indptr) == 4).all()
    assert (graph.diagonal() == 0.25).all()
    assert toy.uns[Keys.UNS_NICHES] == {
        "connectivities_key": Keys.NICHE_GRAPH,
        "params": {"n_neighbors": 3, "include_self": True, "ties": "position"},
    }
    assert set(toy.obsp) - set(before.obsp) == {Keys.NICHE_GRAPH}
    assert set(toy.uns) - set(before.uns) == {Keys.UNS_NICHES}
    pd.testing.assert_frame_equal(toy.obs, before.obs)


@pytest.mark.parametrize(("n_neighbors", "include_self"), [(3, True), (3, False), (6, True), (1, False)])
def test_niches_are_the_nearest_spots(toy, n_neighbors, include_self):
    stalign.pp.niches(toy, n_neighbors, include_self=include_self)
    expected = niche_graph(nearest(toy.obsm[Keys.SPATIAL], n_neighbors), include_self=include_self)
    assert abs(toy.obsp[Keys.NICHE_GRAPH] - expected).nnz == 0
    counts = toy.X.toarray()
    spot = 17
    distance = np.linalg.norm(toy.obsm[Keys.SPATIAL] - toy.obsm[Keys.SPATIAL][spot], axis=1)
    order = np.argsort(distance, kind="stable")[1 : n_neighbors + 1]
    niche = np.append(order, spot) if include_self else order
    mean = (toy.obsp[Keys.NICHE_GRAPH] @ toy.X)[spot]
    np.testing.assert_allclose(np.asarray(mean.todense()).ravel(), counts[niche].mean(axis=0), rtol=1e-5)


def test_niches_never_cross_libraries():
    # The sections lie on top of one another, so that each spot's nearest is in another one.
    coords = np.repeat(scattered(60), 3, axis=0) + np.tile([[0, 0], [0.1, 0], [0, 0.1]], (60, 1))
    library = np.tile(["a", "b", "c"], 60)
    adata = plain(coords, library=library)
    stalign.pp.niches(adata, library_key="library")
    graph = adata.obsp[Keys.NICHE_GRAPH].tocoo()
    assert (library[graph.row] == library[graph.col]).all()
    assert adata.uns[Keys.UNS_NICHES]["params"]["library_key"] == "library"
    for name in "abc":
        own = plain(coords[library == name])
        stalign.pp.niches(own)
        part = adata.obsp[Keys.NICHE_GRAPH][library == name][:, library == name]
        assert abs(part - own.obsp[Keys.NICHE_GRAPH]).nnz == 0


def test_order_of_sections_does_not_matter():
    sections = {name: plain(scattered(40, seed)) for seed, name in enumerate("ab")}
    graphs = {}
    for order in ("ab", "ba"):
        joined = concat({name: sections[name] for name in order}, label="library", index_unique="-")
        stalign.pp.niches(joined, library_key="library")
        for name in order:
            rows = np.flatnonzero(joined.obs["library"] == name)
            graphs.setdefault(name, []).append(joined.obsp[Keys.NICHE_GRAPH][rows][:, rows])
    for first, second in graphs.values():
        assert abs(first - second).nnz == 0


def test_several_libraries_need_a_key(toy):
    toy.uns[Keys.UNS_SPATIAL]["another"] = toy.uns[Keys.UNS_SPATIAL]["toy"]
    del toy.obs["library"]
    with pytest.raises(KeyError, match="library_key"):
        stalign.pp.niches(toy)
    assert Keys.NICHE_GRAPH not in toy.obsp


def test_spots_without_coordinates_have_no_niche(toy):
    toy.obsm[Keys.SPATIAL] = toy.obsm[Keys.SPATIAL].astype(float)
    toy.obsm[Keys.SPATIAL][[3, 10], [0, 1]] = np.nan
    with pytest.warns(UserWarning, match=f"2 of {toy.n_obs} spots have no coordinates") as caught:
        stalign.pp.niches(toy)
    assert len(caught) == 1
    graph = toy.obsp[Keys.NICHE_GRAPH]
    gone = np.zeros(toy.n_obs, dtype=bool)
    gone[[3, 10]] = True
    assert (np.diff(graph.indptr) == np.where(gone, 0, 4)).all()
    assert graph[:, gone].nnz == 0
    assert len(toy) == len(gone)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("include_self", [True, False])
def test_fewer_spots_than_neighbours(n, include_self):
    adata = plain(scattered(n))
    stalign.pp.niches(adata, include_self=include_self)
    expected = np.full((n, n), 1 / n) if include_self or n == 1 else (1 - np.eye(n)) / (n - 1)
    np.testing.assert_allclose(adata.obsp[Keys.NICHE_GRAPH].toarray(), expected, rtol=1e-6)


def test_a_section_of_one_spot_among_others():
    adata = plain(scattered(6), library=["a", "b", "a", "a", "a", "a"])
    stalign.pp.niches(adata, library_key="library")
    np.testing.assert_array_equal(adata.obsp[Keys.NICHE_GRAPH][1].toarray()[0], [0, 1, 0, 0, 0, 0])


def test_duplicate_coordinates():
    adata = plain(np.repeat(scattered(3), 4, axis=0))
    stalign.pp.niches(adata)
    np.testing.assert_array_equal(adata.obsp[Keys.NICHE_GRAPH].toarray(), np.kron(np.eye(3), np.full((4, 4), 0.25)))


def test_copy_leaves_the_original_alone(toy):
    changed = stalign.pp.niches(toy, copy=True)
    assert Keys.NICHE_GRAPH not in toy.obsp
    assert Keys.UNS_NICHES not in toy.uns
    stalign.pp.niches(toy)
    assert abs(changed.obsp[Keys.NICHE_GRAPH] - toy.obsp[Keys.NICHE_GRAPH]).nnz == 0


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_is_written_to(toy):
    view = toy[::2]
    assert view.is_view
    stalign.pp.niches(view)
    alone = toy[::2].copy()
    stalign.pp.niches(alone)
    assert abs(view.obsp[Keys.NICHE_GRAPH] - alone.obsp[Keys.NICHE_GRAPH]).nnz == 0
    assert Keys.NICHE_GRAPH not in toy.obsp


def test_running_again_replaces_what_was_there(toy):
    stalign.pp.niches(toy, 6, include_self=False)
    stalign.pp.niches(toy)
    assert toy.obsp[Keys.NICHE_GRAPH].nnz == 4 * toy.n_obs
    assert toy.uns[Keys.UNS_NICHES]["params"] == {"n_neighbors": 3, "include_self": True, "ties": "position"}


@pytest.mark.filterwarnings("ignore:Writing zarr")
def test_results_survive_files(toy, tmp_path):
    stalign.pp.niches(toy, np.int64(4), library_key="library")
    toy.write_h5ad(tmp_path / "a.h5ad")
    toy.write_zarr(tmp_path / "a.zarr")
    for back in (read_h5ad(tmp_path / "a.h5ad"), read_zarr(tmp_path / "a.zarr")):
        assert abs(back.obsp[Keys.NICHE_GRAPH] - toy.obsp[Keys.NICHE_GRAPH]).nnz == 0
        params = back.uns[Keys.UNS_NICHES]["params"]
        assert (int(params["n_neighbors"]), bool(params["include_self"]), params["library_key"]) == (4, True, "library")


def test_spatialdata_gives_the_same_niches(toy):
    pytest.importorskip("spatialdata")
    sdata = stalign.datasets.toy(spatialdata=True)
    assert stalign.pp.niches(sdata) is None
    stalign.pp.niches(toy)
    table = next(iter(sdata.tables.values()))
    assert abs(table.obsp[Keys.NICHE_GRAPH] - toy.obsp[Keys.NICHE_GRAPH]).nnz == 0
    changed = stalign.pp.niches(sdata, 6, copy=True)
    assert next(iter(changed.tables.values())).obsp[Keys.NICHE_GRAPH].nnz == 7 * toy.n_obs
    assert table.obsp[Keys.NICHE_GRAPH].nnz == 4 * toy.n_obs


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"n_neighbors": 0}, ValueError, "at least 1"),
        ({"n_neighbors": 2.5}, TypeError, "whole number"),
        ({"n_neighbors": True}, TypeError, "whole number"),
        ({"library_key": "nope"}, KeyError, "nope"),
        ({"data": "a section"}, TypeError, "AnnData or a SpatialData"),
    ],
)
def test_bad_arguments(toy, change, error, match):
    with pytest.raises(error, match=match):
        stalign.pp.niches(**{"data": toy, **change})
    assert Keys.NICHE_GRAPH not in toy.obsp


def test_no_coordinates(toy):
    del toy.obsm[Keys.SPATIAL]
    with pytest.raises(KeyError, match="coordinates"):
        stalign.pp.niches(toy)


def test_a_backed_table_is_refused(toy, tmp_path):
    toy.write_h5ad(tmp_path / "a.h5ad")
    backed = read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match="to_memory"):
        stalign.pp.niches(backed)
    backed.file.close()


@pytest.mark.real
def test_on_a_real_section(shared_data):
    adata = read_h5ad(shared_data / "dlpfc" / "151673.h5ad")
    stalign.pp.niches(adata)
    graph = adata.obsp[Keys.NICHE_GRAPH].tocoo()
    coords = adata.obsm[Keys.SPATIAL].astype(float)
    distance = np.linalg.norm(coords[graph.row] - coords[graph.col], axis=1)
    pitch = np.median(distance[distance > 0])
    assert graph.nnz == 4 * adata.n_obs
    assert np.quantile(distance, 0.99) < 1.1 * pitch
