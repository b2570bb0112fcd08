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


def _reference(monkeypatch, variable: str, inside: str, name: str) -> Path:
    """A folder of a checkout that a variable names, importable as a package of its own without its own `__init__`."""
    path = os.environ.get(variable)
    if not path:
        pytest.skip(f"{variable} does not name a checkout")
    folder = next((part for part in (Path(path) / inside, Path(path)) if part.is_dir()), Path(path))
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, name, package)
    return folder


def _functions(file: Path, names: set[str], **space) -> dict:
    """Functions of a file without the rest of it."""
    import ast

    wanted = [
        node for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef) and node.name in names
    ]
    space |= {"np": np, "torch": torch}
    exec(compile(ast.Module(wanted, []), str(file), "exec"), space)
    return space


def _shake(model: torch.nn.Module, scale: float = 0.05) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


@pytest.mark.parametrize("project", [False, True])
@pytest.mark.parametrize("trained_px", [448, 64])
def test_conch(project, trained_px, monkeypatch, tmp_path):
    """From uint8 patches to features, through the image tower and the transform of a checkout of CONCH."""
    _reference(monkeypatch, "STALIGN_CONCH_REFERENCE", "conch/open_clip_custom", "conch_reference")
    from PIL import Image

    from stalign.encoders.vision import ImageEncoder

    coca = import_module("conch_reference.coca_model")
    sizes = {"layers": 2, "image_size": trained_px, "patch_size": 16, "n_queries_contrast": 1, "n_queries_caption": 4}
    pools = {"attentional_pool_contrast": True, "attentional_pool_caption": True, "output_tokens": True}
    tower = _shake(coca._build_vision_tower(512, {**sizes, **pools}, 768), 0.02)
    state = {f"visual.{name}": value.clone() for name, value in tower.state_dict().items()}
    torch.save(
        {**state, "logit_scale": torch.zeros(()), "text.cls_emb": torch.zeros(3)}, tmp_path / "pytorch_model.bin"
    )
    if trained_px != 448:  # its authors resample positions on loading
        larger = coca._build_vision_tower(512, {**sizes, **pools, "image_size": 448}, 768).eval()
        holder = types.SimpleNamespace(visual=larger)
        coca.resize_pos_embed(state, holder)
        larger.load_state_dict({name.removeprefix("visual."): value for name, value in state.items()})
        tower = larger
    card = get("conch", project=project)
    network = load_network(card, tmp_path / "pytorch_model.bin", depth=2)
    ours = ImageEncoder(card, network, device=torch.device("cpu"), precision="fp32")
    patches = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    transform = import_module("conch_reference.transform").image_transform
    constants = import_module("conch_reference.constants")
    prepare = transform(448, mean=constants.OPENAI_DATASET_MEAN, std=constants.OPENAI_DATASET_STD)
    x = torch.stack([prepare(Image.fromarray(patch)) for patch in patches])
    with torch.no_grad():
        theirs = tower(x)[0] if project else tower.forward_no_head(x, normalize=False)
        assert _worst(ours.network(x), theirs) < 1e-5
        assert float((ours.prepare(patches) - x).abs().max()) < 1.01 / 255 / min(card.std)  # PIL rounds in another way


def test_scfoundation(monkeypatch, tmp_path):
    """From counts to cell embeddings, by the steps of its authors' script."""
    import scipy.sparse as sp

    from stalign.encoders.scfoundation import GENE_TABLE, GENES, load

    folder = _reference(monkeypatch, "STALIGN_SCFOUNDATION_REFERENCE", "model/pretrainmodels", "scfoundation_reference")
    mae = import_module("scfoundation_reference.mae_autobin")
    transformer = import_module("scfoundation_reference.transformer")
    gather = _functions(folder.parent / "load.py", {"gatherData"})["gatherData"]
    special = {"pad_token_id": 103, "mask_token_id": 102}
    model = mae.MaeAutobin(
        num_tokens=104,
        max_seq_len=GENES + 2,
        embed_dim=128,
        decoder_embed_dim=64,
        bin_alpha=1.0,
        bin_num=100,
        **special,
    )
    model.encoder = transformer.pytorchTransformerModule(GENES + 2, 128, 2, 2)
    _shake(model)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"cell": {"config": {}, "state_dict": state}}, tmp_path / "models.ckpt")
    rows = "".join(f"G{i}\t{i}\n" for i in range(GENES))
    (tmp_path / GENE_TABLE).write_text(f"gene_name\tindex\n{rows}")
    counts = np.random.default_rng(0).poisson(0.02, (3, GENES)).astype(np.float32)
    counts[1, 500:] = 0
    for pool in ("all", "max"):
        ours = load(get("scfoundation", pool=pool), tmp_path)
        assert len(ours.vocabulary) == GENES
        found = ours.encode(sp.csr_matrix(counts), ["a", "b", "c"])
        for row, embedding in zip(counts, found, strict=True):
            total = row.sum()
            x = torch.tensor([[*np.log1p(row / total * 1e4), 4.0, np.log10(total)]])
            places = torch.arange(GENES + 2)[None]
            with torch.no_grad():
                values, padding = gather(x, x > 0, 103)
                tokens = model.token_emb(values.unsqueeze(2).float(), output_weight=0)
                tokens = model.encoder(tokens + model.pos_emb(gather(places, x > 0, 103)[0]), padding)
            parts = [tokens[:, -1], tokens[:, -2], tokens[:, :-2].max(1).values, tokens[:, :-2].mean(1)]
            theirs = torch.cat(parts, 1)[0] if pool == "all" else tokens.max(1).values[0]
            assert _worst(torch.from_numpy(embedding), theirs) < 1e-5


@pytest.fixture
def scgpt_reference(monkeypatch):
    """The model of a scGPT checkout or installed copy, loaded without the rest of that package."""
    folder = _reference(monkeypatch, "STALIGN_SCGPT_REFERENCE", "scgpt", "scgpt_reference")
    _reference(monkeypatch, "STALIGN_SCGPT_REFERENCE", "scgpt/model", "scgpt_reference.model")
    yield import_module("scgpt_reference.model.model"), folder
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
    from typing import Optional, Union

    from stalign.encoders.scgpt import bin_values

    _, folder = scgpt_reference
    space = _functions(folder / "preprocess.py", {"_digitize", "binning"}, Optional=Optional, Union=Union)
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
