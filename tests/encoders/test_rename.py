from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stalign.encoders import get
from stalign.encoders.rename import resize_positions
from stalign.encoders.vision import build, load_network

_spec = importlib.util.spec_from_file_location("published", Path(__file__).with_name("published.py"))
published = importlib.util.module_from_spec(_spec)
sys.modules["published"] = published
_spec.loader.exec_module(published)


def _small(name: str, seed: int = 0):
    card = get(name)
    if name in ("conch", "plip", "clip-vit-b32"):
        card = card.__class__(**{**card.__dict__, "width": 16})
    torch.manual_seed(seed)
    network = build(card, **published.SMALL[name]).eval()
    with torch.no_grad():
        for parameter in network.parameters():  # zeros and ones would hide a swap
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return card, network


def _images(name: str) -> torch.Tensor:
    return torch.randn(2, 3, *[published.SMALL[name].get("img_size", 64)] * 2)


@pytest.mark.parametrize("name", published.SMALL)
def test_published_checkpoint_gives_the_same_features(name, tmp_path):
    card, network = _small(name)
    torch.save(published.publish(name, network.network.state_dict()), tmp_path / "pytorch_model.bin")
    loaded = load_network(card, tmp_path / "pytorch_model.bin", **published.SMALL[name]).eval()
    x = _images(name)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=1e-5, atol=1e-5)
        assert loaded(x).shape == (2, _width(card, name))


def _width(card, name: str) -> int:
    if card.options.get("pool"):
        return published.SMALL[name]["embed_dim"] * (2 if card.options["pool"] == "cls+mean" else 1)
    return {"ctranspath": 32, "resnet18": 512, "resnet50": 2048}.get(name, card.width)


def test_names_of_dinov2s_authors(tmp_path):
    card, network = _small("hibou-b")
    torch.save(published.as_dinov2_of_its_authors(network.network.state_dict()), tmp_path / "hibou.pth")
    loaded = load_network(card, tmp_path / "hibou.pth", **published.SMALL["hibou-b"]).eval()
    x = _images("hibou-b")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=1e-5, atol=1e-5)


def test_class_token_carries_its_position_where_timm_has_none(tmp_path):
    card, network = _small("hibou-b")
    state = published.publish("hibou-b", network.network.state_dict())
    shift = torch.randn(48)
    state["embeddings.position_embeddings"][:, 0] += shift
    state["embeddings.cls_token"] = state["embeddings.cls_token"] - shift
    torch.save(state, tmp_path / "w.pth")
    loaded = load_network(card, tmp_path / "w.pth", **published.SMALL["hibou-b"]).eval()
    x = _images("hibou-b")
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["hibou-b", "phikon", "plip", "conch", "ctranspath", "uni", "resnet18"])
def test_coverage_is_checked_in_both_directions(name, tmp_path):
    card, network = _small(name)
    state = published.publish(name, network.network.state_dict())
    flat = state.get("model", state)
    block = next(
        key for key in flat if "blocks.1." in key or "layer.1." in key or "layers.1." in key or "layer2." in key
    )
    missing = {key: value for key, value in flat.items() if key != block}
    torch.save(missing, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"exactly|no tensor"):
        load_network(card, tmp_path / "w.pth", **published.SMALL[name])
    torch.save({**flat, f"{block}.more": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="1 left over"):
        load_network(card, tmp_path / "w.pth", **published.SMALL[name])
    torch.save({**flat, block: torch.zeros(1, 7)}, tmp_path / "w.pth")
    with pytest.raises((ValueError, RuntimeError)):
        load_network(card, tmp_path / "w.pth", **published.SMALL[name])


def test_weights_of_another_encoder_are_refused(tmp_path):
    _, network = _small("phikon")
    torch.save(published.publish("phikon", network.network.state_dict()), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="'uni'"):
        load_network(get("uni"), tmp_path / "w.pth", **published.SMALL["uni"])


def test_positions_are_resampled_only_when_the_grid_differs():
    pos = torch.randn(1, 16, 5)
    assert resize_positions(pos, (4, 4), antialias=True) is pos
    smaller = resize_positions(pos, (2, 2), antialias=False)
    image = pos[0].T.reshape(1, 5, 4, 4)
    expected = F.interpolate(image, size=(2, 2), mode="bicubic", align_corners=False)[0].reshape(5, 4).T
    torch.testing.assert_close(smaller[0], expected)
