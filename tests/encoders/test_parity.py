"""Features equal those of the implementations that the authors name, on random weights; skipped where absent."""

from __future__ import annotations

import os
import sys
import types
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from stalign.encoders import get
from stalign.encoders.vision import load_network


def _hub(model, folder: Path, seed: int = 0) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.eval().save_pretrained(folder)


def _worst(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("grid", [4, 8])
@pytest.mark.parametrize("swiglu", [True, False])
@pytest.mark.parametrize("registers", [True, False])
def test_dinov2(registers, swiglu, grid, tmp_path):
    transformers = pytest.importorskip("transformers")
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=14 * grid,
        patch_size=14,
        use_swiglu_ffn=swiglu,
        layerscale_value=0.5,
    )
    model = getattr(transformers, f"{kind}Model")(config)
    _hub(model, tmp_path)
    changes = {"embed_dim": 48, "depth": 2, "num_heads": 4, "img_size": 56}
    if registers:
        changes |= {"swiglu": swiglu, "mlp_ratio": 5.33334 if swiglu else 4.0}
    card = get("hibou-b") if registers else get("midnight" if swiglu else "phikon-v2", pool="cls")
    if not registers and not swiglu:
        changes["patch_size"] = 14
    ours = load_network(card, tmp_path, **changes).eval()
    x = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        assert _worst(ours(x), model(pixel_values=x).pooler_output) < 1e-5


def test_vit(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32, patch_size=16
    )
    model = transformers.ViTModel(config, add_pooling_layer=False)
    _hub(model, tmp_path)
    ours = load_network(get("phikon"), tmp_path, embed_dim=32, depth=2, num_heads=4, img_size=32).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert _worst(ours(x), model(pixel_values=x).last_hidden_state[:, 0]) < 1e-5


def test_clip(tmp_path):
    transformers = pytest.importorskip("transformers")
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 32}
    config = transformers.CLIPConfig(
        text_config=text, vision_config={**vision, "image_size": 64, "patch_size": 32}, projection_dim=512
    )
    model = transformers.CLIPModel(config)
    _hub(model, tmp_path)
    ours = load_network(get("plip"), tmp_path, embed_dim=64, depth=2, num_heads=4, img_size=64).eval()
    x = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        pooled = model.vision_model(pixel_values=x).pooler_output
        assert _worst(ours(x), model.visual_projection(pooled)) < 1e-5


def test_ctranspath(tmp_path):
    """Against the fork of timm 0.5 that its authors use, from the package timm_ctp."""
    timm_ctp = pytest.importorskip("timm_ctp")
    from stalign.encoders.towers import ConvStem

    class Stem(ConvStem):
        def forward(self, x):
            return super().forward(x).flatten(1, 2)  # the fork takes (B, n, width)

    torch.manual_seed(0)
    model = timm_ctp.create_model("swin_tiny_patch4_window7_224", embed_layer=Stem, pretrained=False)
    model.head = torch.nn.Identity()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.eval()
    torch.save({"model": model.state_dict()}, tmp_path / "ctranspath.pth")
    ours = load_network(get("ctranspath"), tmp_path / "ctranspath.pth").eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert _worst(ours(x), model(x)) < 1e-5


def test_attention_pool_of_conch():
    """Against open_clip, which CONCH is built on."""
    open_clip = pytest.importorskip("open_clip.transformer")
    from stalign.encoders.towers import AttentionPool

    torch.manual_seed(0)
    theirs = open_clip.AttentionalPooler(16, 32, n_head=8, n_queries=1).eval()
    ours = AttentionPool(16, 32).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, 9, 32)
    with torch.no_grad():
        assert _worst(ours(x), theirs(x)) < 1e-5


@pytest.fixture
def scgpt_reference():
    """The model of a scGPT checkout or installed copy, loaded without the rest of that package."""
    path = os.environ.get("STALIGN_SCGPT_REFERENCE")
    if not path:
        pytest.skip("STALIGN_SCGPT_REFERENCE does not name a checkout of scGPT")
    folder = Path(path) / "scgpt" if (Path(path) / "scgpt").is_dir() else Path(path)
    if not (folder / "model" / "model.py").is_file():
        pytest.skip(f"no scGPT in {path}")
    for name, where in (("scgpt_reference", folder), ("scgpt_reference.model", folder / "model")):
        module = types.ModuleType(name)
        module.__path__ = [str(where)]
        sys.modules[name] = module
    try:
        yield import_module("scgpt_reference.model.model"), folder
    finally:
        for name in [name for name in sys.modules if name.startswith("scgpt_reference")]:
            del sys.modules[name]


@pytest.mark.filterwarnings("ignore")
def test_scgpt_network(scgpt_reference, tmp_path):
    from stalign.encoders.scgpt_files import load

    reference, _ = scgpt_reference
    vocab = {f"G{i}": i for i in range(200)} | {"<pad>": 200, "<cls>": 201, "<eoc>": 202}
    torch.manual_seed(0)
    kwargs = {"dropout": 0.2, "do_mvc": True, "use_fast_transformer": False, "pad_value": -2}
    if "vocab" in reference.TransformerModel.__init__.__code__.co_varnames:
        kwargs |= {"vocab": vocab, "pad_token": "<pad>"}
    model = reference.TransformerModel(203, 32, 4, 48, 2, **kwargs).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    flash = {name.replace("self_attn.in_proj_", "self_attn.Wqkv."): v for name, v in model.state_dict().items()}
    torch.save(flash, tmp_path / "best_model.pt")
    (tmp_path / "args.json").write_text('{"embsize": 32, "nheads": 4, "d_hid": 48, "nlayers": 2, "pad_value": -2}')
    import json

    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    ours = load(get("scgpt"), tmp_path)
    rng = np.random.default_rng(0)
    lengths = [3, 17, 17, 40, 90]
    ids = torch.full((len(lengths), max(lengths)), 200)
    values = torch.full((len(lengths), max(lengths)), -2.0)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.from_numpy(np.r_[201, rng.permutation(200)[: n - 1]])
        values[row, 1:n] = torch.from_numpy(rng.integers(1, 51, n - 1)).float()
    with torch.no_grad():
        theirs = model._encode(ids, values, ids == 200)[:, 0]
        packed = [torch.cat([part[row, :n] for row, n in enumerate(lengths)]) for part in (ids, values)]
        found = ours.model(*packed, lengths)
    assert _worst(found, theirs) < 1e-5


def test_scgpt_binning(scgpt_reference, monkeypatch):
    """The reference draws one number a value from numpy's global generator; given the same numbers, the bins agree."""
    import ast

    from stalign.encoders.scgpt import bin_values

    _, folder = scgpt_reference
    source = ast.parse((folder / "preprocess.py").read_text())
    wanted = [
        node for node in source.body if isinstance(node, ast.FunctionDef) and node.name in ("_digitize", "binning")
    ]
    from typing import Optional, Union

    space = {"np": np, "torch": torch, "Optional": Optional, "Union": Union}
    exec(compile(ast.Module(wanted, []), "reference", "exec"), space)
    rng = np.random.default_rng(0)
    for n in (1, 5, 300, 2000):
        counts = rng.negative_binomial(1, 0.3, n) + 1.0
        draws = rng.random(n)
        monkeypatch.setattr(np.random, "rand", lambda size, draws=draws: draws[:size])
        theirs = space["binning"](torch.from_numpy(counts), n_bins=51)

        class Fixed:
            def random(self, size, draws=draws):
                return draws[:size]

        np.testing.assert_array_equal(bin_values(counts, 51, Fixed()), np.asarray(theirs))
