from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import anndata as ad
import numpy as np
import pytest
import torch

import stalign
from stalign._constants import Keys
from stalign.data import open_sections as sections
from stalign.data import section_row
from stalign.models import Batch, Features
from stalign.models.config import BRANCHES

ALL = (Keys.EMBED, Keys.EMBED_FUSED, Keys.EMBED_IMAGE, Keys.EMBED_GENE)


@pytest.fixture(scope="session")
def _slide():
    adata = stalign.datasets.toy(n_rows=12)
    # no two spots are equally near, so that niches do not hang on the order of the spots
    adata.obsm[Keys.SPATIAL] += np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    return adata


@pytest.fixture
def slide(_slide):
    return _slide.copy()


@pytest.fixture(scope="session")
def weights(small_weights):
    return small_weights()


def same(found, expected, *, atol=1e-5):
    assert found.keys() == expected.keys()
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=atol, err_msg=key)


def test_the_embedding_is_that_of_the_network(slide, weights):
    """Put together by hand: windows, patches, colours, scores, niche means, network."""
    stalign.tl.embed(slide, weights)
    spec, image = weights.config.input, sections(slide)[0].image
    patches = image.patches(slide.obsm[Keys.NICHE_WINDOW].astype(float), spec.niche_px)
    pixels = image.patches(slide.obsm[Keys.NICHE_WINDOW].astype(float), 16).reshape(-1, 3) / 255
    counts = slide.X.toarray().astype(float)
    values = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    x, y = sections(slide)[0].coords_um.T
    squares = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2  # µm²
    graph = np.exp(-squares / 2 / spec.niche_sigma**2) * (squares <= 9 * spec.niche_sigma**2)
    graph /= graph.sum(axis=1, keepdims=True)
    mean = (graph @ values).mean(axis=0)
    basis = np.linalg.svd(graph @ values - mean, full_matrices=False)[2][:8]
    niches = graph @ (values - mean) @ basis.T
    niches /= np.sqrt(np.square(niches).sum(axis=1).mean())
    order = [list(slide.var_names).index(gene) for gene in weights.vocabulary]
    batch = Batch(
        section=torch.zeros(slide.n_obs, dtype=torch.long),
        niche_image=torch.from_numpy(patches.transpose(0, 3, 1, 2).copy()),
        image_mean=torch.tensor(pixels.mean(axis=0)[None], dtype=torch.float32),
        image_std=torch.tensor(pixels.std(axis=0)[None], dtype=torch.float32),
        niche_gene=torch.tensor(niches, dtype=torch.float32),
        basis=torch.tensor(basis[:, order][None], dtype=torch.float32),
    )
    with torch.inference_mode():
        level = weights.network.embed(batch)
    parts = {Keys.EMBED_FUSED: level.fused, Keys.EMBED_IMAGE: level.image, Keys.EMBED_GENE: level.gene}
    gram = slide.obsm[Keys.EMBED] @ slide.obsm[Keys.EMBED].T
    np.testing.assert_allclose(gram, niches @ niches.T, atol=2e-3)  # distances of the expression, untouched
    for key, expected in {Keys.EMBED: level.expression, **parts}.items():
        np.testing.assert_allclose(slide.obsm[key], expected, atol=2e-3 * float(expected.std()), err_msg=key)


def test_what_is_written(slide, weights):
    assert stalign.tl.embed(slide, weights) is None
    for key in ALL:
        assert slide.obsm[key].shape == (slide.n_obs, 16)
        assert slide.obsm[key].dtype == np.float32
        assert np.isfinite(slide.obsm[key]).all()
        assert slide.obsm[key].std(axis=0).min() > 0
    assert slide.obs[Keys.VALID].dtype == bool
    assert slide.obs[Keys.VALID].all()
    record = slide.uns[Keys.UNS]["embed"]
    assert record["params"]["weights"] == "small"
    assert record["params"]["sha256"] == "small-0"
    assert record["params"]["version"] == version("stalign")
    assert record["params"]["random_state"] == stalign.settings.seed
    assert record["sections"].to_dict("records") == [
        {
            "section": "toy",
            "modality": "both",
            "n_valid": slide.n_obs,
            "image_key": "hires",
            "image_mpp": pytest.approx(2, rel=0.01),
            "gene_coverage": 1.0,
            "n_genes": slide.n_vars,
            "niche_sd_um": pytest.approx(77, abs=3),
        }
    ]
    assert section_row(slide, "patches", "toy")["image_key"] == "hires"
    assert slide.uns[Keys.UNS_NICHES]["params"] == {"n_neighbors": 3, "include_self": True, "ties": "position"}


def test_a_copy_leaves_the_original(slide, weights, snapshot, embeddings):
    before = snapshot(slide)
    copy = stalign.tl.embed(slide, weights, copy=True)
    assert snapshot(slide) == before
    stalign.tl.embed(slide, weights)
    same(embeddings(copy), embeddings(slide), atol=0)


def test_reading_changes_nothing_that_is_there(slide, weights, snapshot):
    before = snapshot(slide)
    stalign.tl.embed(slide, weights)
    after = snapshot(slide)
    assert after["X"] == before["X"]
    assert after["var"] == before["var"]
    slide.obs = slide.obs.drop(columns=Keys.VALID)
    for key in [*ALL, Keys.SPOT_WINDOW, Keys.NICHE_WINDOW]:
        del slide.obsm[key]
    del slide.obsp[Keys.NICHE_GRAPH], slide.uns[Keys.UNS], slide.uns[Keys.UNS_NICHES]
    assert snapshot(slide) == before


@pytest.mark.parametrize("batch_size", [1, 7, 100_000])
def test_the_batch_size_does_not_matter(slide, weights, embeddings, batch_size):
    few = slide[:40].copy()
    expected = stalign.tl.embed(few, weights, copy=True)
    stalign.tl.embed(few, weights, batch_size=batch_size)
    same(embeddings(few), embeddings(expected))


def test_what_batches_share_is_made_once_and_counts_are_let_go(slide, weights, embeddings, monkeypatch):
    from stalign.models.network import STAlign
    from stalign.tl import _embedding

    expected = stalign.tl.embed(slide, weights, copy=True)
    made, held, bases, embed = [], [], STAlign.bases, _embedding.embed_batch

    def look(network, reader, rows, **options):
        held.append(reader.expression.counts)
        return embed(network, reader, rows, **options)

    monkeypatch.setattr(STAlign, "bases", lambda *args, **options: made.append(0) or bases(*args, **options))
    monkeypatch.setattr(_embedding, "embed_batch", look)
    stalign.tl.embed(slide, weights, batch_size=7)
    same(embeddings(slide), embeddings(expected))
    assert len(made) == 1 and len(held) > 5 and not any(counts is not None for counts in held)


def test_the_number_of_threads_does_not_matter(slide, weights, embeddings):
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(embeddings(stalign.tl.embed(slide, weights, copy=True)))
    finally:
        torch.set_num_threads(threads)
    same(*found)


def test_the_order_of_the_spots_does_not_matter(slide, weights, embeddings):
    stalign.tl.embed(slide, weights)
    order = np.random.default_rng(1).permutation(slide.n_obs)
    mixed = slide[order].copy()
    for key in ALL:
        del mixed.obsm[key]
    stalign.tl.embed(mixed, weights)  # with the niches and windows that came along
    same(embeddings(mixed), embeddings(slide, order), atol=1e-4)
    for slot in (Keys.SPOT_WINDOW, Keys.NICHE_WINDOW, *ALL):
        del mixed.obsm[slot]
    del mixed.obsp[Keys.NICHE_GRAPH]
    stalign.tl.embed(mixed, weights)  # with its own
    same(embeddings(mixed), embeddings(slide, order), atol=1e-4)


def test_the_order_of_the_genes_does_not_matter(slide, weights, embeddings):
    stalign.tl.embed(slide, weights)
    mixed = slide[:, np.random.default_rng(1).permutation(slide.n_vars)].copy()
    stalign.tl.embed(mixed, weights)
    same(embeddings(mixed), embeddings(slide), atol=1e-4)


def test_same_seed_same_result(slide, weights, embeddings):
    first, again = (stalign.tl.embed(slide, weights, random_state=3, copy=True) for _ in range(2))
    same(embeddings(first), embeddings(again), atol=0)
    assert first.uns[Keys.UNS]["embed"]["params"]["random_state"] == 3


def test_embedding_does_not_touch_the_random_state_of_the_process(slide, weights):
    draw = {"numpy": lambda: np.random.random(3).tolist(), "torch": lambda: torch.rand(3).tolist()}  # noqa: NPY002
    found = []
    for embed in (False, True):
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        if embed:
            stalign.tl.embed(slide, weights)
        found.append({name: function() for name, function in draw.items()})
    assert found[0] == found[1]


def test_twice_is_as_once(slide, weights, snapshot):
    stalign.tl.embed(slide, weights)
    once = snapshot(slide)
    stalign.tl.embed(slide, weights)
    assert snapshot(slide) == once


def test_genes_alone(slide, weights):
    stalign.tl.embed(slide, weights)
    alone = stalign.datasets.toy(n_rows=12, image=False)
    alone.obsm[Keys.SPATIAL] = slide.obsm[Keys.SPATIAL]
    for data, options in ((alone, {}), (slide, {"image": False})):
        found = stalign.tl.embed(data, weights, copy=True, **options)
        assert section_row(found, "embed", "toy")["modality"] == "gene"
        np.testing.assert_allclose(found.obsm[Keys.EMBED_GENE], slide.obsm[Keys.EMBED_GENE], atol=1e-5)
        np.testing.assert_allclose(found.obsm[Keys.EMBED], slide.obsm[Keys.EMBED], atol=1e-5)  # an image moves no spot
        assert Keys.EMBED_FUSED not in found.obsm
    assert Keys.EMBED_IMAGE not in stalign.tl.embed(alone, weights, copy=True).obsm
    assert Keys.SPOT_WINDOW not in stalign.tl.embed(alone, weights, copy=True).obsm


def test_an_image_alone(slide, weights):
    stalign.tl.embed(slide, weights)
    alone = slide.copy()
    alone.X = None
    none = slide[:, :0].copy()
    for data, options in ((alone, {}), (none, {}), (slide, {"genes": False})):
        found = stalign.tl.embed(data, weights, copy=True, **options)
        assert section_row(found, "embed", "toy")["modality"] == "image"
        np.testing.assert_allclose(found.obsm[Keys.EMBED_IMAGE], slide.obsm[Keys.EMBED_IMAGE], atol=1e-5)
        assert np.isnan(section_row(found, "embed", "toy")["gene_coverage"])
    assert Keys.EMBED_GENE not in stalign.tl.embed(alone, weights, copy=True).obsm


def test_results_of_a_modality_that_is_left_out_do_not_stay_behind(slide, weights):
    stalign.tl.embed(slide, weights)
    stalign.tl.embed(slide, weights, image=False)
    assert Keys.EMBED_IMAGE not in slide.obsm
    assert section_row(slide, "embed", "toy")["modality"] == "gene"


def test_windows_of_another_image_are_made_again(slide, weights, embeddings):
    entry = slide.uns[Keys.UNS_SPATIAL]["toy"]
    entry["images"]["lowres"] = entry["images"]["hires"][::2, ::2].copy()
    entry["scalefactors"]["tissue_lowres_scalef"] = entry["scalefactors"]["tissue_hires_scalef"] / 2
    fresh = stalign.tl.embed(slide, weights, image_key="lowres", copy=True)
    stalign.tl.embed(slide, weights)
    hires = slide.obsm[Keys.SPOT_WINDOW].copy()
    stalign.tl.embed(slide, weights, image_key="lowres")
    np.testing.assert_allclose(slide.obsm[Keys.SPOT_WINDOW], hires / 2, rtol=1e-5)
    same(embeddings(slide), embeddings(fresh))
    assert section_row(slide, "patches", "toy")["image_key"] == "lowres"


def test_windows_of_other_positions_are_made_again(slide, weights, embeddings):
    stalign.tl.embed(slide, weights)
    slide.obsm[Keys.SPATIAL] = slide.obsm[Keys.SPATIAL] + [40.0, 0.0]
    fresh = slide.copy()
    del fresh.obsm[Keys.SPOT_WINDOW], fresh.obsm[Keys.NICHE_WINDOW]
    stalign.tl.embed(fresh, weights)
    stalign.tl.embed(slide, weights)
    np.testing.assert_array_equal(slide.obsm[Keys.SPOT_WINDOW], fresh.obsm[Keys.SPOT_WINDOW])
    same(embeddings(slide), embeddings(fresh))


def test_niches_are_those_that_the_weights_know(slide, weights, embeddings, log):
    fresh = stalign.tl.embed(slide, weights, copy=True)
    stalign.pp.niches(slide, 8)
    stalign.pp.patches(slide)
    stalign.tl.embed(slide, weights)
    assert "obsp['niche_connectivities'] was made for other spots" in log.text
    same(embeddings(slide), embeddings(fresh), atol=0)
    assert abs(slide.obsp[Keys.NICHE_GRAPH] - fresh.obsp[Keys.NICHE_GRAPH]).nnz == 0
    assert slide.uns[Keys.UNS_NICHES]["params"]["n_neighbors"] == 3
    np.testing.assert_array_equal(slide.obsm[Keys.NICHE_WINDOW], fresh.obsm[Keys.NICHE_WINDOW])


@pytest.mark.filterwarnings("ignore:Expected the scale of section")
def test_windows_of_another_scale_are_made_again(slide, weights):
    stalign.tl.embed(slide, weights)
    width = np.ptp(slide.obsm[Keys.SPOT_WINDOW][0, ::2])
    stalign.tl.embed(slide, weights, mpp=1.0)
    assert np.ptp(slide.obsm[Keys.SPOT_WINDOW][0, ::2]) == pytest.approx(width / 2, rel=0.01)


def test_a_spot_diameter_given_to_patches_holds(slide, weights):
    stalign.pp.patches(slide, spot_diameter=80)
    made = slide.obsm[Keys.NICHE_WINDOW].copy()
    stalign.tl.embed(slide, weights)
    np.testing.assert_array_equal(slide.obsm[Keys.NICHE_WINDOW], made)
    part = slide[::2].copy()
    stalign.tl.embed(part, weights)
    assert section_row(part, "patches", "toy")["spot_diameter_um"] == 80
    other = slide.copy()
    stalign.pp.patches(other)
    stalign.tl.embed(other, weights)
    assert section_row(other, "patches", "toy")["spot_diameter_um"] == 55
    assert not np.allclose(other.obsm[Keys.EMBED_IMAGE], slide.obsm[Keys.EMBED_IMAGE], atol=1e-3)


def test_niches_are_made_again_after_spots_were_removed(slide, weights, embeddings, log):
    stalign.tl.embed(slide, weights)
    kept = np.random.default_rng(0).random(slide.n_obs) > 0.3
    part = slide[kept].copy()
    stalign.tl.embed(part, weights)
    assert "was made for other spots" in log.text
    fresh = slide[kept].copy()
    del fresh.obsp[Keys.NICHE_GRAPH], fresh.obsm[Keys.SPOT_WINDOW], fresh.obsm[Keys.NICHE_WINDOW]
    stalign.tl.embed(fresh, weights)
    same(embeddings(part), embeddings(fresh), atol=0)
    assert abs(part.obsp[Keys.NICHE_GRAPH] - fresh.obsp[Keys.NICHE_GRAPH]).nnz == 0
    np.testing.assert_array_equal(part.obsm[Keys.NICHE_WINDOW], fresh.obsm[Keys.NICHE_WINDOW])


def test_a_section_without_counts_is_embedded_from_its_image(weights, log):
    pair = stalign.datasets.toy(n_rows=12, n_sections=2)
    second = (pair.obs["library"] == "toy_2").to_numpy()
    matrix = pair.X.tolil()
    matrix[second] = 0
    pair.X = matrix.tocsr()
    stalign.tl.embed(pair, weights, library_key="library")
    modality = dict(pair.uns[Keys.UNS]["embed"]["sections"][["section", "modality"]].to_numpy())
    assert modality == {"toy_1": "both", "toy_2": "image"}
    assert "'toy_2' has no counts" in log.text
    assert pair.obs[Keys.VALID].all()
    assert np.isnan(pair.obsm[Keys.EMBED_GENE][second]).all()
    assert np.isfinite(pair.obsm[Keys.EMBED_GENE][~second]).all()
    assert np.isfinite(pair.obsm[Keys.EMBED]).all()


def test_totals_over_all_genes_make_a_table_of_some_like_the_whole(slide, weights):
    slide.obs["sum_umi"] = np.asarray(slide.X.sum(axis=1)).ravel()
    known = stalign.tl.embed(slide[:, :300].copy(), weights, total_counts="sum_umi", copy=True)
    guessed = stalign.tl.embed(slide[:, :300].copy(), weights, copy=True)
    assert not np.allclose(known.obsm[Keys.EMBED_GENE], guessed.obsm[Keys.EMBED_GENE], atol=1e-2)
    assert section_row(known, "embed", "toy")["n_genes"] == 300


def test_counts_of_a_layer(slide, weights, embeddings):
    expected = stalign.tl.embed(slide, weights, copy=True)
    slide.layers["counts"] = slide.X.copy()
    slide.X = slide.X.astype(np.float32) * 0.5
    stalign.tl.embed(slide, weights, layer="counts")
    same(embeddings(slide), embeddings(expected), atol=0)


class TestFeatures:
    """Weights with branches that read features of frozen encoders."""

    @pytest.fixture
    def weights(self, small_weights):
        spot, niche = Features(dim=5, tokens="linear"), Features(dim=27, tokens="linear")
        return small_weights(model={"niche_image": niche, "spot_gene": spot})

    @pytest.fixture
    def slide(self, slide):
        stalign.tl.encode(slide, "colour", level="niche", cache=False)
        return slide

    def test_features_are_read_from_obsm(self, slide, weights):
        stalign.tl.embed(slide, weights, features={"niche_image": "X_colour_niche"})
        assert section_row(slide, "embed", "toy")["modality"] == "both"
        batch = Batch(
            section=torch.zeros(slide.n_obs, dtype=torch.long),
            niche_image=torch.from_numpy(slide.obsm["X_colour_niche"]),
            image_mean=torch.zeros(1, 3),
            image_std=torch.ones(1, 3),
        )
        with torch.inference_mode():
            expected = weights.network.embed(batch).image
        np.testing.assert_allclose(slide.obsm[Keys.EMBED_IMAGE], expected, atol=1e-5)

    def test_a_spot_without_features_is_not_embedded(self, slide, weights):
        slide.obsm["X_colour_niche"][[2, 6]] = np.nan
        with pytest.warns(UserWarning, match=f"2 of {slide.n_obs} spots could not be embedded"):
            stalign.tl.embed(slide, weights, features={"niche_image": "X_colour_niche"})
        assert np.flatnonzero(~slide.obs[Keys.VALID]).tolist() == [2, 6]
        for key in ALL:
            np.testing.assert_array_equal(np.isnan(slide.obsm[key]).all(axis=1), ~slide.obs[Keys.VALID])

    def test_missing_features_are_asked_for(self, slide, weights, snapshot):
        before = snapshot(slide)
        with pytest.raises(ValueError, match=r"'niche_image' of 'small'.*tl.encode.*features=\{'niche_image': key\}"):
            stalign.tl.embed(slide, weights)
        with pytest.raises(KeyError, match="'X_uni'.*Available.*X_colour_niche"):
            stalign.tl.embed(slide, weights, features={"niche_image": "X_uni"})
        with pytest.raises(ValueError, match="Expected features \\(B, 27\\)"):
            slide.obsm["X_narrow"] = np.ones((slide.n_obs, 3), np.float32)
            stalign.tl.embed(slide, weights, features={"niche_image": "X_narrow"})
        del slide.obsm["X_narrow"]
        assert snapshot(slide) == before

    def test_unknown_branches_are_named(self, slide, weights):
        with pytest.raises(ValueError, match="'niche'.*Available: " + ", ".join(map(repr, BRANCHES))):
            stalign.tl.embed(slide, weights, features={"niche": "X_colour_niche"})

    def test_they_are_not_needed_where_the_image_is_left_out(self, slide, weights):
        stalign.tl.embed(slide, weights, image=False)
        assert section_row(slide, "embed", "toy")["modality"] == "gene"


class TestPackaged:
    """The weights that ship."""

    def test_they_are_the_default(self, slide, packaged):
        stalign.tl.embed(slide)
        record = slide.uns[Keys.UNS]["embed"]
        assert record["params"]["weights"] == "stalign-mini"
        assert record["params"]["sha256"] == packaged.sha256
        assert slide.obsm[Keys.EMBED].shape == (slide.n_obs, packaged.config.head.out)

    def test_niches_of_one_domain_are_alike(self, packaged):
        from sklearn.metrics import silhouette_score

        adata = stalign.datasets.toy(n_rows=20)
        stalign.tl.embed(adata, packaged)
        rng = np.random.default_rng(0)
        shuffled = adata.copy()
        shuffled.obsm[Keys.SPATIAL] = shuffled.obsm[Keys.SPATIAL][rng.permutation(adata.n_obs)]
        for slot in (Keys.SPOT_WINDOW, Keys.NICHE_WINDOW):
            del shuffled.obsm[slot]
        del shuffled.obsp[Keys.NICHE_GRAPH]
        stalign.tl.embed(shuffled, packaged)
        right, wrong = (silhouette_score(data.obsm[Keys.EMBED], data.obs["domain"]) for data in (adata, shuffled))
        assert right > wrong + 0.03

    def test_batches_do_not_matter(self, slide, packaged, embeddings):
        few = slide[:60].copy()
        expected = stalign.tl.embed(few, packaged, batch_size=60, copy=True)
        stalign.tl.embed(few, packaged, batch_size=13)
        same(embeddings(few), embeddings(expected), atol=1e-4)


def test_a_checkpoint_folder_is_as_good_as_the_checkpoint(slide, weights, tmp_path, embeddings):
    from stalign.models import save

    folder = save(tmp_path / "mine", weights.network, vocabulary=weights.vocabulary, fp16=False)
    stalign.tl.embed(slide, weights)
    found = stalign.tl.embed(slide, folder, copy=True)
    same(embeddings(found), embeddings(slide))
    assert len(found.uns[Keys.UNS]["embed"]["params"]["sha256"]) == 64


def test_large_images_are_read_tile_by_tile(slide, weights, embeddings, monkeypatch):
    stalign.tl.embed(slide, weights)
    monkeypatch.setattr("stalign.data.images._IN_MEMORY", 1000)
    monkeypatch.setattr("stalign.data.images.EDGE", 64)
    found = stalign.tl.embed(slide, weights, copy=True)
    same(embeddings(found), embeddings(slide))


def test_images_in_bfloat16_are_close_and_genes_are_the_same(slide, weights, embeddings, snapshot):
    exact = slide.copy()
    stalign.tl.embed(exact, weights)
    stalign.tl.embed(slide, weights, precision="bf16")
    found, expected = embeddings(slide), embeddings(exact)
    for key in (Keys.EMBED, Keys.EMBED_GENE):
        np.testing.assert_array_equal(found[key], expected[key])
    image, wanted = found[Keys.EMBED_IMAGE], expected[Keys.EMBED_IMAGE]
    cosine = (image * wanted).sum(1) / np.linalg.norm(image, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.999 and not np.array_equal(image, wanted)
    assert [one.uns["stalign"]["embed"]["params"]["precision"] for one in (exact, slide)] == ["fp32", "bf16"]
    before = snapshot(slide)
    with pytest.raises(ValueError, match="Expected `precision` .* Found: 'fp16'. Available: 'fp32', 'bf16'"):
        stalign.tl.embed(slide, weights, precision="fp16")
    assert snapshot(slide) == before


def test_the_weights_stay_in_evaluation_mode_and_unchanged(slide, small_weights):
    weights = small_weights()
    before = {name: value.clone() for name, value in weights.network.state_dict().items()}
    stalign.tl.embed(slide, replace(weights))
    assert not weights.network.training
    for name, value in weights.network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bins_are_seen_by_the_size_that_the_weights_were_trained_on(small_weights, weights):
    adata = stalign.datasets.toy_hd(16, side_um=320)
    stalign.tl.embed(adata, weights)
    row = section_row(adata, "patches", "toy_hd")
    assert (row["spot_window_um"], row["niche_window_um"]) == (55, 200)
    narrow = small_weights(spot_um=30.0, niche_um=80.0)
    other = adata.copy()
    stalign.tl.embed(other, narrow)
    row = section_row(other, "patches", "toy_hd")
    assert (row["spot_window_um"], row["niche_window_um"]) == (30, 80)
    assert not np.allclose(other.obsm[Keys.EMBED_IMAGE], adata.obsm[Keys.EMBED_IMAGE], atol=1e-3, equal_nan=True)
    stalign.tl.embed(adata, weights, spot_window=30, niche_window=80)
    np.testing.assert_array_equal(adata.obsm[Keys.EMBED_IMAGE], other.obsm[Keys.EMBED_IMAGE])


def test_cells_without_a_diameter_are_embedded_with_one_given(weights):
    adata = stalign.datasets.toy_hd(cells=True, side_um=320)
    adata.uns[Keys.UNS_SPATIAL]["toy_hd"]["scalefactors"] = {"tissue_hires_scalef": 0.5}
    with pytest.raises(ValueError, match="Pass `spot_diameter=`"):
        stalign.tl.embed(adata, weights, mpp=0.5)
    stalign.tl.embed(adata, weights, mpp=0.5, spot_diameter=10)
    assert adata.obs[Keys.VALID].all()
    assert section_row(adata, "patches", "toy_hd")["niche_window_um"] == 200


def test_the_gaussian_of_a_niche_can_be_given(small_weights):
    bins = stalign.datasets.toy_hd(8, side_um=400, image=False)
    weights = small_weights(niche_sigma=80.0)
    found = {}
    for sigma in (None, 25.0):
        stalign.tl.embed(bins, weights, niche_sigma=sigma)
        record = bins.uns[Keys.UNS]["embed"]
        found[sigma] = record["sections"]["niche_sd_um"].item(), record["params"].get("niche_sigma")
    assert found[None][0] == pytest.approx(38, abs=3)
    assert found[25.0] == (pytest.approx(24, abs=2), 25.0)
    assert found[None][1] is None


@pytest.mark.parametrize(
    ("sigma", "wanted", "said"),
    [(80.0, -5.0, "niche_sigma.*positive|positive.*niche_sigma"), (0.0, 40.0, "plain mean")],
)
def test_a_gaussian_that_cannot_be_is_refused(slide, small_weights, snapshot, sigma, wanted, said):
    before = snapshot(slide)
    with pytest.raises(ValueError, match=said):
        stalign.tl.embed(slide, small_weights(niche_sigma=sigma), niche_sigma=wanted)
    assert snapshot(slide) == before


def test_genes_that_are_missing_are_listed(slide, weights, log, tmp_path):
    few = slide[:, 5:].copy()
    few.var_names = [*few.var_names[:-1], "NOBODYS"]
    lost = [*slide.var_names[:5], slide.var_names[-1]]
    stalign.tl.embed(few, weights)
    record = few.uns[Keys.UNS]["embed"]
    assert sorted(record["missing_genes"]) == sorted(lost) and list(record["unknown_genes"]) == ["NOBODYS"]
    assert f"Genes of the weights that the table lacks: 6, such as {lost[0]}" in log.text
    assert "uns['stalign']['embed']['missing_genes'] lists them" in log.text
    stalign.tl.embed(slide, weights)
    for name, data in (("few", few), ("all", slide)):
        data.write_h5ad(tmp_path / f"{name}.h5ad")
        data.write_zarr(tmp_path / f"{name}.zarr")
        for back in (ad.read_h5ad(tmp_path / f"{name}.h5ad"), ad.read_zarr(tmp_path / f"{name}.zarr")):
            for key in ("missing_genes", "unknown_genes"):
                assert list(back.uns[Keys.UNS]["embed"][key]) == list(data.uns[Keys.UNS]["embed"][key])


def test_aliases_as_a_mapping_and_as_a_file(slide, weights, embeddings, tmp_path):
    fresh = stalign.tl.embed(slide, weights, copy=True)
    other = slide.copy()
    first = other.var_names[0]
    other.var_names = ["OLDNAME", *other.var_names[1:]]
    (tmp_path / "names.csv").write_text(f"alias,symbol\nOLDNAME,{first}\n")
    for aliases in ({"OLDNAME": first}, tmp_path / "names.csv", str(tmp_path / "names.csv")):
        found = stalign.tl.embed(other, weights, aliases=aliases, copy=True)
        assert len(found.uns[Keys.UNS]["embed"]["missing_genes"]) == 0
        same(embeddings(found), embeddings(fresh))
    with pytest.raises(FileNotFoundError, match="Expected a table of other names of genes"):
        stalign.tl.embed(other, weights, aliases=tmp_path / "none.csv")


@pytest.mark.parametrize(("given", "images"), [(True, [True]), (False, [False])])
def test_encoders_of_images_are_read_once_and_where_there_is_one(given, images, monkeypatch):
    from stalign.models import weights

    seen, load = [], weights.load

    def noted(path, **options):
        seen.append(options["images"])
        return load(path, **options)

    monkeypatch.setattr(weights, "load", noted)
    stalign.tl.embed(stalign.datasets.toy(n_rows=8, image=given))
    assert seen == images
