from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from stalign.models import STAlign, TimmEncoder, load, save
from stalign.models.pretrained import (
    LITE0,
    LITE0_NETWORK,
    UNI_NETWORK,
    lite0_file,
    lite0_state,
    load_backbone,
    start_from_pretrained,
)
from stalign.models.stages import Stages


def test_published_weights_fit_the_whole_network_exactly():
    network = timm.create_model(LITE0_NETWORK, pretrained=False)
    network.load_state_dict(lite0_state(), strict=True)
    assert network.bn1.eps == 1e-3


def test_another_file_is_refused(tmp_path):
    data = bytearray(lite0_file().read_bytes())
    data[-1] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(ValueError, match="sha256"):
        lite0_state(tmp_path / "x.pth")


def test_stages_are_the_means_of_the_network():
    network = timm.create_model(LITE0_NETWORK, pretrained=False).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = Stages(network, (3, 6)).eval()(x)
        y, expected = network.bn1(network.conv_stem(x)), []
        for number, block in enumerate(network.blocks, start=1):
            y = block(y)
            if number in (3, 6):
                expected.append(y.mean((2, 3)))
    torch.testing.assert_close(found, torch.cat(expected, dim=1))
    assert Stages(network, (3, 6)).num_features == 40 + 192
    for wrong in ((0, 1), (8,)):
        with pytest.raises(ValueError, match="from 1 to 7"):
            Stages(network, wrong)


def lite0(**more):
    return TimmEncoder(LITE0_NETWORK, features=80, stages=(4,), weights=LITE0, tokens="linear", **more)


def test_an_image_branch_starts_from_pretrained_weights(small_weights):
    config = small_weights().network.config
    spec = lite0(frozen=False, rate=0.1)
    network = STAlign(replace(config, niche_image=spec), 20)
    start_from_pretrained(network)
    state = lite0_state()
    for name, tensor in network.image_encoders["niche"].backbone.state_dict().items():
        torch.testing.assert_close(tensor, state[name])
    again = type(config).from_dict(network.config.to_dict())
    assert again == network.config


def test_a_frozen_backbone_is_not_stored_with_the_weights(small_weights, tmp_path):
    config = replace(small_weights().network.config, niche_image=lite0())
    network = STAlign(config, 20).eval()
    start_from_pretrained(network)
    folder = save(tmp_path, network, vocabulary=[f"g{i}" for i in range(20)], fp16=False)
    stored = load_file(folder / "weights.safetensors")
    assert not any(name.startswith("image_encoders.niche.backbone") for name in stored)
    assert any(name.startswith("image_encoders.spot.backbone") for name in stored)
    found = load(folder).network.state_dict()
    assert found.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)


def test_weights_of_the_users_file(small_weights, tmp_path):
    config = small_weights().network.config
    torch.manual_seed(1)
    other = timm.create_model("resnet10t", pretrained=False, num_classes=7)
    torch.save(other.state_dict(), tmp_path / "mine.pth")
    spec = TimmEncoder("resnet10t", features=512, tokens="linear", weights=str(tmp_path / "mine.pth"))
    network = STAlign(replace(config, spot_image=spec), 20)
    start_from_pretrained(network)
    torch.testing.assert_close(network.image_encoders["spot"].backbone.conv1[0].weight, other.conv1[0].weight)
    wrong = STAlign(replace(config, spot_image=replace(spec, weights=LITE0)), 20)
    with pytest.raises(ValueError, match="left over"):
        start_from_pretrained(wrong)
    gone = STAlign(replace(config, spot_image=replace(spec, weights=str(tmp_path / "no.pth"))), 20)
    with pytest.raises(FileNotFoundError, match=r"no\.pth"):
        start_from_pretrained(gone)


def test_a_pretrained_branch_is_trained_at_its_share_of_the_rate(small_weights):
    pytest.importorskip("lightning")
    from stalign.train.module import parameter_groups

    spec = lite0(frozen=False, rate=0.1)
    network = STAlign(replace(small_weights().network.config, niche_image=spec), 20)
    module = torch.nn.ModuleDict({"network": network})
    groups = parameter_groups(module, decay_gene_table=True, rates={"image_encoders.niche.backbone.": 0.1})
    slow = {id(p) for group in groups if group["share"] == 0.1 for p in group["params"]}
    assert slow == {id(p) for p in network.image_encoders["niche"].backbone.parameters()}


def test_encoder_is_offline_and_keeps_the_contract():
    import stalign

    with stalign.settings.override(offline=True):
        stalign.encoders.check("efficientnet-lite0")
        loaded = stalign.encoders.load("lite0")
    assert loaded.encode(np.zeros((1, 50, 50, 3), np.uint8)).shape == (1, 424)
    card = stalign.encoders.get("efficientnet-lite0")
    assert (card.licence, card.gated, card.mean, card.std) == ("Apache-2.0", False, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_vision_transformer_like_uni_inside_the_network(small_weights, tmp_path, frozen):
    torch.manual_seed(1)
    name, scale = "vit_tiny_patch16_224", 1e-5
    uni = timm.create_model(name, pretrained=False, num_classes=0, init_values=scale, dynamic_img_size=True)
    torch.save(uni.state_dict(), tmp_path / "pytorch_model.bin")
    spec = TimmEncoder(name, 192, init_values=scale, frozen=frozen, weights=str(tmp_path / "pytorch_model.bin"))
    config = replace(small_weights().network.config, niche_image=spec)
    network = STAlign(config, 20)
    start_from_pretrained(network)
    backbone = network.image_encoders["niche"].backbone
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(x), uni.eval()(x))
    assert all(p.requires_grad is not frozen for p in backbone.parameters())
    folder = save(tmp_path / "out", network, vocabulary=[f"g{i}" for i in range(20)], fp16=False)
    (tmp_path / "pytorch_model.bin").unlink()  # what was saved needs it no more
    found = load(folder).network.image_encoders["niche"].backbone
    torch.testing.assert_close(found.blocks[3].ls1.gamma, backbone.blocks[3].ls1.gamma)


def test_uni_without_its_file_names_the_three_steps():
    spec = TimmEncoder(UNI_NETWORK, 1024, init_values=1e-5, weights="none/pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"\(1\) sign in at .*MahmoodLab/UNI.*\(2\).*hf auth login.*\(3\)"):
        load_backbone(torch.nn.Identity(), spec)
