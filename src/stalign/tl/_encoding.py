"""An encoder with its weights, loaded when first needed, and the cache of its features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stalign._settings import settings
from stalign._validate import one_of
from stalign.encoders.cache import FeatureCache
from stalign.encoders.loading import RANDOM, identify, locate
from stalign.encoders.registry import loader_of
from stalign.encoders.runtime import PRECISIONS

if TYPE_CHECKING:
    from pathlib import Path

    from stalign.encoders.card import Card


@dataclass
class Encoding:
    """An encoder, its weights and its cache.

    Parameters
    ----------
    card
        The encoder.
    path
        Its weights; None for random ones and for encoders without weights.
    identity
        Hash of the weights.
    device
        Torch device, or None.
    precision
        `fp32` or `bf16`.
    batch_size
        Rows in the network at once.
    cache
        Features of earlier runs.
    """

    card: Card
    path: Path | None
    identity: str
    device: str | None
    precision: str
    batch_size: int
    cache: FeatureCache
    _loaded: Any = field(default=None, init=False, repr=False)

    @classmethod
    def start(
        cls,
        card: Card,
        weights: str | Path | None,
        *,
        device: str | None,
        precision: str,
        cache: bool,
        batch_size: int,
    ) -> Encoding:
        """Find the weights, and what earlier runs left.

        Parameters
        ----------
        card
            The encoder.
        weights
            Path, `random` or None.
        device, precision, batch_size
            As for `tl.encode`.
        cache
            Whether to keep features. Those of encoders that were registered with a function are not kept, as a change
            of the function would go unseen.

        Returns
        -------
        The encoder, not loaded yet.
        """
        one_of(precision, PRECISIONS, name="precision")
        path = locate(card, weights)
        identity = identify(card, path)
        folder = settings.cache_dir / "features" if cache and isinstance(card.loader, str) else None
        scope = f"{card.name}:{card.digest()}:{identity}:{precision}"
        return cls(card, path, identity, device, precision, batch_size, FeatureCache(folder, scope))

    @property
    def encoder(self) -> Any:
        """The encoder itself, loaded on first use."""
        if self._loaded is None:
            self._loaded = loader_of(self.card)(
                self.card, self.path, device=self.device, precision=self.precision, seed=0
            )
        return self._loaded

    def record(self) -> dict[str, Any]:
        """What to record of the encoder.

        Returns
        -------
        Encoder, options, weights and precision, in types that h5ad and zarr hold.
        """
        random = self.identity.startswith(RANDOM)
        size = {"input_px": self.card.input_px} if self.card.modality == "image" else {}
        return {
            "encoder": self.card.name,
            "modality": self.card.modality,
            "licence": self.card.licence,
            "options": dict(self.card.options),
            "weights": "random: for checks of shape and speed only" if random else str(self.path or "none"),
            "weights_sha256": self.identity,
            "precision": self.precision,
            **size,
        }
