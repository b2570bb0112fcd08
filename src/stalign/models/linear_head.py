"""A linear layer from an image tower or from features to expression, trained by stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from stalign.models.turns import turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from stalign.models.hibio import HiBioST


@dataclass(frozen=True)
class Schedule:
    """How it is trained; the loss is the sum over spots of the mean squared error over genes.

    Parameters
    ----------
    epochs
        Times that every spot is read.
    lr
        Learning rate.
    batch_size
        Spots to a step.
    momentum, weight_decay
        Of SGD.
    seed
        Of the order of spots and of the turns of patches.
    """

    epochs: int
    lr: float
    batch_size: int
    momentum: float
    weight_decay: float
    seed: int


class LinearHead(nn.Module):
    """A linear layer that predicts the mean until it is trained.

    Parameters
    ----------
    tower
        The network whose image tower and projection are trained with it; None for a layer on features.
    width
        Features of a spot.
    mean
        Mean of each gene over the spots to train on, (g,).
    """

    def __init__(self, tower: HiBioST | None, width: int, mean: Tensor) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(width, len(mean))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(mean)

    def trained(self) -> list[nn.Parameter]:
        """List what is trained: the layer, and of the network what makes embeddings of patches."""
        parts: list[nn.Module] = [self.head]
        if self.tower is not None and self.tower.image_tower is not None:
            parts += [self.tower.image_tower, self.tower.image_projection]
        return [parameter for part in parts for parameter in part.parameters()]

    def forward(self, x: Tensor) -> Tensor:
        """Predict expression, (B, g).

        Parameters
        ----------
        x
            Patches (B, 3, h, h) uint8, or features (B, f).
        """
        return self.head(x if self.tower is None else self.tower.embed_image(x))


def train_head(
    model: LinearHead, read: Callable[[Tensor], Tensor], targets: Tensor, how: Schedule, device: torch.device
) -> LinearHead:
    """Train a layer, and the image tower below it. Patches are mirrored and turned; batch norms stay as they are.

    Parameters
    ----------
    model
        What is trained, in place.
    read
        Reads the inputs of some spots, by their numbers.
    targets
        Expression, (n, g) float32.
    how
        The schedule.
    device
        Where it is trained.

    Returns
    -------
    The model.
    """
    model.to(device).eval()
    weights = model.trained()
    for weight in weights:
        weight.requires_grad = True
    optimiser = torch.optim.SGD(weights, how.lr, momentum=how.momentum, weight_decay=how.weight_decay)
    chance = torch.Generator().manual_seed(how.seed)
    for _ in range(how.epochs):
        for rows in torch.randperm(len(targets), generator=chance).split(how.batch_size):
            x = read(rows)
            if x.ndim == 4:
                flips = torch.randint(2, (len(x),), generator=chance, dtype=torch.uint8).bool()
                x = turn(x, flips, torch.randint(4, (len(x),), generator=chance))
            with torch.enable_grad():
                error = model(x.to(device)) - targets[rows].to(device)
                loss = error.square().mean(dim=1).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model
