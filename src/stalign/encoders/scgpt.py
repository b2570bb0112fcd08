"""scGPT, inference only (Cui et al. 2024): tokens of a cell, the transformer, the class token."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stalign.encoders.packed import Block, batches, find_runs
from stalign.encoders.runtime import autocast

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from numpy.typing import NDArray


@dataclass(frozen=True)
class ScGPTConfig:
    """Sizes and special values of a checkpoint, as in its args.json.

    Parameters
    ----------
    n_tokens
        Rows of the gene embedding.
    embsize, nhead, d_hid, nlayers
        Width, attention heads, hidden width of the feed-forward layers, and layers.
    n_bins
        Bins of expression, the empty one included.
    cls_id
        Row of the class token.
    pad_value
        Value given to the class token.
    max_value
        Values are cut off above this.
    """

    n_tokens: int
    embsize: int = 512
    nhead: int = 8
    d_hid: int = 512
    nlayers: int = 12
    n_bins: int = 51
    cls_id: int = 60_695
    pad_value: float = -2.0
    max_value: float = 512.0


class ScGPT(nn.Module):
    """The part of scGPT that embeds cells.

    Parameters
    ----------
    config
        Sizes.
    """

    def __init__(self, config: ScGPTConfig) -> None:
        super().__init__()
        self.config = config
        sizes = (config.embsize, config.nhead, config.d_hid)
        self.encoder = nn.ModuleDict(
            {"embedding": nn.Embedding(config.n_tokens, config.embsize), "enc_norm": nn.LayerNorm(config.embsize)}
        )
        self.value_encoder = nn.ModuleDict(
            {
                "linear1": nn.Linear(1, config.embsize),
                "linear2": nn.Linear(config.embsize, config.embsize),
                "norm": nn.LayerNorm(config.embsize),
            }
        )
        self.transformer_encoder = nn.ModuleDict(
            {"layers": nn.ModuleList(Block(*sizes) for _ in range(config.nlayers))}
        )

    def forward(self, ids: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Embed cells packed end to end.

        Parameters
        ----------
        ids
            Rows of the gene embedding, class token first in each cell, (tokens,) int64.
        values
            Binned expression, (tokens,) float32.
        lengths
            Tokens of each cell, in order; neighbours of equal length share a run of attention.

        Returns
        -------
        Output of the class token, (cells, embsize).
        """
        genes = self.encoder["enc_norm"](self.encoder["embedding"](ids))
        value = F.relu(self.value_encoder["linear1"](values.clamp(max=self.config.max_value).unsqueeze(1)))
        x = genes + self.value_encoder["norm"](self.value_encoder["linear2"](value))  # (tokens, embsize)
        runs = list(find_runs(lengths))
        layers: Any = self.transformer_encoder["layers"]
        for i, layer in enumerate(layers):
            x = layer(x, runs, first_only=i == len(layers) - 1)
        encoded: torch.Tensor = x
        return encoded


def bin_values(values: NDArray[np.floating], n_bins: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Bin the non-zero counts of a cell by their quantiles, ties spread at random over the bins they span.

    Parameters
    ----------
    values
        Counts above zero, (n,).
    n_bins
        Bins, the empty one included.
    rng
        Draws one number a value.

    Returns
    -------
    Bins from 1 to `n_bins` - 1, (n,).
    """
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    upper = np.searchsorted(edges, values, side="right")  # edges at or below the value
    lower = np.searchsorted(edges, values, side="left")  # edges below the value
    return np.ceil(rng.random(len(values)) * (lower - upper) + upper).astype(np.int64)


def cell_rng(seed: int, name: str) -> np.random.Generator:
    """A generator of random numbers of one cell's own.

    Parameters
    ----------
    seed
        Of the run.
    name
        Of the cell.

    Returns
    -------
    A generator that does not depend on other cells or on their order.
    """
    digest = hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def tokenise(
    genes: NDArray[np.integer],
    counts: NDArray[np.floating],
    config: ScGPTConfig,
    *,
    max_length: int,
    sample: str,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Turn one cell into tokens: class token, then its expressed genes with their bins.

    Parameters
    ----------
    genes
        Rows of the gene embedding of the expressed genes, (n,), in any order.
    counts
        Their raw counts, above zero, (n,).
    config
        Of the checkpoint.
    max_length
        Most tokens, the class token included.
    sample
        Which genes to keep if there are more: `random`, or `top` for those with the highest counts.
    rng
        Of the cell.

    Returns
    -------
    Ids and values, (tokens,) each.
    """
    order = np.argsort(genes, kind="stable")  # the order of columns in the table makes no difference
    genes, counts = genes[order], counts[order]
    bins = bin_values(counts, config.n_bins, rng)
    if len(genes) > max_length - 1:
        if sample == "random":
            kept = rng.permutation(len(genes))[: max_length - 1]
        else:
            kept = np.argsort(-counts, kind="stable")[: max_length - 1]
        genes, bins = genes[kept], bins[kept]
    ids = np.concatenate([[config.cls_id], genes]).astype(np.int64)
    return ids, np.concatenate([[config.pad_value], bins]).astype(np.float32)


def embed(
    model: ScGPT,
    counts: sp.csr_matrix,
    names: Sequence[str],
    *,
    max_length: int = 1200,
    sample: str = "random",
    seed: int = 0,
    device: torch.device | None = None,
    precision: str = "fp32",
) -> NDArray[np.float32]:
    """Embed cells.

    Parameters
    ----------
    model
        The network.
    counts
        Raw counts in the columns of the gene embedding, CSR (n, n_tokens).
    names
        Name of each cell, (n,), which seeds its ties and its sample.
    max_length, sample, seed
        See `tokenise` and `cell_rng`.
    device
        Where to run; the CPU by default.
    precision
        `fp32` or `bf16`.

    Returns
    -------
    Embeddings of unit length, (n, embsize) float32; NaN for cells without a count.
    """
    device = device or torch.device("cpu")
    cells = []
    for i, name in enumerate(names):
        part = slice(counts.indptr[i], counts.indptr[i + 1])
        above = counts.data[part] > 0
        genes, values = counts.indices[part][above], counts.data[part][above]
        if len(genes):
            rng = cell_rng(seed, name)
            cells.append((i, *tokenise(genes, values, model.config, max_length=max_length, sample=sample, rng=rng)))
    cells.sort(key=lambda cell: (len(cell[1]), cell[0]))
    out = np.full((len(names), model.config.embsize), np.nan, dtype=np.float32)
    for batch in batches(cells, [len(cell[1]) for cell in cells]):
        ids, values = (torch.from_numpy(np.concatenate([cell[k] for cell in batch])).to(device) for k in (1, 2))
        with torch.inference_mode(), autocast(device, precision):
            found = model(ids, values, [len(cell[1]) for cell in batch]).float()
        out[[cell[0] for cell in batch]] = F.normalize(found, dim=1).cpu().numpy()
    return out
