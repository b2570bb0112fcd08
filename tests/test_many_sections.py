"""Several sections in one table give what each gives alone, in whatever order they come."""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pytest

import stalign
from stalign._constants import Keys
from stalign.data import section_row

NAMES = ("toy_1", "toy_2")
ALL = (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE)


@pytest.fixture(scope="session")
def weights(small_weights):
    return small_weights()


@pytest.fixture(scope="session")
def parts():
    """Two sections, apart."""
    both = stalign.datasets.toy(n_rows=12, n_sections=2)
    alone = {}
    for name in NAMES:
        alone[name] = both[(both.obs["library"] == name).to_numpy()].copy()
        alone[name].uns[Keys.UNS_SPATIAL] = {name: both.uns[Keys.UNS_SPATIAL][name]}
    return alone


@pytest.fixture(params=[NAMES, NAMES[::-1], "mixed"], ids=["in order", "turned round", "mixed"])
def joined(parts, request):
    """The two in one table, one after the other or spot by spot."""
    names = NAMES if request.param == "mixed" else request.param
    table = anndata.concat([parts[name].copy() for name in names])
    table.uns[Keys.UNS_SPATIAL] = {name: deepcopy(parts[name].uns[Keys.UNS_SPATIAL][name]) for name in names}
    if request.param == "mixed":  # within a section the order stays, as ties are broken by it
        where = np.argsort(np.random.default_rng(0).random(table.n_obs))
        rank = np.empty(table.n_obs, dtype=int)
        for name in NAMES:
            rows = np.flatnonzero(table.obs["library"] == name)
            rank[np.sort(where[rows])] = rows
        table = table[rank].copy()
    return table


def rows_of(table, name):
    return np.flatnonzero(table.obs["library"] == name)


def test_niches(joined, parts):
    stalign.pp.niches(joined, library_key="library")
    for name in NAMES:
        alone, rows = parts[name].copy(), rows_of(joined, name)
        stalign.pp.niches(alone)
        graph = joined.obsp[Keys.NICHE_GRAPH]
        np.testing.assert_array_equal(graph[rows][:, rows].toarray(), alone.obsp[Keys.NICHE_GRAPH].toarray())
        assert graph[rows].nnz == graph[rows][:, rows].nnz


def test_windows(joined, parts):
    stalign.pp.patches(joined, library_key="library")
    for name in NAMES:
        alone, rows = parts[name].copy(), rows_of(joined, name)
        stalign.pp.patches(alone)
        for slot in (Keys.SPOT_WINDOW, Keys.NICHE_WINDOW):
            np.testing.assert_array_equal(joined.obsm[slot][rows], alone.obsm[slot])
        records = (section_row(data, "patches", name) for data in (joined, alone))
        assert next(records) == next(records)


def test_embeddings(joined, parts, weights):
    stalign.tl.embed(joined, weights, library_key="library")
    assert set(joined.uns[Keys.UNS]["embed"]["sections"]["section"]) == set(NAMES)
    for name in NAMES:
        alone, rows = parts[name].copy(), rows_of(joined, name)
        stalign.tl.embed(alone, weights)
        for key in ALL:
            np.testing.assert_allclose(joined.obsm[key][rows], alone.obsm[key], atol=1e-5, err_msg=key)
        records = [section_row(data, "embed", name) for data in (joined, alone)]
        assert records[0] == records[1]


@pytest.mark.parametrize("options", [{"image": False}, {"genes": False}])
def test_embeddings_of_one_modality(joined, parts, weights, options):
    stalign.tl.embed(joined, weights, library_key="library", **options)
    for name in NAMES:
        alone = stalign.tl.embed(parts[name], weights, copy=True, **options)
        np.testing.assert_allclose(joined.obsm[Keys.EMBED][rows_of(joined, name)], alone.obsm[Keys.EMBED], atol=1e-5)


def test_refinement_of_domains(joined, parts, weights):
    stalign.tl.embed(joined, weights, library_key="library")
    options = {"use_rep": Keys.EMBED, "random_state": 0}
    stalign.tl.domains(joined, 4, key_added="raw", **options)
    model = stalign.tl.domain_model(joined, key="raw")
    stalign.tl.domains(joined, reference=model, refine=True, library_key="library", key_added="refined")
    for name in NAMES:
        alone = joined[rows_of(joined, name)].copy()
        alone.uns[Keys.UNS_SPATIAL] = parts[name].uns[Keys.UNS_SPATIAL]
        stalign.tl.domains(alone, reference=model, refine=True, key_added="refined")
        assert alone.obs["refined"].tolist() == joined.obs["refined"].to_numpy()[rows_of(joined, name)].tolist()
    assert (joined.obs["refined"] != joined.obs["raw"]).any()


def test_joint_domains_have_one_set_of_names_and_colours(joined, weights):
    stalign.tl.embed(joined, weights, library_key="library")
    stalign.tl.domains(joined, 4, random_state=0)
    assert list(joined.obs[Keys.DOMAIN].cat.categories) == ["1", "2", "3", "4"]
    assert len(joined.uns[f"{Keys.DOMAIN}_colors"]) == 4
    for name in NAMES:
        assert set(joined.obs[Keys.DOMAIN].to_numpy()[rows_of(joined, name)]) <= set("1234")


def test_the_order_of_sections_does_not_change_joint_domains(parts, weights):
    labels = []
    for names in (NAMES, NAMES[::-1]):
        table = anndata.concat([parts[name].copy() for name in names])
        table.uns[Keys.UNS_SPATIAL] = {name: parts[name].uns[Keys.UNS_SPATIAL][name] for name in names}
        stalign.tl.embed(table, weights, library_key="library")
        stalign.tl.domains(table, 4, random_state=0)
        labels.append(table.obs[Keys.DOMAIN].astype(str))
    assert (labels[0] == labels[1].loc[labels[0].index]).mean() > 0.99


def test_a_third_section_does_not_change_the_others(parts, weights):
    # not even one without an image, and with other names for its spots
    third = parts["toy_1"][:50].copy()
    third.obs_names = "third_" + third.obs_names
    third.obs["library"] = "toy_3"
    table = anndata.concat([parts["toy_1"].copy(), third, parts["toy_2"].copy()])
    table.uns[Keys.UNS_SPATIAL] = {name: parts[name].uns[Keys.UNS_SPATIAL][name] for name in NAMES}
    stalign.tl.embed(table, weights, library_key="library")
    modality = dict(table.uns[Keys.UNS]["embed"]["sections"][["section", "modality"]].to_numpy())
    assert modality == {"toy_1": "both", "toy_2": "both", "toy_3": "gene"}
    assert np.isnan(table.obsm[Keys.EMBED_IMAGE][rows_of(table, "toy_3")]).all()
    for name in NAMES:
        alone = stalign.tl.embed(parts[name], weights, copy=True)
        np.testing.assert_allclose(table.obsm[Keys.EMBED][rows_of(table, name)], alone.obsm[Keys.EMBED], atol=1e-5)


def test_counts_are_read_once_for_all_sections(joined, weights, monkeypatch):
    from stalign.data import counts

    calls = []
    read = counts.read_counts
    monkeypatch.setattr(counts, "read_counts", lambda *args, **options: calls.append(1) or read(*args, **options))
    stalign.tl.embed(joined, weights, library_key="library")
    assert len(calls) == 1


def test_a_scale_for_each_section(joined, weights):
    stalign.tl.embed(joined, weights, library_key="library", mpp={"toy_1": 0.5, "toy_2": 0.49})
    assert section_row(joined, "patches", "toy_1")["coord_mpp"] == 0.5
    assert section_row(joined, "patches", "toy_2")["coord_mpp"] == 0.49


def test_an_error_in_the_last_section_leaves_nothing_behind(joined, weights, snapshot):
    last = list(joined.uns[Keys.UNS_SPATIAL])[-1]
    factors = joined.uns[Keys.UNS_SPATIAL][last]["scalefactors"]
    factors["tissue_hires_scalef"] = 0.01 * factors["tissue_hires_scalef"]
    joined.obsm[Keys.SPATIAL][rows_of(joined, last)] += 1e7
    before = snapshot(joined)
    with pytest.raises(ValueError, match=f"section '{last}' inside its image"):
        stalign.tl.embed(joined, weights, library_key="library")
    assert snapshot(joined) == before


@pytest.mark.parametrize("names", [NAMES, NAMES[::-1]], ids=["in order", "turned round"])
@pytest.mark.parametrize("pairwise", [False, True])
def test_sections_that_were_analysed_alone_can_be_joined_by_anndata(parts, weights, names, pairwise):
    alone = {name: parts[name].copy() for name in NAMES}
    for section in alone.values():
        section.obs_names = [f"spot_{i}" for i in range(section.n_obs)]  # the names of spots meet
        stalign.tl.embed(section, weights)
        stalign.tl.domains(section, 3)
    options = {"label": "slide", "index_unique": "-", "uns_merge": "unique", "pairwise": pairwise}
    table = anndata.concat({name: alone[name] for name in names}, **options)
    before = {key: table.obsm[key].copy() for key in (*ALL, Keys.SPOT_WINDOW, Keys.NICHE_WINDOW)}
    stalign.pp.niches(table, library_key="slide")
    stalign.pp.patches(table, library_key="slide")
    stalign.tl.embed(table, weights, library_key="slide")
    for key, values in before.items():
        np.testing.assert_allclose(table.obsm[key], values, atol=1e-5, err_msg=key)
    graph = table.obsp[Keys.NICHE_GRAPH]
    for name in names:
        rows = np.flatnonzero(table.obs["slide"] == name)
        np.testing.assert_array_equal(graph[rows][:, rows].toarray(), alone[name].obsp[Keys.NICHE_GRAPH].toarray())
    stalign.tl.domains(table, 4, refine=True, library_key="slide")
    assert stalign.tl.score(table, "domain", library_key="slide")["library"].tolist() == [*names, "all"]
    options = {"library_key": "slide", "show": False, "return_fig": True}
    figure = stalign.pl.domains(table, truth="domain", **options)
    assert {name for name in NAMES if any(name in axes.get_title() for axes in figure.axes)} == set(NAMES)
    plt.close(figure)
    for plot in (stalign.pl.niches, stalign.pl.patches):
        plt.close(plot(table, **options))
    stalign.tl.domains(list(alone.values()), 4, refine=True)
    for name in NAMES:
        found = table.obs[Keys.DOMAIN].astype(str).to_numpy()[table.obs["slide"] == name]
        assert (alone[name].obs[Keys.DOMAIN].astype(str).to_numpy() == found).mean() > 0.99


def test_a_list_is_refused_with_a_way_to_join_it(parts):
    with pytest.raises(TypeError, match=r"found list.*anndata.concat|Found: list.*anndata.concat"):
        stalign.pl.domains(list(parts.values()))


_APPLY = """
import anndata, stalign
section = anndata.read_h5ad("section.h5ad")
stalign.tl.domains(section, reference="domains.npz", random_state=5)
section.write_h5ad("section.h5ad")
"""


def test_a_saved_model_applies_to_a_new_section_in_a_new_process(parts, weights, tmp_path):
    first, second = (stalign.tl.embed(parts[name], weights, copy=True) for name in NAMES)
    stalign.tl.domains(first, 4)
    stalign.tl.domain_model(first).save(tmp_path / "domains.npz")
    second.write_h5ad(tmp_path / "section.h5ad")
    subprocess.run([sys.executable, "-c", _APPLY], cwd=tmp_path, check=True, timeout=120)
    there = anndata.read_h5ad(tmp_path / "section.h5ad")
    stalign.tl.domains(second, reference=first)
    assert there.obs[Keys.DOMAIN].equals(second.obs[Keys.DOMAIN])
    assert there.obs[Keys.DOMAIN].nunique() > 1
    assert list(there.uns[f"{Keys.DOMAIN}_colors"]) == list(first.uns[f"{Keys.DOMAIN}_colors"])


def test_predictions_of_one_section_from_the_other(joined, parts, weights):
    stalign.tl.embed(joined, weights, library_key="library")
    predicted = stalign.tl.predict_genes(
        joined, split="library", genes=3, use_rep=Keys.EMBED_IMAGE, library_key="library"
    )
    assert list(predicted.obs_names) == list(joined.obs_names)
    tables = {name: stalign.tl.embed(parts[name], weights, copy=True) for name in NAMES}
    other = stalign.tl.predict_genes(
        tables["toy_1"], tables["toy_2"], genes=list(predicted.var_names), use_rep=Keys.EMBED_IMAGE
    )
    rows = rows_of(joined, "toy_1")
    np.testing.assert_allclose(np.asarray(predicted.X)[rows], other.X, atol=1e-3)
