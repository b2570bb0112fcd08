from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import stalign
from stalign.data import open_sections as sections_of
from stalign.encoders.clip_pair import ClipPair
from stalign.train.clip import ClipConfig, fit_clip, main, read_config
from stalign.train.clip_data import read_pairs
from stalign.train.options import RunConfig

SMALL = {"embed_dim": 24, "depth": 1, "num_heads": 2}


@pytest.fixture
def sections(toy):
    order = np.argsort(toy.obsm["spatial"].sum(1))
    return [toy[order[:12]].copy(), toy[order[-12:]].copy()]


def _config(tmp_path, **changes) -> ClipConfig:
    given = {
        "weights": "random",
        "out": str(tmp_path / "tuned"),
        "epochs": 3,
        "batch_size": 12,
        "lr": 1e-3,
        "n_genes": 20,
    }
    return ClipConfig(**{**given, **changes})


def test_defaults_are_the_published_recipe():
    config = ClipConfig()
    assert (config.width, config.epochs, config.batch_size) == (32, 15, 1024)
    assert (config.lr, config.beta1, config.beta2, config.eps, config.weight_decay) == (5e-5, 0.9, 0.98, 1e-6, 0.2)
    pair = ClipPair(nn.Identity(), 512, 100)
    assert pair.image_head.weight.shape == (32, 512)
    assert pair.gene_head.weight.shape == (32, 100)
    assert float(pair.logit_scale.detach()) == pytest.approx(np.log(1 / 0.07))


def test_loss_is_the_symmetric_cross_entropy_written_out():
    torch.manual_seed(0)
    pair = ClipPair(nn.Identity(), 6, 5, width=4)
    x, g = torch.randn(7, 6), torch.randn(7, 5)
    with torch.no_grad():
        found = float(pair.loss(x, g))
        a = (pair.image_head(x)).numpy()
        b = (pair.gene_head(g)).numpy()
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (a, b))
    expected = 0.0
    for i in range(7):
        across = [np.exp(a[i] @ b[j] / 0.07) for j in range(7)]
        down = [np.exp(a[j] @ b[i] / 0.07) for j in range(7)]
        expected -= (np.log(across[i] / sum(across)) + np.log(down[i] / sum(down))) / 14
    assert found == pytest.approx(expected, rel=1e-4)


def test_trains_and_serves_tl_encode(sections, tmp_path):
    folder = fit_clip(sections, _config(tmp_path, epochs=4), changes=SMALL)
    record = json.loads((folder / "clip.json").read_text())
    assert len(record["genes"]) == 20
    assert record["n_spots"] == 24
    assert record["loss"][-1] < record["loss"][0]
    stalign.tl.encode(sections[0], "clip-tuned", weights=folder, cache=False)
    features = sections[0].obsm["X_clip-tuned_spot"]
    assert features.shape == (12, 32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    again = fit_clip(sections, _config(tmp_path, epochs=4, out=str(tmp_path / "again")), changes=SMALL)
    for name, value in load_file(folder / "model.safetensors").items():
        torch.testing.assert_close(value, load_file(again / "model.safetensors")[name])


def test_goes_on_exactly_where_it_was_cut_short(sections, tmp_path, monkeypatch):
    whole = fit_clip(sections, _config(tmp_path), changes=SMALL)
    config = _config(tmp_path, out=str(tmp_path / "cut"))
    with monkeypatch.context() as patch:
        loss = ClipPair.loss
        calls = iter(range(100))

        def cut(self, images, genes):
            if next(calls) == 4:
                raise KeyboardInterrupt
            return loss(self, images, genes)

        patch.setattr("stalign.train.clip.RunConfig", partial(RunConfig, checkpoint_every=1))
        patch.setattr(ClipPair, "loss", cut)
        with pytest.raises(KeyboardInterrupt):
            fit_clip(sections, config, changes=SMALL)
    with pytest.raises(FileExistsError, match="Expected no run in .* Found: checkpoints. Pass `resume=True`"):
        fit_clip(sections, config, changes=SMALL)
    with pytest.raises(ValueError, match="lr was 0.001 and is 0.1"):
        fit_clip(sections, replace(config, lr=0.1), changes=SMALL, resume=True)
    again = fit_clip(sections, config, changes=SMALL, resume=True)
    assert json.loads((again / "clip.json").read_text())["loss"] == pytest.approx(
        json.loads((whole / "clip.json").read_text())["loss"]
    )
    for name, value in load_file(whole / "model.safetensors").items():
        torch.testing.assert_close(value, load_file(again / "model.safetensors")[name], rtol=0, atol=0)


def test_any_network_of_timm_from_the_users_file(sections, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.pth")
    lines = [f'weights = "{tmp_path}/vit.pth"', f'out = "{tmp_path}/tuned"', "epochs = 1", "n_genes = 20"]
    (tmp_path / "config.toml").write_text("\n".join(['encoder = "timm:test_vit"', *lines]))
    folder = fit_clip(sections, read_config(tmp_path / "config.toml"))
    stalign.tl.encode(sections[0], "clip-tuned", weights=folder)
    assert sections[0].obsm["X_clip-tuned_spot"].shape == (12, 32)
    stalign.tl.encode(sections[0], "timm:test_vit", weights=tmp_path / "vit.pth", precision="bf16")
    assert sections[0].obsm["X_timm-test_vit_spot"].shape == (12, 64)


def test_frozen_tower_stays_as_it_was(sections, tmp_path):
    states = {}
    for train in (True, False):
        config = _config(tmp_path, out=str(tmp_path / str(train)), train_tower=train, epochs=1)
        start = fit_clip(sections, _config(tmp_path, out=str(tmp_path / "start"), epochs=0), changes=SMALL)
        states[train] = load_file(fit_clip(sections, config, changes=SMALL) / "model.safetensors")
    before = load_file(start / "model.safetensors")
    moved = {
        train: {name for name in before if not torch.equal(before[name], state[name])}
        for train, state in states.items()
    }
    assert any(name.startswith("tower.") for name in moved[True])
    assert moved[False]
    assert not any(name.startswith("tower.") for name in moved[False])


def test_pairs_hold_the_spots_own_patch_and_expression(sections):
    import scanpy as sc

    pairs = read_pairs(sections, genes="overlap", n_genes=15, level="spot", size=16)
    assert len(pairs) == 24
    assert len(pairs.genes) == 15
    both = sc.AnnData(np.concatenate([part.X.toarray() for part in sections]).astype(np.float32))
    both.var_names = sections[0].var_names
    sc.pp.normalize_total(both)
    sc.pp.log1p(both)
    np.testing.assert_allclose(pairs.expression, both[:, pairs.genes].X, atol=1e-5)
    sc.pp.highly_variable_genes(both, n_top_genes=15)
    assert set(pairs.genes) == set(both.var_names[both.var["highly_variable"]])
    patches = pairs.patches(np.array([17, 2]))
    stalign.pp.patches(sections[1])
    view = sections_of(sections[1])[0]
    expected = view.image.patches(sections[1].obsm["spot_window"][5:6].astype(float), 16)
    np.testing.assert_array_equal(patches[:1], expected)


def test_own_genes_come_by_rank(sections):
    import scanpy as sc

    pairs = read_pairs(sections, genes="hvg", n_genes=10, level="niche", size=16)
    assert pairs.genes[:2] == ["rank 1", "rank 2"]
    one = sc.AnnData(sections[1].X.astype(np.float32).copy())
    sc.experimental.pp.highly_variable_genes(one, n_top_genes=10)
    best = int(np.argmin(one.var["highly_variable_rank"].fillna(np.inf)))
    sc.pp.normalize_total(one)
    sc.pp.log1p(one)
    np.testing.assert_allclose(pairs.expression[12:, 0], one.X[:, best].toarray().ravel(), atol=1e-5)


def test_spots_without_image_or_counts_are_left_out(sections):
    sections[0].obsm["spatial"] = sections[0].obsm["spatial"].astype(float)
    sections[0].obsm["spatial"][3] = np.nan
    assert len(read_pairs(sections, genes="hvg", n_genes=5, level="spot", size=8)) == 23
    for one in sections:
        del one.uns["spatial"]["toy"]["images"]
        one.uns["spatial"]["toy"].pop("metadata", None)
    with pytest.raises(ValueError, match="image and counts"):
        read_pairs(sections, genes="hvg", n_genes=5, level="spot", size=8)


def test_too_few_genes(sections):
    with pytest.raises(ValueError, match="5000 genes in all sections"):
        read_pairs(sections, genes="overlap", n_genes=5000, level="spot", size=8)


def test_config_file_and_command_line(tmp_path, monkeypatch):
    (tmp_path / "clip.toml").write_text('encoder = "plip"\nepochs = 2\nsections = ["a.h5ad"]\n')
    config = read_config(tmp_path / "clip.toml", ["lr=1e-4"])
    assert (config.encoder, config.epochs, config.lr, config.sections) == ("plip", 2, 1e-4, ("a.h5ad",))
    (tmp_path / "wrong.toml").write_text("epoch = 2\n")
    with pytest.raises(ValueError, match="epochs"):
        read_config(tmp_path / "wrong.toml")
    with pytest.raises(FileNotFoundError):
        read_config(tmp_path / "none.toml")
    seen = []
    monkeypatch.setattr("stalign.io.read_h5ad", lambda path: seen.append(path) or path)
    monkeypatch.setattr(
        "stalign.train.clip.fit_clip", lambda data, config, resume: seen.append((config.epochs, resume))
    )
    main([str(tmp_path / "clip.toml"), "epochs=4"])
    assert seen == ["a.h5ad", (4, False)]
    main([str(tmp_path / "clip.toml"), "--resume"])
    assert seen[2:] == ["a.h5ad", (2, True)]


def test_folder_of_something_else(tmp_path, sections):
    with pytest.raises(FileNotFoundError, match="clip.json"):
        stalign.tl.encode(sections[0], "clip-tuned", weights=_empty(tmp_path))


def _empty(folder):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, folder / "model.safetensors")
    return folder
