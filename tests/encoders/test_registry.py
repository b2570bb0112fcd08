from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import stalign
from stalign.encoders import Card, check, get, load, register
from stalign.encoders.registry import _CARDS

ISSUE = (
    "uni", "uni2-h", "conch", "ctranspath", "gigapath", "hibou-b", "h-optimus-0", "h0-mini", "virchow2", "phikon",
    "phikon-v2", "midnight", "plip", "clip-vit-b32", "resnet50", "scgpt", "scfoundation", "pca", "colour", "pixels",
)  # fmt: skip
# tensors in the published files, as read from public manifests
TENSORS = {"uni2-h": 343, "h-optimus-0": 567, "virchow2": 455}


@pytest.fixture
def _registry():
    before = dict(_CARDS)
    yield
    _CARDS.clear()
    _CARDS.update(before)


def test_list():
    table = stalign.encoders.list()
    assert set(ISSUE) <= set(table.index)
    assert {"dim", "input_px", "licence", "commercial", "gated", "citation", "n_parameters"} <= set(table.columns)
    assert set(stalign.encoders.list("gene").index) >= {"scgpt", "scfoundation", "pca"}
    assert (stalign.encoders.list("image")["modality"] == "image").all()


@pytest.mark.parametrize("name", _CARDS)
def test_card_is_complete(name):
    card = get(name)
    assert card.licence
    assert card.citation
    assert card.n_parameters > 0 or not card.needs_weights
    assert card.url.startswith("https://") or not card.needs_weights
    assert card.access == "none" or card.files
    if card.modality == "image":
        assert len(card.mean) == len(card.std) == 3
        assert 0.2 < card.input_um / card.input_px <= 4 or not card.needs_weights


@pytest.mark.parametrize("name", [name for name, card in _CARDS.items() if card.architecture])
def test_network_has_the_published_size(name):
    from stalign.encoders.vision import build

    with torch.device("meta"):
        network = build(get(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == get(name).n_parameters
    if name in TENSORS:
        assert len(network.state_dict()) == TENSORS[name]


@pytest.mark.parametrize("name", [name for name, card in _CARDS.items() if not card.needs_weights])
def test_contract_without_weights(name):
    check(name)


@pytest.mark.parametrize("name", ["resnet18", "scgpt"])
def test_contract_with_random_weights(name):
    check(name, "random")


def test_random_weights_are_said_aloud_and_seeded(caplog):
    stalign._settings.logger.addHandler(caplog.handler)
    try:
        a = load("resnet18", "random")
    finally:
        stalign._settings.logger.removeHandler(caplog.handler)
    assert "random weights" in caplog.text
    state = torch.random.get_rng_state()
    b = load("resnet18", "random")
    assert torch.equal(torch.random.get_rng_state(), state)
    for key, value in a.network.state_dict().items():
        assert torch.equal(value, b.network.state_dict()[key])


def test_unknown_names():
    with pytest.raises(KeyError, match=r"'unii'.*stalign.encoders.list"):
        get("unii")
    with pytest.raises(KeyError, match="option of the encoder 'uni'"):
        get("uni", pooling="cls")
    with pytest.raises(ValueError, match="pool"):
        get("uni", pool="max")
    assert get("UNI") is not None
    assert get("hibou").name == "hibou-b"


def test_options_change_length_and_digest():
    assert get("midnight").dim == 3072
    assert get("midnight", pool="cls").dim == 1536
    assert get("midnight", pool="cls").digest() != get("midnight").digest()
    assert get("midnight").digest() == get("midnight").digest()
    assert get("pca", n_comps=7).dim == 7


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet.r160_in1k"])
def test_networks_of_timm(name, tmp_path):
    """Any network of timm by its name, its checkpoint with the classifier included."""
    timm = pytest.importorskip("timm")
    card = get(f"timm:{name}")
    known = timm.get_pretrained_cfg(name)
    assert (card.input_px, card.mean, card.std) == (known.input_size[-1], known.mean, known.std)
    assert card.repo == known.hf_hub_id
    torch.manual_seed(3)
    whole = timm.create_model(name, pretrained=False).eval()
    torch.save(whole.state_dict(), tmp_path / "mine.pth")
    encoder = load(card, tmp_path / "mine.pth")
    x = torch.randn(2, 3, card.input_px, card.input_px)
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
        torch.testing.assert_close(encoder.network(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, card.dim)
    check(card, tmp_path / "mine.pth")
    state = whole.state_dict()
    state["surplus.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"left over \(such as surplus.weight\)"):
        load(card, tmp_path / "other.pth")


def test_unknown_network_of_timm():
    pytest.importorskip("timm")
    with pytest.raises(KeyError, match="vit_smal_patch16_224"):
        get("timm:vit_smal_patch16_224")


@pytest.mark.usefixtures("_registry")
def test_register_and_check():
    class Mean:
        def encode(self, patches):
            return patches.mean((1, 2)).astype(np.float32)

    class Wrong(Mean):
        def encode(self, patches):
            return super().encode(patches)[:, :2]

    class Mixing(Mean):
        def encode(self, patches):
            return super().encode(patches) - super().encode(patches).mean(0)

    register(Card("mine", "image", lambda card, path, **rest: Mean(), width=3, input_px=8))
    check("mine")
    with pytest.raises(ValueError, match="not registered"):
        register(Card("mine", "image", lambda card, path, **rest: Mean(), width=3))
    for kind, match in ((Wrong, r"return \(4, 3\)"), (Mixing, "depend on the others")):
        register(Card("mine", "image", lambda card, path, kind=kind, **rest: kind(), width=3, input_px=8), replace=True)
        with pytest.raises(ValueError, match=match):
            check("mine")


def test_bad_cards():
    with pytest.raises(ValueError, match="owner/name"):
        Card("a", "image", "m:f", width=3, access="hub", repo="uni")
    with pytest.raises(ValueError, match="modality"):
        Card("a", "sound", "m:f", width=3)
    with pytest.raises(ValueError, match="above zero"):
        Card("a", "image", "m:f", width=0)


def test_devices_and_precisions():
    with pytest.raises(ValueError, match="precision"):
        load("resnet18", "random", precision="fp8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device"):
            load("resnet18", "random", device="cuda")


def test_prepare_resizes_as_torchvision_does():
    """Resize, centre crop, to 0..1, normalise: what the authors' transforms do to a uint8 image."""
    from stalign.encoders.vision import ImageEncoder

    transforms = pytest.importorskip("torchvision.transforms.v2")
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)
    for name in ("uni", "gigapath", "hibou-b"):
        card = get(name)
        encoder = ImageEncoder(card, torch.nn.Identity(), device=torch.device("cpu"), precision="fp32")
        steps = transforms.Compose(
            [
                transforms.Resize(
                    card.resize_px or card.input_px,
                    getattr(transforms.InterpolationMode, card.interpolation.upper()),
                    antialias=True,
                ),
                transforms.CenterCrop(card.input_px),
                transforms.ToDtype(torch.float32, scale=True),
                transforms.Normalize(card.mean, card.std),
            ]
        )
        expected = steps(torch.from_numpy(patches).permute(0, 3, 1, 2))
        assert encoder.prepare(patches).shape == (2, 3, card.input_px, card.input_px)
        torch.testing.assert_close(encoder.prepare(patches), expected, atol=1e-4, rtol=1e-4)


def test_import_leaves_torch_alone():
    import subprocess

    code = "import sys, stalign.encoders as e; e.list(); assert not {'torch', 'timm', 'anndata'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", ["uni", "midnight"])
def test_bf16_is_close_to_fp32(name):
    from stalign.encoders.vision import ImageEncoder, build
    from stalign.models.fold import halve

    torch.manual_seed(0)
    network = build(get(name), embed_dim=48, depth=3, num_heads=4)
    patches = np.random.default_rng(0).integers(0, 256, (3, 30, 30, 3), dtype=np.uint8)
    found = {}
    for precision in ("fp32", "bf16"):
        encoder = ImageEncoder(get(name), network, device=torch.device("cpu"), precision=precision)
        found[precision] = encoder.encode(patches)
        assert found[precision].dtype == np.float32
    halve(network)  # what `load` does: half the memory, the same numbers
    np.testing.assert_array_equal(encoder.encode(patches), found["bf16"])
    assert network.network.blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    a, b = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in found.values())
    assert not np.array_equal(a, b)
    assert (a * b).sum(1).min() > 0.999
