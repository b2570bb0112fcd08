"""A map of features whose products are a Gaussian kernel, so that ridge regression on it is kernel ridge regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

GAMMA = 0.5  # chosen on her2st C2 to C5, each predicted from the others, and on regions of mob; .25 to 1 are alike
LANDMARKS = 2000  # spots that span the map; exact up to that many reference spots
_SCALE = 10.0  # length of a mapped spot: penalties are then of the size of those of standardised features
_TINY = 1e-9  # share of the largest eigenvalue under which a direction is left out
_ROWS = 4096


@dataclass(frozen=True)
class GaussianMap:
    """Maps standardised features, so that the product of two mapped spots is 100 exp(-gamma d²).

    d² is the mean squared difference of two spots' features, taken in each block of features and then over blocks, so
    that a block of few counts as much as one of many.

    Parameters
    ----------
    scale
        Factor of each feature, (f,).
    landmarks
        Scaled features of the spots that span the map, (m, f).
    whiten
        From kernel values with these to mapped features, (m, k).
    gamma
        How fast likeness falls off.
    """

    scale: np.ndarray
    landmarks: np.ndarray
    whiten: np.ndarray
    gamma: float

    @classmethod
    def fit(
        cls, features: np.ndarray, blocks: Sequence[int] | None = None, *, gamma: float = GAMMA, seed: int = 0
    ) -> GaussianMap:
        """Choose landmarks among the spots of the reference.

        Parameters
        ----------
        features
            Standardised features, (n, f).
        blocks
            How many features each block has, in their order; None for one block.
        gamma
            How fast likeness falls off.
        seed
            Of the landmarks, where there are more spots.

        Returns
        -------
        The map; products of these spots are exact where n is at most 2000, and a Nyström approximation beyond.
        """
        widths = np.asarray([features.shape[1]] if blocks is None else blocks)
        scale = np.repeat(1 / np.sqrt(len(widths) * np.maximum(widths, 1)), widths)
        features = np.asarray(features, dtype=np.float64) * scale
        if len(features) > LANDMARKS:
            chosen = np.random.default_rng(seed).choice(len(features), LANDMARKS, replace=False)
            features = features[np.sort(chosen)]
        values, vectors = np.linalg.eigh(_kernel(features, features, gamma))
        kept = values > _TINY * values[-1]
        return cls(scale, features, _SCALE * vectors[:, kept] / np.sqrt(values[kept]), gamma)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Map spots.

        Parameters
        ----------
        features
            Standardised features, (n, f).

        Returns
        -------
        (n, k) float64, k at most the number of landmarks.
        """
        features = np.asarray(features, dtype=np.float64) * self.scale
        out = np.empty((len(features), self.whiten.shape[1]))
        for start in range(0, len(features), _ROWS):
            part = features[start : start + _ROWS]
            out[start : start + _ROWS] = _kernel(part, self.landmarks, self.gamma) @ self.whiten
        return out


def _kernel(left: np.ndarray, right: np.ndarray, gamma: float) -> np.ndarray:
    squared = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
    return np.asarray(np.exp(-gamma * np.maximum(squared, 0.0)))
