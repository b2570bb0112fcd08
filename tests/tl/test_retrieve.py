"""tl.retrieve: ranks, recall and chunks, against the full matrix."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from stalign.tl import _retrieve, predict_genes, retrieve


def cosines(adata, left="X_stalign_image", right="X_stalign_gene"):
    a, b = (adata.obsm[key].astype(float) for key in (left, right))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@pytest.mark.parametrize("chunk", [10**9, 5_000])
def test_best_matches_and_recall_against_the_full_matrix(embedded, monkeypatch, chunk):
    monkeypatch.setattr(_retrieve, "CHUNK", chunk)
    full = cosines(embedded)
    found = retrieve(embedded, n=4)
    assert len(found) == 4 * embedded.n_obs and found["rank"].tolist()[:5] == [1, 2, 3, 4, 1]
    expected = np.argsort(-full, axis=1)[:, :4]
    np.testing.assert_allclose(
        found["similarity"].to_numpy().reshape(-1, 4), np.take_along_axis(full, expected, axis=1), atol=1e-5
    )
    agree = found["match"].to_numpy().reshape(-1, 4) == embedded.obs_names.to_numpy()[expected]
    assert agree.mean() > 0.999
    rank = (full > np.diag(full)[:, None]).sum(axis=1)
    for name, share in (("1%", 0.01), ("5%", 0.05), ("10%", 0.1)):
        assert found.attrs["recall"][name] == pytest.approx((rank < np.ceil(share * 920)).mean(), abs=0.003)


def test_the_other_direction_swaps_both_sides(embedded):
    found = retrieve(embedded, direction="gene_to_image", n=1)
    best = cosines(embedded, "X_stalign_gene", "X_stalign_image").argmax(axis=1)
    assert (found["match"].to_numpy() == embedded.obs_names.to_numpy()[best]).mean() > 0.999


def test_perfect_and_useless_embeddings(embedded):
    embedded.obsm["X_stalign_gene"] = embedded.obsm["X_stalign_image"].copy()
    found = retrieve(embedded, n=1)
    assert (found["query"] == found["match"]).all() and found.attrs["recall"]["1%"] == 1.0
    embedded.obsm["X_stalign_gene"] = np.ones_like(embedded.obsm["X_stalign_gene"])
    assert max(retrieve(embedded, n=1).attrs["recall"].values()) == 0.0  # all equal: the partner is in the middle


def test_a_reference_answers_and_spots_with_nan_do_not(embedded):
    query, reference = embedded[:50].copy(), embedded[50:].copy()
    query.obsm["X_stalign_image"][3] = np.nan
    reference.obsm["X_stalign_gene"][7] = np.nan
    found = retrieve(query, reference, n=1000)
    assert found.attrs == {"direction": "image_to_gene", "n_query": 49, "n_reference": 869}
    assert len(found) == 49 * 869
    assert query.obs_names[3] not in set(found["query"]) and reference.obs_names[7] not in set(found["match"])
    assert set(found["match"]) <= set(reference.obs_names)


def test_recall_counts_only_spots_with_both_sides(embedded):
    embedded.obsm["X_stalign_gene"] = embedded.obsm["X_stalign_image"].copy()
    embedded.obsm["X_stalign_gene"][:100] = np.nan
    found = retrieve(embedded, n=1)
    assert found.attrs["n_query"] == 920 and found.attrs["n_reference"] == 820
    assert found.attrs["recall"]["1%"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"direction": "both"}, ValueError, "image_to_gene"),
        ({"n": 0}, ValueError, "`n` to be at least 1"),
        ({"use_rep": ("X_none", "X_stalign_gene")}, KeyError, "X_none"),
        ({"use_rep": ("X_stalign_image", "narrow")}, ValueError, "one width"),
        ({"use_rep": ("X_stalign_image", "empty")}, ValueError, "NaN in every row"),
    ],
)
def test_bad_arguments(embedded, arguments, error, text):
    embedded.obsm["narrow"] = embedded.obsm["X_stalign_gene"][:, :3]
    embedded.obsm["empty"] = np.full((embedded.n_obs, 20), np.nan)
    with pytest.raises(error, match=text):
        retrieve(embedded, **arguments)


def test_a_section_embedded_from_genes_alone_says_what_is_missing(embedded):
    del embedded.obsm["X_stalign_image"]
    for call in (retrieve, partial(predict_genes, use_rep="X_stalign_image")):
        with pytest.raises(KeyError, match="embedded from genes alone.*needs an image"):
            call(embedded)


def test_matches_within_sections_and_the_mean_of_their_recall(embedded):
    embedded.obs["section"] = np.where(np.arange(embedded.n_obs) < 300, "a", "b")
    found = retrieve(embedded, n=2, library_key="section")
    section = embedded.obs["section"]
    assert (section[found["query"]].to_numpy() == section[found["match"]].to_numpy()).all()
    alone = [retrieve(embedded[section == name].copy(), n=2) for name in ("a", "b")]
    assert found["match"].tolist() == [*alone[0]["match"], *alone[1]["match"]]
    for name in ("1%", "5%", "10%"):
        for figure in ("recall", "chance"):
            mean = np.mean([part.attrs[figure][name] for part in alone])
            assert found.attrs[figure][name] == pytest.approx(mean)
    assert (found.attrs["pool"], alone[0].attrs["pool"]) == ("section", "all")
    with pytest.raises(ValueError, match="`library_key` or `reference`"):
        retrieve(embedded, embedded, library_key="section")
    with pytest.raises(KeyError, match="slide"):
        retrieve(embedded, library_key="slide")


def test_random_vectors_are_found_by_chance(embedded):
    rng = np.random.default_rng(0)
    for key in ("a", "b"):
        embedded.obsm[key] = rng.normal(size=(embedded.n_obs, 8)).astype(np.float32)
    found = retrieve(embedded, n=1, use_rep=("a", "b"))
    assert found.attrs["chance"] == {"1%": 10 / 920, "5%": 46 / 920, "10%": 92 / 920}
    for name, chance in found.attrs["chance"].items():
        assert found.attrs["recall"][name] == pytest.approx(chance, abs=4 * np.sqrt(chance / 920))
