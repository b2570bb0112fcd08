from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from stalign.models.config import MINI, ST_ALIGN
from stalign.models.network import STAlign
from stalign.train import trainer
from stalign.train.batchnorm import SharedBatchNorm, SharedStatistics
from stalign.train.config import RunConfig
from stalign.train.placement import place


def kinds(network):
    return {type(m) for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}


def test_gpus_take_the_batch_norm_of_torch_and_others_ours():
    two = RunConfig(accelerator="cpu", devices=2)
    assert [type(p) for p in trainer._batch_norm(two, place(two))["plugins"]] == [SharedStatistics]
    for other in (
        RunConfig(accelerator="cpu", devices=2, sync_batchnorm=False),
        RunConfig(accelerator="cpu", devices=1),
    ):
        assert trainer._batch_norm(other, place(other)) == {}
    assert trainer._batch_norm(two, replace(place(two), on_cuda=True)) == {"sync_batchnorm": True}


@pytest.mark.parametrize("config", [MINI, ST_ALIGN], ids=lambda c: c.name)
def test_every_batch_norm_of_the_network_is_converted(config):
    """What Lightning calls on GPUs, and ours; neither renames a weight."""
    with torch.device("meta"):
        network = STAlign(config, n_genes=16)
    names = list(network.state_dict())
    assert kinds(network) == {nn.BatchNorm2d}
    assert kinds(SharedStatistics().apply(network)) == {SharedBatchNorm}
    assert kinds(SharedStatistics().revert(network)) == {nn.BatchNorm2d}
    with torch.device("meta"):
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    assert kinds(converted) == {nn.SyncBatchNorm} and list(converted.state_dict()) == names


def test_one_process_is_plain_batch_norm():
    torch.manual_seed(0)
    plain, shared = nn.BatchNorm2d(3), SharedBatchNorm(3)
    image = torch.randn(5, 3, 4, 4)
    assert torch.equal(plain(image), shared(image)) and torch.equal(plain.running_var, shared.running_var)


def test_statistics_and_gradients_of_a_group(monkeypatch):
    """Each of two processes in turn, with the sums that the other would add."""
    import torch.distributed as dist

    torch.manual_seed(0)
    whole = torch.randn(6, 3, 4, 4, dtype=torch.float32, requires_grad=True)
    plain, shared = nn.BatchNorm2d(3), SharedBatchNorm(3)
    expected = plain(whole)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    mean, n = whole.detach().mean((0, 2, 3)), whole.numel() / 3
    centred = whole.detach() - mean[:, None, None]
    sums = [torch.cat([mean * n, torch.tensor([n])]), centred.square().sum((0, 2, 3))]
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.copy_(sums.pop(0)))
    found = shared(whole[:2])
    torch.testing.assert_close(found, expected[:2])
    torch.testing.assert_close(shared.running_mean, plain.running_mean)
    torch.testing.assert_close(shared.running_var, plain.running_var)
    assert shared.num_batches_tracked == 1
