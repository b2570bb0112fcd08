"""Views of features: what each of several regressions sees of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalign.core.kernel import GaussianMap

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Views:
    """Columns of standardised features, each as they are or through a Gaussian map.

    Parameters
    ----------
    parts
        Columns and map of each view; None where it has no map.
    """

    parts: tuple[tuple[slice, GaussianMap | None], ...]

    @classmethod
    def fit(
        cls, features: np.ndarray, sources: Sequence[Sequence[int]], *, linear: bool, kernel: bool, seed: int = 0
    ) -> Views:
        """Make the views of the reference.

        Parameters
        ----------
        features
            Standardised features, (n, f).
        sources
            How many features each block of each source has, in their order.
        linear, kernel
            Whether each source is a view as it is, and through a Gaussian map.
        seed
            Of the map's landmarks.

        Returns
        -------
        The views.
        """
        parts: list[tuple[slice, GaussianMap | None]] = []
        start = 0
        for blocks in sources:
            columns = slice(start, start + sum(blocks))
            parts += [(columns, None)] if linear else []
            parts += [(columns, GaussianMap.fit(features[:, columns], blocks, seed=seed))] if kernel else []
            start = columns.stop
        return cls(tuple(parts))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Put the views of some spots side by side, (n, sum of widths)."""
        return np.concatenate(self._each(features), axis=1)

    def widths(self, features: np.ndarray) -> list[int]:
        """Tell how many columns each view has, from any spot's features."""
        return [view.shape[1] for view in self._each(features[:1])]

    def _each(self, features: np.ndarray) -> list[np.ndarray]:
        return [features[:, at] if by is None else by(features[:, at]) for at, by in self.parts]
