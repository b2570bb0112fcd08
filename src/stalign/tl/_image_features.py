"""Image features that a function computes for itself, without writing them into the user's object."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.data import Section
    from stalign.encoders.card import Card

ENCODER = "efficientnet-lite0"
WINDOWS_UM = (112.0, 224.0)  # µm; these and the next chosen on her2st C2 to C5, each predicted from the other three
CONTEXT_UM = 250.0
COLOURS_UM = (100.0, 250.0, 600.0)  # µm
_COLOUR_PX = 24  # px of a window for its colours
_BATCH = 32
_CHUNK = 1024  # windows in memory at one time


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
    context
        Sigma in µm of a Gaussian mean of these features over the spots around each spot, which is put beside them: what
        surrounds a spot tells of it, too. None for none.
    colours
        Sides in µm of windows whose means, spreads and histograms of colours are put beside them, with their own
        Gaussian mean.
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
    context: float | None = CONTEXT_UM
    colours: tuple[float, ...] = ()
    weights: str | Path | None = None
    mpp: float | Mapping[str, float] | None = None
    device: str | None = None

    @property
    def names(self) -> list[str]:
        """The obsm keys that `tl.encode` would write them to, and the context."""
        name = self.encoder if isinstance(self.encoder, str) else self.encoder.name
        around = [] if self.context is None else [f"mean over {self.context:g} µm"]
        names = [*(f"X_{name}_{side:g}um" for side in self.windows), *around]
        if self.colours:
            colours = f"colours of {', '.join(f'{side:g}' for side in self.colours)} µm"
            names += [colours, *(f"{colours}, {mean}" for mean in around)]
        return names

    @property
    def sources(self) -> tuple[tuple[int, ...], ...]:
        """How many features each of `names` has: of the encoder, and of the colours where there are any."""
        from stalign.core.colour import N_FEATURES
        from stalign.encoders import get

        dim, n_colours, twice = get(self.encoder).dim, N_FEATURES * len(self.colours), self.context is not None
        around = [len(self.windows) * dim] if twice else []
        encoded = (*[dim] * len(self.windows), *around)
        return (encoded, (n_colours,) * (1 + twice)) if self.colours else (encoded,)

    def of(self, data: AnnData | SpatialData, *, library_key: str | None, table_key: str | None) -> np.ndarray:
        """Compute the features of a table's spots.

        Parameters
        ----------
        data
            AnnData or SpatialData; it is not changed.
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
        from stalign.data import open_sections
        from stalign.encoders import get
        from stalign.tl._encode_images import encode_images, wanted_mpp
        from stalign.tl._encoding import Encoding

        if not self.windows:
            raise ValueError(message("Expected at least one window in µm", found="none"))
        if self.context is not None and not self.context > 0:
            raise ValueError(message("Expected `context` above 0 µm, or None", found=repr(self.context)))
        card = get(self.encoder)
        encoding = Encoding.start(
            card, self.weights, device=self.device, precision="fp32", cache=True, batch_size=_BATCH
        )
        parts = []
        for side in map(float, self.windows):
            want = partial(wanted_mpp, card, side)
            sections = open_sections(data, table_key=table_key, library_key=library_key, mpp=self.mpp, want_mpp=want)
            parts.append(encode_images(encoding, sections, level=side)[0])
        features = self._with_context(np.concatenate(parts, axis=1, dtype=np.float64), sections)
        if not self.colours:
            return features
        sections = open_sections(
            data, table_key=table_key, library_key=library_key, mpp=self.mpp, want_mpp=min(self.colours) / _COLOUR_PX
        )
        return np.concatenate([features, self._with_context(self._colours(sections), sections)], axis=1)

    def _with_context(self, features: np.ndarray, sections: Sequence[Section]) -> np.ndarray:
        """Put the mean over what surrounds each spot beside its features."""
        from stalign.core.surroundings import gaussian_mean

        if self.context is None:
            return features
        around = np.full_like(features, np.nan)
        for section in sections:
            around[section.rows] = gaussian_mean(features[section.rows], section.coords_um, self.context)
        return np.concatenate([features, around], axis=1)

    def _colours(self, sections: Sequence[Section]) -> np.ndarray:
        """Describe the colours of all windows, NaN where a spot has no position or image."""
        from stalign.core.colour import N_FEATURES, colour_features

        out = np.full((sections[0].table.n_obs, N_FEATURES * len(self.colours)), np.nan)
        for section in sections:
            if section.image is None:
                continue
            for number, side in enumerate(self.colours):
                windows = section.windows("spot", width_um=float(side))
                own = np.flatnonzero(np.isfinite(windows).all(axis=1))
                columns = slice(number * N_FEATURES, (number + 1) * N_FEATURES)
                for part in np.split(own, range(_CHUNK, len(own), _CHUNK)):
                    patches = section.image.patches(windows[part].astype(np.float64), _COLOUR_PX)
                    out[section.rows[part], columns] = colour_features(patches)
        return out


DEFAULT = ImageFeatures(colours=COLOURS_UM)
