"""What every encoder must do, checked for any card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stalign._validate import message
from stalign.encoders.loading import load
from stalign.encoders.registry import get

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.encoders.card import Card

_ROWS = 4
_TOLERANCE = 1e-4  # largest difference, relative to the largest value, between batches


def check(encoder: str | Card, weights: str | Path | None = None) -> None:
    """Check that an encoder keeps the contract: shape, type, finite values, and rows that do not depend on each other.

    Parameters
    ----------
    encoder
        A registered name or a card.
    weights
        As for `load`; `random` needs no download.

    Raises
    ------
    ValueError
        If a rule is broken; the message says which.

    Examples
    --------
    >>> import stalign
    >>> stalign.encoders.check("colour")
    """
    card = get(encoder)
    loaded = load(card, weights)
    rng = np.random.default_rng(0)
    together, apart = (_images if card.modality == "image" else _genes)(card, loaded, rng)
    found = getattr(together, "shape", None), getattr(together, "dtype", None)
    if found != ((_ROWS, card.dim), np.float32):
        raise ValueError(message(f"Expected {card.name!r} to return ({_ROWS}, {card.dim}) float32", found=found))
    if not np.isfinite(together).all():
        raise ValueError(message(f"Expected finite values from {card.name!r}", found="NaN or infinite ones"))
    if apart is not None and np.abs(together - apart).max() > _TOLERANCE * max(np.abs(together).max(), 1e-6):
        raise ValueError(message(f"Expected a row of {card.name!r} not to depend on the others", found="that it does"))


def _images(card: Card, loaded: Any, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    patches = rng.integers(0, 256, (_ROWS, card.input_px, card.input_px, 3), dtype=np.uint8)
    apart = np.concatenate([loaded.encode(patches[:1]), loaded.encode(patches[1:])])
    return loaded.encode(patches), apart


def _genes(card: Card, loaded: Any, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    counts = sp.csr_matrix(rng.poisson(1.0, (_ROWS, len(loaded.vocabulary) or 200)).astype(np.float32))
    names = [f"cell {i}" for i in range(_ROWS)]
    together = loaded.encode(counts, names)
    if getattr(loaded, "whole", False):
        return together, None
    order = [2, 0, 3, 1]
    apart = np.empty_like(together)
    apart[order] = loaded.encode(counts[order], [names[i] for i in order])
    return together, apart
