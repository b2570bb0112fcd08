"""Sums and joins over the processes of a run, through which gradients flow.

torch's own in `torch.distributed.nn` are deprecated since torch 2.14, and what takes their place is private.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor


def several() -> bool:
    """Say whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def joined(tensor: Tensor) -> Tensor:
    """Join the tensors of all processes in the order of ranks; all have to have one shape.

    Parameters
    ----------
    tensor
        (b, ...), of this process.

    Returns
    -------
    (world * b, ...). The gradient of each part goes back to the process that it came from.
    """
    together: Tensor = _Join.apply(tensor)
    return together


def summed(tensor: Tensor) -> Tensor:
    """Sum a tensor over all processes.

    Parameters
    ----------
    tensor
        Of this process.

    Returns
    -------
    The sum.
    """
    total: Tensor = _Sum.apply(tensor)
    return total


def widest(size: int, like: Tensor) -> int:
    """Find the largest of a number over all processes.

    Parameters
    ----------
    size
        That of this process.
    like
        A tensor on the device that the processes speak over.
    """
    width = torch.tensor(size, device=like.device)
    dist.all_reduce(width, dist.ReduceOp.MAX)
    return int(width)


def _total(gradient: Tensor) -> Tensor:
    """Sum a gradient, of which every process has a share."""
    total = gradient.contiguous().clone()
    dist.all_reduce(total)
    return total


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0]).chunk(dist.get_world_size())[dist.get_rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _total(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _total(gradients[0])
