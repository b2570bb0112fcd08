"""Batch norm over the spots of all processes, also where torch's own, which needs a GPU, cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import nn

from stalign.train.ranks import several, summed

if TYPE_CHECKING:
    from torch import Tensor


class SharedBatchNorm(nn.BatchNorm2d):
    """`BatchNorm2d` whose mean and variance are taken over all processes; it has the same state."""

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised images.

        Parameters
        ----------
        image
            (b, c, h, w) float; b may differ between processes.
        """
        if not (self.training and several()):
            return super().forward(image)
        with torch.autocast(image.device.type, enabled=False):
            x = image.float()
            count = x.new_tensor([x.numel() / x.shape[1]])
            sums = summed(torch.cat([x.sum((0, 2, 3)), count]))  # (c + 1,)
            centred = x - (sums[:-1] / sums[-1])[:, None, None]
            variance = summed(centred.square().sum((0, 2, 3))) / sums[-1]  # (c,)
            self._remember(sums[:-1] / sums[-1], variance * sums[-1] / (sums[-1] - 1))
            slope = self.weight * torch.rsqrt(variance + self.eps)
            return (centred * slope[:, None, None] + self.bias[:, None, None]).to(image.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)


class SharedStatistics(LayerSync):
    """Lightning's way to make the batch norms of a network share their statistics, for devices other than GPUs."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Turn each `BatchNorm2d` into a `SharedBatchNorm`, in place.

        Parameters
        ----------
        model
            The network.
        """
        return _recast(model, nn.BatchNorm2d, SharedBatchNorm)

    def revert(self, model: nn.Module) -> nn.Module:
        """Turn them back.

        Parameters
        ----------
        model
            The network.
        """
        return _recast(model, SharedBatchNorm, nn.BatchNorm2d)


def _recast(model: nn.Module, old: type[nn.Module], new: type[nn.Module]) -> nn.Module:
    for module in model.modules():
        if type(module) is old:
            module.__class__ = new  # parameters, buffers and options are the same
    return model
