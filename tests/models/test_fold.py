from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from stalign.models import ConvEncoder, STAlign, TimmEncoder
from stalign.models.fold import folded
from stalign.models.pretrained import LITE0, LITE0_NETWORK, start_from_pretrained


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("stem", ["cifar", "strided", "imagenet"])
def test_a_folded_network_computes_the_same(mini, make_batch, block, stem):
    torch.manual_seed(0)
    encoder = ConvEncoder(channels=(4, 4, 8, 8), block=block, stem=stem)
    network = STAlign(replace(mini, spot_image=encoder, niche_image=encoder), 30)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    batch = make_batch()
    with torch.inference_mode():
        ours, expected = fast(batch), network.eval()(batch)
    for name in ("spot_image", "niche_image", "spot_fused", "niche_fused", "niche_gene"):
        value = getattr(expected, name)
        torch.testing.assert_close(getattr(ours, name), value, atol=1e-5 * float(value.abs().max()), rtol=1e-4)
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    weights, same = dict(network.named_parameters()), dict(fast.named_parameters())
    assert same["gene_table.weight"] is weights["gene_table.weight"]  # nothing large is copied


def test_a_folded_efficientnet_computes_the_same(mini, make_batch):
    """Of a pretrained backbone cut after a stage, whose patches go through it a few at a time."""
    spec = TimmEncoder(LITE0_NETWORK, features=40, stages=(3,), weights=LITE0, tokens="linear")
    network = STAlign(replace(mini, niche_image=spec), 30).eval()
    start_from_pretrained(network)
    fast = folded(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.image_encoders["niche"].backbone.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in network.image_encoders["niche"].backbone.modules())
    batch = make_batch()
    expected = network(batch).niche_image.detach()  # with gradients: all patches at one time
    with torch.inference_mode():
        found = fast(batch).niche_image
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-3)


def test_other_encoders_stay_as_they_are(paper, make_paper_batch):
    torch.manual_seed(0)
    network = STAlign(replace(paper, spot_image=paper.niche_image), 30).eval()
    batch = make_paper_batch()
    batch.spot_image = batch.niche_image
    with torch.inference_mode():
        torch.testing.assert_close(folded(network)(batch).niche_fused, network(batch).niche_fused)


@pytest.mark.parametrize("timm", [False, True])
def test_image_backbones_in_bfloat16_are_close_and_the_network_stays_as_it_was(mini, make_batch, timm):
    torch.manual_seed(0)
    spec = TimmEncoder("vit_tiny_patch16_224", features=192, tokens="linear", init_values=1.0)
    network = STAlign(replace(mini, niche_image=spec) if timm else mini, 30).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = make_batch()
    if timm:
        batch.niche_image = batch.niche_image.repeat(1, 1, 2, 2)[:, :, :32, :32]
    with torch.inference_mode():
        expected, found = (folded(network, precision)(batch) for precision in ("fp32", "bf16"))
    assert found.niche_image.dtype == torch.float32
    assert torch.cosine_similarity(found.niche_image.flatten(1), expected.niche_image.flatten(1)).min() > 0.999
    assert not torch.equal(found.niche_image, expected.niche_image)
    torch.testing.assert_close(found.niche_gene, expected.niche_gene, atol=0, rtol=0)
    after = network.state_dict()
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
