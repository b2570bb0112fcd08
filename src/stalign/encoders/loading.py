"""From a card to an encoder that runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from stalign._settings import logger
from stalign._validate import message
from stalign.encoders.access import fetch, hash_of
from stalign.encoders.registry import get, loader_of
from stalign.encoders.state import weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.encoders.card import Card

RANDOM = "random"
_BESIDE = ("args.json", "vocab.json", "OS_scRNA_gene_index.19264.tsv")  # decide the features as the weights do


class EncodesPatches(Protocol):
    """What an image encoder has."""

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, s, s, 3) uint8 to (B, dim) float32."""


class EncodesCounts(Protocol):
    """What a gene encoder has; `vocabulary` is empty where it takes a table's own genes.

    With an attribute `whole` that is True it is given all rows at once, and with `normalises` also their `totals`.
    """

    vocabulary: tuple[str, ...]

    def encode(self, counts: sp.csr_matrix, names: Sequence[str]) -> NDArray[np.float32]:
        """CSR (n, n_genes) of raw counts in the order of `vocabulary` to (n, dim) float32."""


def load(
    encoder: str | Card,
    weights: str | Path | None = None,
    *,
    device: str | None = None,
    precision: str = "fp32",
    seed: int = 0,
) -> Any:
    """Load an encoder.

    Parameters
    ----------
    encoder
        A registered name, or a card from `stalign.encoders.get`.
    weights
        A path of yours; None for the published weights; `random` for random parameters, which are good for checks of
        shape and speed and for nothing else.
    device
        Torch device; None for the one in the settings, CUDA where there is one, else the CPU.
    precision
        `fp32`, or `bf16` for matrix products in bfloat16, faster on GPUs and on CPUs with AMX.
    seed
        Of random parameters.

    Returns
    -------
    An object with `encode`; see `EncodesPatches` and `EncodesCounts`.

    Raises
    ------
    KeyError
        If no encoder has the name.
    FileNotFoundError, PermissionError, ConnectionError
        If the weights can't be had; see `stalign.encoders.fetch`.
    ValueError
        If weights are given to an encoder without any, or do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import stalign
    >>> colour = stalign.encoders.load("colour")
    >>> colour.encode(np.zeros((2, 32, 32, 3), dtype=np.uint8)).shape
    (2, 27)
    """
    card = get(encoder)
    path = locate(card, weights)
    return loader_of(card)(card, path, device=device, precision=precision, seed=seed)


def locate(card: Card, weights: str | Path | None) -> Path | None:
    """Find the weights that a call asks for.

    Parameters
    ----------
    card
        The encoder.
    weights
        As for `load`.

    Returns
    -------
    A path, or None for random parameters and encoders without weights.

    Raises
    ------
    FileNotFoundError, PermissionError, ConnectionError
        If the weights can't be had; see `stalign.encoders.fetch`.
    ValueError
        If weights are given to an encoder without any.
    """
    if not card.needs_weights:
        if weights is not None:
            raise ValueError(message(f"Expected no weights, as {card.name!r} has none", found=repr(str(weights))))
        return None
    if weights == RANDOM:
        logger.warning("%s has random weights: its features are good for checks of shape and speed only.", card.name)
        return None
    return fetch(card, weights)


def identify(card: Card, path: Path | None) -> str:
    """Say which parameters an encoder has.

    Parameters
    ----------
    card
        The encoder.
    path
        What `locate` found.

    Returns
    -------
    sha256 of the weights and of the vocabulary beside them, `random:0`, or `none`.
    """
    if path is None:
        return f"{RANDOM}:0" if card.needs_weights else "none"
    folder = path if path.is_dir() else path.parent
    beside = [folder / name for name in _BESIDE] if card.modality == "gene" else []
    return hash_of(*weight_files(path), *(file for file in beside if file.is_file()))
