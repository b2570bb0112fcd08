"""The two towers of HiBio-ST as encoders: images and gene sentences in one space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from stalign._validate import one_of
from stalign.core.sentences import sentences
from stalign.encoders.card import Card
from stalign.encoders.runtime import PRECISIONS, autocast, pick_device
from stalign.models.checkpoint_files import WEIGHTS_FILE
from stalign.models.gene_tokens import GeneTokens
from stalign.models.weights import REGISTRY, load_weights, of_kind

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.models.checkpoint import Checkpoint

MODALITIES = ("image", "gene")
_NAMES = ("hibio", *(name for name, entry in REGISTRY.items() if entry.kind == "hibio"))


def hibio_card(
    encoder: str, weights: str | os.PathLike[str] | None, modality: str | None
) -> tuple[Card, Path, str] | None:
    """Describe a tower of HiBio-ST.

    Parameters
    ----------
    encoder
        The name of packaged weights, or `hibio` for a folder of one's own.
    weights
        The folder, or None for the packaged ones.
    modality
        `image` or `gene`; None for images.

    Returns
    -------
    The card, the folder of its weights, and the level that it was trained on; None for an encoder that is not of
    HiBio-ST.

    Raises
    ------
    ValueError
        If the modality is unknown, or the weights are of another network.
    FileNotFoundError
        If there are no such weights.
    """
    if encoder not in _NAMES:
        return None
    modality = modality or "image"
    one_of(modality, MODALITIES, name="modality")
    found = of_kind(load_weights(weights if weights is not None else encoder), "hibio")
    config = found.config
    card = Card(
        encoder if modality == "image" else f"{encoder}-gene",
        modality,  # type: ignore[arg-type]
        "stalign.encoders.hibio:load",
        width=config.dim,
        access="folder",
        files=(WEIGHTS_FILE,),
        input_px=config.input.px,
        input_um=config.input.um,
        mean=config.input.mean,
        std=config.input.std,
        licence=str(found.meta.get("licence", "not stated")),
        citation="HiBio-ST, under review; weights of stalign",
        note="Images and gene sentences share one space: `tl.retrieve` finds one by the other.",
    )
    folder = found.path if found.path is not None else Path(str(weights))
    return card, folder, "native" if modality == "image" else str(config.sentence.level)


class _Images:
    """Patches through the image tower."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
        self.network, self.device, self.precision = checkpoint.network, device, precision

    def encode(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, s, s, 3) uint8 to (B, d) float32."""
        images = torch.from_numpy(patches).permute(0, 3, 1, 2).to(self.device)
        with torch.inference_mode(), autocast(self.device, self.precision):
            return np.asarray(self.network.embed_image(images).float().cpu().numpy())


class _Genes:
    """Counts as sentences through the text tower, by the document frequencies of the training corpus."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: str) -> None:
        self.network, self.device, self.precision = checkpoint.network, device, precision
        self.vocabulary = checkpoint.vocabulary
        self.tokens = GeneTokens(checkpoint.vocabulary, checkpoint.config.words)
        self.whole = checkpoint.config.sentence.mode == "hvg"  # a sentence depends on all spots of the section

    def encode(self, counts: sp.csr_matrix, names: Sequence[str]) -> NDArray[np.float32]:
        """CSR (n, V) of raw counts to (n, d) float32; NaN for spots without genes of the vocabulary."""
        config, idf = self.network.config, self.network.idf.cpu().numpy()
        spec = config.sentence
        options = {"length": spec.length, "mode": spec.mode, "min_count": spec.min_count}
        genes = sentences(counts, self.vocabulary, idf, **options)
        unknown = [["?"] * 2] * len(genes) if spec.metadata == "prefix" else None
        ids, mask = self.tokens.encode(genes, unknown, context=config.text.context)
        with torch.inference_mode(), autocast(self.device, self.precision):
            out = self.network.embed_text(ids.to(self.device), mask.to(self.device)).float().cpu().numpy()
        out[genes[:, 0] < 0] = np.nan
        return np.asarray(out, dtype=np.float32)


def load(
    card: Card, path: Path | None, *, device: str | None = None, precision: str = "fp32", seed: int = 0
) -> _Images | _Genes:
    """Load a tower.

    Parameters
    ----------
    card
        What `hibio_card` returned.
    path
        The folder of the weights.
    device
        Torch device.
    precision
        `fp32` or `bf16`.
    seed
        Not used.

    Returns
    -------
    The encoder.
    """
    del seed
    one_of(precision, PRECISIONS, name="precision")
    chosen = pick_device(device)
    checkpoint = load_weights(str(path), device=chosen)
    return (_Images if card.modality == "image" else _Genes)(checkpoint, chosen, precision)
