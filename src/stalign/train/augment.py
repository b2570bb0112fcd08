"""Augmentation: flips and quarter turns shared by spot and niche, stain jitter, thinning of counts."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from stalign.models.turns import turn

if TYPE_CHECKING:
    from stalign.models.batch import Batch
    from stalign.train.options import AugmentConfig

# Rows: optical density of haematoxylin, eosin and the rest in red, green and blue (Ruifrok and Johnston 2001, table 1).
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


@dataclass(frozen=True)
class Draw:
    """What happens to each spot of a batch.

    Parameters
    ----------
    flip
        Whether the patches are mirrored, (b,) bool; None where flips are off.
    turns
        Quarter turns, (b,) in 0..3; None where turns are off.
    stain
        Map of optical densities, (b, 3, 3), and their offset, (b, 3); None where stain jitter is off.
    """

    flip: torch.Tensor | None
    turns: torch.Tensor | None
    stain: tuple[torch.Tensor, torch.Tensor] | None

    def to(self, device: torch.device) -> Draw:
        """Return a copy on a device."""
        return Draw(
            None if self.flip is None else self.flip.to(device),
            None if self.turns is None else self.turns.to(device),
            None if self.stain is None else (self.stain[0].to(device), self.stain[1].to(device)),
        )

    def part(self, first: int, size: int) -> Draw:
        """Return the draws of consecutive spots.

        Parameters
        ----------
        first
            The first spot.
        size
            How many.
        """
        at = slice(first, first + size)
        return Draw(
            None if self.flip is None else self.flip[at],
            None if self.turns is None else self.turns[at],
            None if self.stain is None else (self.stain[0][at], self.stain[1][at]),
        )


def draw(config: AugmentConfig, n: int, rng: np.random.Generator) -> Draw:
    """Draw the augmentation of a batch's images.

    Parameters
    ----------
    config
        What is switched on.
    n
        Spots in the batch of all processes.
    rng
        Source of randomness.

    Returns
    -------
    The draws.
    """
    # Everything is drawn whatever is switched on, so switching one part off leaves the others as they were.
    flip = rng.integers(0, 2, n).astype(bool)
    turns = rng.integers(0, 4, n)
    gain = 1 + config.stain * rng.uniform(-1, 1, (n, 3))
    shift = 0.2 * config.stain * rng.uniform(-1, 1, (n, 3))
    stains = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
    # A pixel's densities are d = c S with concentrations c; c -> c * gain + shift.
    matrix = np.linalg.inv(stains) @ (gain[:, :, None] * stains)
    return Draw(
        torch.from_numpy(flip) if config.flips else None,
        torch.from_numpy(turns) if config.turns else None,
        (torch.from_numpy(matrix).float(), torch.from_numpy(shift @ stains).float()) if config.stain > 0 else None,
    )


def augment(batch: Batch, draws: Draw) -> Batch:
    """Augment the images of a batch; spot and niche of a spot get the same treatment.

    Parameters
    ----------
    batch
        The batch; images (b, 3, h, w) uint8.
    draws
        What happens to each spot.

    Returns
    -------
    A batch with other images.
    """
    changes = {}
    for f in fields(batch):
        images = getattr(batch, f.name)
        if f.name.endswith("_image") and images is not None and images.dtype == torch.uint8:
            changes[f.name] = jitter(turn(images, draws.flip, draws.turns), draws.stain)
    return replace(batch, **changes)


def jitter(images: torch.Tensor, stain: tuple[torch.Tensor, torch.Tensor] | None) -> torch.Tensor:
    """Change the strength of the stains.

    Parameters
    ----------
    images
        Patches, (b, 3, h, w) uint8.
    stain
        Map of optical densities, (b, 3, 3), and their offset, (b, 3); None leaves the patches alone.

    Returns
    -------
    Patches, (b, 3, h, w) uint8.
    """
    if stain is None:
        return images
    matrix, shift = stain
    table = -torch.log((torch.arange(256, device=images.device) + 1) / 256)  # density of each grey value
    density = table[images.long()].flatten(2)  # (b, 3, h, w) -> (b, 3, hw)
    with torch.autocast(images.device.type, enabled=False):  # bf16 is slower here and off by up to two grey levels
        changed = torch.baddbmm(shift[:, :, None], matrix.transpose(1, 2), density)
    pixels = 256 * torch.exp(-changed) - 1
    return pixels.round_().clamp_(0, 255).to(torch.uint8).view_as(images)


def thinning(config: AugmentConfig, rng: np.random.Generator) -> float | None:
    """Draw the share of counts that a section of a batch keeps.

    Parameters
    ----------
    config
        The range.
    rng
        Source of randomness.

    Returns
    -------
    The share, or None to keep all.
    """
    low, high = config.thinning
    return None if low >= 1 else float(rng.uniform(low, high))
