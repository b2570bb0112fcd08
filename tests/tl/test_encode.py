from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import stalign
from stalign.encoders import Card, get, register
from stalign.encoders.registry import _CARDS


@pytest.fixture(autouse=True)
def _cache(tmp_path):
    with stalign.settings.override(cache_dir=tmp_path / "cache"):
        yield


@pytest.fixture
def spots(toy):
    """A corner of the toy section."""
    return toy[np.argsort(toy.obsm["spatial"].sum(1))[:40]].copy()


@pytest.fixture
def calls():
    """Registers an encoder that counts its calls and returns the mean colour; and takes it back."""
    before = dict(_CARDS)
    seen: list[int] = []

    class Mean:
        def encode(self, patches):
            seen.append(len(patches))
            return patches.mean((1, 2)).astype(np.float32)

    register(Card("mean-rgb", "image", lambda card, path, **rest: Mean(), width=3, input_px=16), replace=True)
    yield seen
    _CARDS.clear()
    _CARDS.update(before)


def test_writes_features_and_their_record(spots):
    assert stalign.tl.encode(spots, "colour", level="niche") is None
    features = spots.obsm["X_colour_niche"]
    assert features.shape == (40, 27)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    noted = spots.uns["X_colour_niche"]
    record = noted["params"]
    assert record["encoder"] == "colour"
    assert record["weights"] == "none"
    assert noted["sections"].set_index("section").loc["toy", "window_um"] == pytest.approx(155, abs=60)
    stalign.tl.encode(spots, "pixels", key_added="X_p")
    assert spots.uns["X_p"]["params"]["encoder"] == "pixels"


@pytest.mark.parametrize(("level", "um"), [("spot", 55.0), ("native", 64.0), (80, 80.0)])
def test_patch_is_the_window_around_the_spot(spots, calls, level, um):
    card = get("mean-rgb")
    _CARDS["mean-rgb"] = Card(**{**card.__dict__, "input_um": 64.0})
    stalign.tl.encode(spots, "mean-rgb", level=level)
    entry = spots.uns["spatial"]["toy"]
    scale = entry["scalefactors"]["tissue_hires_scalef"]
    image = np.asarray(entry["images"]["hires"])
    image = image if image.dtype == np.uint8 else np.rint(image * 255)
    x, y = spots.obsm["spatial"][17] * scale
    mpp = 100 / (np.sort(np.linalg.norm(spots.obsm["spatial"] - spots.obsm["spatial"][17], axis=1))[1] * scale)
    half = um / mpp / 2
    cut = image[round(y - half) : round(y + half), round(x - half) : round(x + half), :3]
    key = f"X_mean-rgb_{level}" if isinstance(level, str) else "X_mean-rgb_80um"
    np.testing.assert_allclose(spots.obsm[key][17], cut.reshape(-1, 3).mean(0), atol=4)
    assert spots.uns[key]["params"]["level"] == str(level)
    assert spots.uns[key]["sections"]["window_um"].iloc[0] == pytest.approx(um, rel=0.02)


def test_niche_uses_the_niches_that_are_there(spots, calls):
    stalign.tl.encode(spots, "mean-rgb", level="niche")
    three = spots.obsm["X_mean-rgb_niche"].copy()
    stalign.pp.niches(spots, 10)
    stalign.tl.encode(spots, "mean-rgb", level="niche")
    assert np.abs(spots.obsm["X_mean-rgb_niche"] - three).max() > 0.5


def test_copy_and_errors_leave_the_object_alone(spots, calls):
    keys = set(spots.obsm), set(spots.uns), set(spots.obs)
    changed = stalign.tl.encode(spots, "mean-rgb", copy=True)
    assert "X_mean-rgb_spot" in changed.obsm
    with pytest.raises(KeyError, match="registered encoder"):
        stalign.tl.encode(spots, "unii")
    with pytest.raises(ValueError, match="level"):
        stalign.tl.encode(spots, "colour", level="slide")
    with pytest.raises(ValueError, match="for a gene encoder"):
        stalign.tl.encode(spots, "pca", level="native")
    with pytest.raises(ValueError, match="`spot` or `niche`.*112"):
        stalign.tl.encode(spots, "pca", level=112)
    with pytest.raises(ValueError, match="`level` to be a positive number of µm"):
        stalign.tl.encode(spots, "mean-rgb", level=-1.0)
    with pytest.raises(ValueError, match="precision"):
        stalign.tl.encode(spots, "colour", precision="fp16")
    with pytest.raises(ValueError, match="no weights"):
        stalign.tl.encode(spots, "colour", weights="random")
    with pytest.raises(FileNotFoundError, match="pass `weights=`"):
        stalign.tl.encode(spots, "ctranspath")
    with pytest.raises(KeyError, match="raw"):
        stalign.tl.encode(spots, "pca", layer="raw")
    with pytest.raises(ValueError, match="batch_size"):
        stalign.tl.encode(spots, "colour", batch_size=0)
    assert (set(spots.obsm), set(spots.uns), set(spots.obs)) == keys


def test_batch_size_and_order_of_spots_make_no_difference(spots):
    spots = spots[:9].copy()
    stalign.tl.encode(spots, "resnet18", weights="random", cache=False, batch_size=4)
    order = np.random.default_rng(0).permutation(9)
    shuffled = spots[order].copy()
    stalign.tl.encode(shuffled, "resnet18", weights="random", cache=False, batch_size=64)
    a, b = spots.obsm["X_resnet18_spot"][order], shuffled.obsm["X_resnet18_spot"]
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(a).max())
    assert spots.uns["X_resnet18_spot"]["params"]["weights"].startswith("random: for checks of shape")


def test_cache_is_found_by_content(spots, monkeypatch):
    from stalign.encoders.baselines import Colour

    calls = []
    encode = Colour.encode
    monkeypatch.setattr(Colour, "encode", lambda self, patches: calls.append(len(patches)) or encode(self, patches))
    stalign.tl.encode(spots, "colour")
    first, done = spots.obsm["X_colour_spot"].copy(), len(calls)
    assert done
    renamed = spots.copy()
    renamed.obs_names = [f"other-{i}" for i in range(40)]
    stalign.tl.encode(renamed, "colour")
    assert len(calls) == done
    np.testing.assert_array_equal(renamed.obsm["X_colour_spot"], first)
    stalign.tl.encode(spots, "colour", cache=False)
    assert len(calls) == 2 * done
    entry = spots.uns["spatial"]["toy"]["images"]
    entry["hires"] = 1 - entry["hires"] if entry["hires"].dtype.kind == "f" else 255 - entry["hires"]
    stalign.tl.encode(spots, "colour")
    assert len(calls) == 3 * done
    assert np.abs(spots.obsm["X_colour_spot"] - first).max() > 0.1


def test_interrupted_run_goes_on_where_it_stopped(toy, monkeypatch):
    from stalign.encoders.baselines import Colour

    calls = []
    encode = Colour.encode

    def stop_at_600(self, patches):
        calls.append(len(patches))
        if sum(calls) > 600 and not resumed:
            raise KeyboardInterrupt
        return encode(self, patches)

    resumed: list[bool] = []
    monkeypatch.setattr(Colour, "encode", stop_at_600)
    with pytest.raises(KeyboardInterrupt):
        stalign.tl.encode(toy, "colour", batch_size=256)
    assert "X_colour_spot" not in toy.obsm
    kept = 256 * ((sum(calls) - 1) // 256)
    resumed.append(True)
    calls.clear()
    stalign.tl.encode(toy, "colour", batch_size=256)
    assert sum(calls) == toy.n_obs - kept
    assert kept == 512


def test_encoders_given_as_functions_are_not_cached(spots, calls):
    stalign.tl.encode(spots, "mean-rgb")
    stalign.tl.encode(spots, "mean-rgb")
    assert sum(calls) == 80


def test_spots_without_position_are_nan(spots):
    spots.obsm["spatial"] = spots.obsm["spatial"].astype(float)
    spots.obsm["spatial"][[3, 9]] = np.nan
    with pytest.warns(UserWarning, match="2 of 40 spots could not be encoded"):
        stalign.tl.encode(spots, "colour")
    assert np.isnan(spots.obsm["X_colour_spot"]).all(axis=1).nonzero()[0].tolist() == [3, 9]


def test_no_image(spots):
    del spots.uns["spatial"]["toy"]["images"]
    spots.uns["spatial"]["toy"].pop("metadata", None)
    with pytest.raises(ValueError, match="Expected an image for the encoder 'colour'"):
        stalign.tl.encode(spots, "colour")


def test_two_sections_equal_each_alone(spots, toy):
    other = toy[np.argsort(-toy.obsm["spatial"].sum(1))[:30]].copy()
    both = ad.concat({"a": spots, "b": other}, label="section", index_unique="-")
    both.uns["spatial"] = {"a": spots.uns["spatial"]["toy"], "b": other.uns["spatial"]["toy"]}
    stalign.tl.encode(both, "colour", level="niche", library_key="section")
    for one in (spots, other):
        stalign.tl.encode(one, "colour", level="niche")
    expected = np.concatenate([one.obsm["X_colour_niche"] for one in (spots, other)])
    np.testing.assert_array_equal(both.obsm["X_colour_niche"], expected)


def test_survives_h5ad_and_zarr(spots, tmp_path):
    stalign.tl.encode(spots, "colour", level="niche")
    stalign.tl.encode(spots, "pca")
    spots.write_h5ad(tmp_path / "a.h5ad")
    spots.write_zarr(tmp_path / "a.zarr")
    for read in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(read.obsm["X_colour_niche"], spots.obsm["X_colour_niche"])
        assert read.uns["X_pca_spot"]["params"]["options"]["n_comps"] == 50


def test_pca_is_scanpys_pipeline(spots):
    import scanpy as sc

    stalign.tl.encode(spots, get("pca", n_comps=5, n_top_genes=100))
    expected = ad.AnnData(spots.X.astype(np.float32).copy())
    sc.pp.normalize_total(expected, target_sum=1e4)
    sc.pp.log1p(expected)
    sc.pp.highly_variable_genes(expected, n_top_genes=100)
    expected = expected[:, expected.var["highly_variable"]].copy()
    sc.pp.pca(expected, n_comps=5, random_state=0)
    np.testing.assert_allclose(spots.obsm["X_pca_spot"], expected.obsm["X_pca"], atol=1e-4)


def test_pca_takes_totals_and_niches(spots):
    stalign.tl.encode(spots, "pca")
    plain = spots.obsm["X_pca_spot"].copy()
    spots.obs["all"] = np.asarray(spots.X.sum(1)).ravel() * np.linspace(1, 3, 40)
    stalign.tl.encode(spots, "pca", total_counts="all")
    assert np.abs(spots.obsm["X_pca_spot"] - plain).max() > 0.1
    stalign.tl.encode(spots, "pca", level="niche")
    stalign.pp.niches(spots)
    niches = spots.copy()
    niches.X = sp.csr_matrix(spots.obsp["niche_connectivities"] @ spots.X)
    with pytest.warns(UserWarning, match="whole numbers"):
        stalign.tl.encode(niches, "pca")
    np.testing.assert_allclose(spots.obsm["X_pca_niche"], niches.obsm["X_pca_spot"], atol=1e-4)


def test_empty_spots_are_nan_for_gene_encoders(spots):
    spots.X = sp.csr_matrix(sp.diags((np.arange(40) != 4).astype(np.float32)) @ spots.X)
    with pytest.warns(UserWarning, match="1 of 40"):
        stalign.tl.encode(spots, "pca")
    assert np.isnan(spots.obsm["X_pca_spot"][4]).all()


@pytest.fixture
def scgpt_folder(tmp_path, spots):
    import json

    import torch

    from stalign.encoders.scgpt import ScGPT, ScGPTConfig

    genes = list(spots.var_names[:300])
    torch.manual_seed(0)
    model = ScGPT(ScGPTConfig(303, embsize=512, nhead=8, d_hid=16, nlayers=1, cls_id=301))
    folder = tmp_path / "scgpt"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "best_model.pt")
    (folder / "args.json").write_text('{"embsize": 512, "nheads": 8, "d_hid": 16, "nlayers": 1}')
    vocabulary = {gene: i for i, gene in enumerate(genes)} | {"<pad>": 300, "<cls>": 301, "<eoc>": 302}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return folder


@pytest.mark.filterwarnings("ignore:Expected at least:UserWarning")
def test_scgpt_matches_genes_and_seeds_by_name(spots, scgpt_folder):
    stalign.tl.encode(spots, "scgpt", weights=scgpt_folder)
    features = spots.obsm["X_scgpt_spot"]
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    record = spots.uns["X_scgpt_spot"]
    assert record["n_genes"] == 300
    assert len(record["params"]["weights_sha256"]) == 64
    turned = spots[::-1, np.random.default_rng(0).permutation(spots.n_vars)].copy()
    stalign.tl.encode(turned, "scgpt", weights=scgpt_folder)
    np.testing.assert_allclose(turned.obsm["X_scgpt_spot"][::-1], features, atol=1e-6)
    lower = spots.copy()
    lower.var_names = [name.capitalize() for name in lower.var_names]
    stalign.tl.encode(lower, "scgpt", weights=scgpt_folder)
    np.testing.assert_allclose(lower.obsm["X_scgpt_spot"], features, atol=1e-6)
    ids = spots.copy()
    symbols = {f"ENSG{i:011d}": symbol for i, symbol in enumerate(spots.var_names)}
    ids.var_names = [f"{name}.{i % 9}" for i, name in enumerate(symbols)]
    with pytest.raises(ValueError, match="Ensembl ids where symbols are expected"):
        stalign.tl.encode(ids, "scgpt", weights=scgpt_folder)
    stalign.tl.encode(ids, "scgpt", weights=scgpt_folder, aliases=symbols)
    np.testing.assert_allclose(ids.obsm["X_scgpt_spot"], features, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Expected at least:UserWarning")
def test_other_weights_are_not_taken_for_cached_ones(spots, scgpt_folder):
    import torch

    stalign.tl.encode(spots, "scgpt", weights=scgpt_folder)
    before = spots.obsm["X_scgpt_spot"].copy()
    state = torch.load(scgpt_folder / "best_model.pt", weights_only=True)
    state["encoder.embedding.weight"] *= torch.linspace(0, 1, 512)
    torch.save(state, scgpt_folder / "best_model.pt")
    stalign.tl.encode(spots, "scgpt", weights=scgpt_folder)
    assert np.abs(spots.obsm["X_scgpt_spot"] - before).max() > 1e-3


def test_features_serve_domains(spots):
    stalign.tl.encode(spots, "pca", key_added="X_features")
    stalign.tl.domains(spots, 3, use_rep="X_features")
    assert spots.obs["stalign_domain"].nunique() <= 3


def test_spatialdata_gives_the_same_features():
    pytest.importorskip("spatialdata")
    sdata = stalign.datasets.toy(8, spatialdata=True)
    plain = stalign.datasets.toy(8)
    for data in (sdata, plain):
        stalign.tl.encode(data, "colour", level="niche")
    table = sdata.tables["table"]
    order = plain.obs_names.get_indexer(table.obs_names)
    np.testing.assert_allclose(table.obsm["X_colour_niche"], plain.obsm["X_colour_niche"][order], atol=1e-6)


@pytest.mark.real
def test_real_section_and_the_published_vocabulary(shared_data, tmp_path):
    """Human Ensembl ids and mouse symbols find their rows in scGPT's vocabulary, and every spot gets its features."""
    import json

    import torch

    from stalign.encoders.scgpt import ScGPT, ScGPTConfig

    genes = list(json.loads((shared_data / "gene-tables/scgpt_default_gene_vocab.json").read_text()))
    torch.manual_seed(0)
    config = ScGPTConfig(len(genes) + 3, embsize=512, nhead=8, d_hid=8, nlayers=1, cls_id=len(genes) + 1)
    torch.save(ScGPT(config).state_dict(), tmp_path / "best_model.pt")
    (tmp_path / "args.json").write_text('{"embsize": 512, "nheads": 8, "d_hid": 8, "nlayers": 1}')
    (tmp_path / "vocab.json").write_text(json.dumps({gene: i for i, gene in enumerate(genes)}))
    mouse = stalign.io.read_h5ad(shared_data / "mob/rep1.h5ad")[:20].copy()
    human = stalign.io.read_h5ad(shared_data / "dlpfc/151673.h5ad")[:20].copy()
    for adata, least in ((mouse, 0.7), (human, 0.8)):
        gene_key = "gene_name" if "gene_name" in adata.var else None
        stalign.tl.encode(adata, "scgpt", weights=tmp_path, gene_key=gene_key)
        assert np.isfinite(adata.obsm["X_scgpt_spot"]).all()
        assert adata.uns["X_scgpt_spot"]["gene_coverage"] > least
    stalign.tl.encode(mouse, "colour", level="niche")
    assert np.isfinite(mouse.obsm["X_colour_niche"]).all()
