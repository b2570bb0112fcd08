"""Image features that a function computes for itself, without writing them into the user's object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.encoders.card import Card

ENCODER = "efficientnet-lite0"
WINDOWS_UM = (112.0, 224.0)  # µm, chosen on sections of the reference, see benchmarks/genes.py
_BATCH = 32


@dataclass(frozen=True)
class ImageFeatures:
    """Features of square windows around each spot, by an image encoder.

    They are computed where they are needed, kept in the feature cache of `settings.cache_dir`, and never written into
    the object.

    Parameters
    ----------
    encoder
        A registered encoder or its card.
    windows
        Sides of the windows in µm, one or several, whose features are put side by side.
    weights
        File or folder of the encoder's weights; None for the published ones.
    mpp
        µm per px of the coordinates, one for all sections or one per section; None as stated or derived.
    device
        Torch device; None for that of the settings.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(12)
    >>> colour = stalign.tl.ImageFeatures("colour", windows=(100.0,))
    >>> stalign.tl.predict_genes(adata, genes=2, use_rep=colour).shape[1]
    2
    """

    encoder: str | Card = ENCODER
    windows: tuple[float, ...] = WINDOWS_UM
    weights: str | Path | None = None
    mpp: float | Mapping[str, float] | None = None
    device: str | None = None

    @property
    def names(self) -> list[str]:
        """The obsm keys that `tl.encode` would write them to."""
        name = self.encoder if isinstance(self.encoder, str) else self.encoder.name
        return [f"X_{name}_{side:g}um" for side in self.windows]

    def of(
        self, data: AnnData | SpatialData, table: AnnData, *, library_key: str | None, table_key: str | None
    ) -> np.ndarray:
        """Compute the features of a table's spots.

        Parameters
        ----------
        data
            AnnData or SpatialData; it is not changed.
        table
            Its table.
        library_key, table_key
            As for `tl.encode`.

        Returns
        -------
        (n_obs, width) float64, NaN where a spot has no position or image.

        Raises
        ------
        ValueError
            If no section has an image, or `windows` is empty.
        """
        from stalign.encoders import get
        from stalign.tl._encode_images import encode_images
        from stalign.tl._encode_run import Run

        if not self.windows:
            raise ValueError(message("Expected at least one window in µm", found="none"))
        card = get(self.encoder)
        run = Run.start(card, self.weights, device=self.device, precision="fp32", cache=True, batch_size=_BATCH)
        parts = [
            encode_images(
                run, data, table, level=float(side), image_key=None, mpp=self.mpp, spot_diameter=None,
                library_key=library_key, table_key=table_key,
            )[0]
            for side in self.windows
        ]  # fmt: skip
        return np.concatenate(parts, axis=1, dtype=np.float64)
