"""A batch of spots through the network, in this process or on a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from stalign._constants import Keys

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stalign.data.spots import SpotReader
    from stalign.models.network import Bases, Level, STAlign

LEVEL: Final = "niche"  # what is embedded


def section_bases(network: STAlign, reader: SpotReader) -> Bases:
    """What all batches of a section share: its gene basis in the space of the network.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    reader
        The section.
    """
    import torch

    device, basis = next(network.parameters()).device, reader.basis
    with torch.inference_mode():
        return network.bases(None if basis is None else torch.from_numpy(basis)[None].to(device), level=LEVEL)


def embed_batch(
    network: STAlign, reader: SpotReader, rows: NDArray[np.intp], bases: Bases
) -> dict[str, NDArray[np.float32]]:
    """Embed some spots of a section.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    reader
        The section.
    rows
        Positions of the spots in the section, (b,).
    bases
        What `section_bases` returned for the section.

    Returns
    -------
    Embeddings, (b, width) float32, by obsm key.
    """
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode():
        batch = reader.batch(rows, levels=(LEVEL,)).to(device)
        level = network.embed(batch, level=LEVEL, bases=bases)
        found = {Keys.EMBED: _embedding(level, batch.gene_valid)}
        if level.image is not None:
            found[Keys.EMBED_IMAGE] = level.image
        if level.gene is not None:
            found[Keys.EMBED_GENE] = level.gene
        if level.image is not None and level.gene is not None:
            found[Keys.EMBED_FUSED] = level.fused
    arrays = {key: value.float().cpu().numpy() for key, value in found.items()}
    if batch.gene_valid is not None and Keys.EMBED_GENE in arrays:
        arrays[Keys.EMBED_GENE][~batch.gene_valid.cpu().numpy()] = np.nan
    return arrays


def _embedding(level: Level, gene_valid: Tensor | None) -> Tensor:
    """Take the niche's expression with its distances kept; without it, the fused embedding at the same scale."""
    import torch

    if level.expression is None:
        return level.fused
    if gene_valid is None:
        return level.expression
    return torch.where(gene_valid[:, None], level.expression, level.fused / level.fused.shape[1] ** 0.5)


def encode_places(network: STAlign, reader: SpotReader, windows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Encode the image in some windows, as that of niches.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    reader
        The section.
    windows
        (b, 4) x0 y0 x1 y1 in px of its image.

    Returns
    -------
    Tokens, (b, s, l) float32.
    """
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode():
        tokens = network.image_tokens(reader.image_batch(windows, level=LEVEL).to(device), level=LEVEL)
    return tokens.float().cpu().numpy()
