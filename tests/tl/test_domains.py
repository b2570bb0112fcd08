"""tl.domains: names, refinement, references, several sections, bad input."""

from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

import stalign
from stalign.core.refine import majority_vote, ring_graph
from stalign.tl import GMM, DomainModel, KMeans, Leiden, domain_model, domains


def codes(adata, key="stalign_domain"):
    return adata.obs[key].cat.codes.to_numpy()


def snapshot(adata):
    return adata.obs.copy(), sorted(adata.uns), sorted(adata.obsm)


def unchanged(adata, before):
    pd.testing.assert_frame_equal(adata.obs, before[0])
    assert (sorted(adata.uns), sorted(adata.obsm)) == before[1:]


def test_finds_the_layers_and_writes_the_slots(embedded):
    assert domains(embedded, 5) is None
    column = embedded.obs["stalign_domain"]
    assert column.cat.categories.tolist() == ["1", "2", "3", "4", "5"]
    assert not column.isna().any()
    assert adjusted_rand_score(embedded.obs["domain"], column) > 0.7
    colors = embedded.uns["stalign_domain_colors"]
    assert isinstance(colors, list) and len(set(colors)) == 5
    entry = embedded.uns["stalign_domain"]["params"]
    assert {name: entry[name] for name in ("clusterer", "n_domains", "n_components", "use_rep", "random_state")} == {
        "clusterer": "gmm",
        "n_domains": 5,
        "n_components": 15,
        "use_rep": "X_stalign",
        "random_state": 0,
    }
    assert entry["refine"] == 0 and entry["n_spots"] == embedded.n_obs


def test_names_follow_the_first_axis_whatever_the_seed(embedded):
    axis = np.linalg.svd(embedded.obsm["X_stalign"] - embedded.obsm["X_stalign"].mean(axis=0))[2][0]
    axis *= np.sign(axis[np.abs(axis).argmax()])
    for seed in (0, 1):
        domains(embedded, 5, random_state=seed)
        means = [(embedded.obsm["X_stalign"][codes(embedded) == code] @ axis).mean() for code in range(5)]
        assert means == sorted(means)
    assert list(embedded.obs["stalign_domain"].cat.categories) == ["1", "2", "3", "4", "5"]


def test_ten_names_sort_as_numbers(embedded):
    domains(embedded, KMeans(11))
    assert embedded.obs["stalign_domain"].cat.categories.tolist() == [str(i + 1) for i in range(11)]


@pytest.mark.parametrize(
    "clusterer",
    [GMM(5), KMeans(5), Leiden(n_domains=5), AgglomerativeClustering(5)],
    ids=["gmm", "kmeans", "leiden", "sklearn"],
)
def test_any_clusterer(embedded, clusterer):
    domains(embedded, clusterer)
    assert len(embedded.obs["stalign_domain"].cat.categories) == 5
    assert adjusted_rand_score(embedded.obs["domain"], embedded.obs["stalign_domain"]) > 0.25
    found = domain_model(embedded).predict(embedded.obsm["X_stalign"])
    assert adjusted_rand_score(codes(embedded), found) > 0.75


def test_leiden_by_resolution(embedded):
    domains(embedded, "leiden", key_added="coarse")
    domains(embedded, Leiden(resolution=4.0), key_added="fine")
    assert len(embedded.obs["fine"].cat.categories) > len(embedded.obs["coarse"].cat.categories) > 1
    assert embedded.uns["fine"]["params"]["resolution"] == 4.0
    assert "fine_colors" in embedded.uns and "stalign_domain" not in embedded.obs


def test_the_order_of_rows_does_not_matter(embedded):
    order = np.random.default_rng(0).permutation(embedded.n_obs)
    mixed = embedded[order].copy()
    for clusterer in (5, KMeans(5), Leiden(n_domains=5)):
        domains(embedded, clusterer, refine=True)
        domains(mixed, clusterer, refine=True)
        np.testing.assert_array_equal(codes(embedded)[order], codes(mixed))


def test_spots_without_features_are_nan(embedded, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("stalign"), "propagate", True)
    embedded.obsm["X_stalign"][[2, 5]] = np.nan
    rest = embedded[~np.isin(np.arange(embedded.n_obs), [2, 5])].copy()
    with caplog.at_level(logging.INFO, logger="stalign"):
        domains(embedded, 5, refine=True)
    assert "2 without features" in caplog.text
    assert embedded.obs["stalign_domain"].isna().to_numpy().nonzero()[0].tolist() == [2, 5]
    domains(rest, 5)
    domains(embedded, 5)
    np.testing.assert_array_equal(np.delete(codes(embedded), [2, 5]), codes(rest))


def test_refinement_is_a_vote_among_the_ring(embedded):
    domains(embedded, KMeans(5))
    raw = codes(embedded)
    for refine, passes in ((True, 1), (3, 3)):
        domains(embedded, KMeans(5), refine=refine)
        expected = majority_vote(raw, ring_graph(embedded.obsm["spatial"]), passes=passes)
        np.testing.assert_array_equal(codes(embedded), expected)
        assert (expected != raw).any()
        assert embedded.uns["stalign_domain"]["params"]["refine"] == passes


def test_refinement_does_not_cross_sections(two):
    two.obsm["spatial"][two.obs["library"] == "toy_2"] = two.obsm["spatial"][: (two.obs["library"] == "toy_2").sum()]
    domains(two, KMeans(5))
    raw = codes(two)
    domains(two, KMeans(5), refine=2, library_key="library")
    for name in ("toy_1", "toy_2"):
        rows = (two.obs["library"] == name).to_numpy()
        alone = majority_vote(raw[rows], ring_graph(two.obsm["spatial"][rows]), passes=2)
        np.testing.assert_array_equal(codes(two)[rows], alone)
    with pytest.raises(KeyError, match="library_key"):
        domains(two, KMeans(5), refine=True)


def test_sections_share_names_in_either_order(two):
    first, second = (two[two.obs["library"] == name] for name in ("toy_1", "toy_2"))
    turned = anndata.concat([second, first])
    domains(two, 5)
    domains(turned, 5)
    pd.testing.assert_series_equal(
        two.obs["stalign_domain"].astype(str), turned.obs["stalign_domain"].astype(str)[two.obs_names]
    )


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("clusterer", [5, Leiden(n_domains=4)], ids=["gmm", "leiden"])
def test_a_list_is_clustered_as_one_table(two, clusterer, turned):
    names = ["toy_1", "toy_2"][:: -1 if turned else 1]
    parts = [two[two.obs["library"] == name].copy() for name in names]
    together = anndata.concat(parts, uns_merge="unique")
    domains(together, clusterer, refine=True, library_key="library", random_state=0)
    assert domains(parts, clusterer, refine=True, library_key="library", random_state=0) is None
    for part in parts:
        expected = together.obs["stalign_domain"][part.obs_names]
        pd.testing.assert_series_equal(part.obs["stalign_domain"], expected)
        assert part.uns["stalign_domain_colors"] == together.uns["stalign_domain_colors"]
        np.testing.assert_array_equal(domain_model(part).mixture.means, domain_model(together).mixture.means)


def test_a_list_is_copied_as_a_list_and_unchanged_after_an_error(two):
    parts = [two[two.obs["library"] == name].copy() for name in ("toy_1", "toy_2")]
    before = [snapshot(part) for part in parts]
    changed = domains(tuple(parts), 3, copy=True)
    assert [part.n_obs for part in changed] == [part.n_obs for part in parts]
    domains(parts, reference=changed[0], key_added="again")
    assert [codes(part, "again").tolist() for part in parts] == [codes(part).tolist() for part in changed]
    for part in parts:
        del part.obs["again"], part.uns["again_colors"], part.uns["again"]
    with pytest.raises(KeyError, match="missing"):
        domains(parts, 3, refine=True, library_key="missing")
    narrow = parts[1].copy()
    narrow.obsm["X_stalign"] = narrow.obsm["X_stalign"][:, :4]
    with pytest.raises(ValueError, match="20 and 4 columns|4 and 20 columns"):
        domains([parts[0], narrow], 3)
    with pytest.raises(ValueError, match="empty list"):
        domains([])
    with pytest.raises(TypeError, match="str"):
        domains([parts[0], "toy_2"])
    for part, state in zip(parts, before, strict=True):
        unchanged(part, state)


def test_domains_of_one_section_for_another(two, tmp_path):
    first, second = (two[two.obs["library"] == name].copy() for name in ("toy_1", "toy_2"))
    domains(first, 5)
    model = domain_model(first)
    path = model.save(tmp_path / "five")
    expected = model.predict(second.obsm["X_stalign"])
    for reference in (first, model, path, str(path)):
        domains(second, reference=reference)
        np.testing.assert_array_equal(codes(second), expected)
        assert second.uns["stalign_domain_colors"] == first.uns["stalign_domain_colors"]
    assert second.obs["stalign_domain"].cat.categories.tolist() == ["1", "2", "3", "4", "5"]
    domains(first, reference=first, key_added="again")
    np.testing.assert_array_equal(codes(first, "again"), codes(first))
    third = second.copy()
    domains(third, reference=second)  # what was applied can be applied further
    np.testing.assert_array_equal(codes(third), expected)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "clusterer", [5, Leiden(n_domains=3), AgglomerativeClustering(3)], ids=["gmm", "leiden", "other"]
)
def test_results_can_be_written_and_read(embedded, tmp_path, kind, clusterer):
    domains(embedded, clusterer, n_components=None, refine=1, library_key="library")
    path = tmp_path / f"section.{kind}"
    getattr(embedded, f"write_{kind}")(path)
    back = getattr(anndata, f"read_{kind}")(path)
    assert back.obs["stalign_domain"].astype(str).tolist() == embedded.obs["stalign_domain"].astype(str).tolist()
    assert list(back.uns["stalign_domain_colors"]) == embedded.uns["stalign_domain_colors"]
    again = domain_model(back)
    assert isinstance(again, DomainModel)
    expected = domain_model(embedded).predict(embedded.obsm["X_stalign"])
    np.testing.assert_array_equal(again.predict(back.obsm["X_stalign"]), expected)


def test_copy_leaves_the_data_alone(embedded):
    before = snapshot(embedded)
    changed = domains(embedded, 5, copy=True)
    unchanged(embedded, before)
    assert "stalign_domain" in changed.obs


def test_many_spots_are_fitted_to_a_sample(embedded, monkeypatch):
    domains(embedded, 5)
    whole = codes(embedded)
    monkeypatch.setattr("stalign.tl._clusterers.MAX_FIT", 400)
    for clusterer, floor in ((5, 0.7), (Leiden(n_domains=5), 0.3)):
        domains(embedded, clusterer)
        sampled = codes(embedded)
        assert (sampled >= 0).all() and adjusted_rand_score(whole, sampled) > floor
        domains(embedded, clusterer)
        np.testing.assert_array_equal(codes(embedded), sampled)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"clusterer": 5, "use_rep": "X_none"}, KeyError, "X_none.*Available: .*'X_stalign'"),
        ({"clusterer": 5000}, ValueError, "at least 5000 usable spots"),
        ({"clusterer": 0}, ValueError, "at least one domain"),
        ({"clusterer": "ward"}, ValueError, "GMM"),
        ({"clusterer": object()}, TypeError, "fit_predict"),
        ({"clusterer": True}, TypeError, "fit_predict"),
        ({"clusterer": 5, "refine": -1}, ValueError, "refine"),
        ({"clusterer": 5, "refine": 0.5}, ValueError, "refine"),
        ({"clusterer": 5, "n_components": 0}, ValueError, "n_components"),
        ({"clusterer": 5, "refine": True, "library_key": "none"}, KeyError, "library_key"),
        ({"reference": "no/such.npz"}, FileNotFoundError, "saved domain model"),
    ],
)
def test_bad_arguments_leave_the_data_alone(embedded, arguments, error, text):
    before = snapshot(embedded)
    with pytest.raises(error, match=text):
        domains(embedded, **arguments)
    unchanged(embedded, before)


def test_reference_without_domains_of_other_width_or_with_a_clusterer(embedded):
    with pytest.raises(KeyError, match="tl.domains"):
        domains(embedded, reference=embedded)
    domains(embedded, 5)
    with pytest.raises(ValueError, match="both"):
        domains(embedded, 5, reference=embedded)
    narrow = embedded.copy()
    narrow.obsm["X_stalign"] = narrow.obsm["X_stalign"][:, :4]
    with pytest.raises(ValueError, match=r"features \(n, 20\)"):
        domains(narrow, reference=embedded)


def test_features_missing_everywhere_and_strange_ones(embedded):
    del embedded.obsm["X_stalign"]
    with pytest.raises(KeyError, match="tl.embed"):
        domains(embedded, 5)
    embedded.obsm["X_stalign"] = np.full((embedded.n_obs, 3), np.nan)
    with pytest.raises(ValueError, match="0 of 920 spots"):
        domains(embedded, 5)


def test_sparse_features_views_and_few_components(embedded):
    from scipy import sparse

    embedded.obsm["X_few"] = sparse.csr_matrix(embedded.obsm["X_stalign"][:, :3])
    domains(embedded, 3, use_rep="X_few")
    assert embedded.uns["stalign_domain"]["params"]["n_components"] == 3
    view = embedded[:500]
    domains(view, 3, use_rep="X_few")
    assert "stalign_domain" in view.obs


def test_spatialdata_gives_the_same_domains(embedded):
    sdata = stalign.datasets.toy(spatialdata=True)
    table = next(iter(sdata.tables.values()))
    table.obsm["X_stalign"] = embedded.obsm["X_stalign"]
    domains(embedded, 5, refine=2)
    domains(sdata, 5, refine=2)
    np.testing.assert_array_equal(codes(embedded), codes(table))


def test_few_spots(embedded):
    few = embedded[:3].copy()
    for clusterer in (3, KMeans(2), Leiden(n_domains=3), "leiden"):
        domains(few, clusterer, refine=True)
        assert not few.obs["stalign_domain"].isna().any()
    one = embedded[:1].copy()
    domains(one, 1)
    assert one.obs["stalign_domain"].tolist() == ["1"]


@pytest.mark.real
def test_real_layers_are_found_and_seeds_agree(shared_data):
    stored = np.load(shared_data / "dlpfc" / "pca50" / "151669.npz", allow_pickle=True)
    coords = stored["spatial"].astype(float)
    from stalign.core.niches import nearest, niche_graph

    adata = anndata.AnnData(obsm={"X_pca": niche_graph(nearest(coords, 18)) @ stored["X_pca"], "spatial": coords})
    adata.obs["layer"] = stored["layer"].astype(str)
    number = len(set(adata.obs["layer"]) - {"nan", ""})
    found = []
    for seed in (0, 100):
        domains(adata, number, use_rep="X_pca", random_state=seed)
        found.append(codes(adata))
        assert stalign.tl.score(adata)["ARI"][0] > 0.5
    assert adjusted_rand_score(*found) > 0.8
