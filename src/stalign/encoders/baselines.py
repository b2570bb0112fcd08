"""Baselines without weights: what colour alone, and raw pixels alone, are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stalign.core.colour import colour_features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.encoders.card import Card


class Colour:
    """Mean, spread, skewness and a histogram of six bins, of each of the three channels."""

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Describe the colours of patches.

        Parameters
        ----------
        patches
            RGB patches, (B, s, s, 3) uint8.

        Returns
        -------
        (B, 27) float32: three means, spreads and skewnesses in 0..1 units, then six shares for each channel.
        """
        return colour_features(patches, bins=6, skewness=True)


class Pixels:
    """The pixels themselves."""

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Flatten patches.

        Parameters
        ----------
        patches
            RGB patches of 8 × 8 px, (B, 8, 8, 3) uint8.

        Returns
        -------
        (B, 192) float32 in 0..1.
        """
        return patches.reshape(len(patches), -1).astype(np.float32) / np.float32(255)


def load(card: Card, path: Path | None, **unused: object) -> Colour | Pixels:
    """Load a baseline.

    Parameters
    ----------
    card
        The encoder, `colour` or `pixels`.
    path
        Always None.
    unused
        Device, precision and seed, which make no difference.

    Returns
    -------
    The encoder.
    """
    del path, unused
    return Colour() if card.name == "colour" else Pixels()
