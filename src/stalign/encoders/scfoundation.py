"""scFoundation, inference only (Hao et al. 2024): expressed genes and two tokens for depth, through the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stalign._validate import message, one_of
from stalign.encoders.packed import Block, batches, find_runs
from stalign.encoders.runtime import PRECISIONS, autocast, pick_device
from stalign.encoders.state import assign, read_file, tensors_of, weight_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import scipy.sparse as sp
    from numpy.typing import NDArray

    from stalign.encoders.card import Card

GENES = 19_264
GENE_TABLE = "OS_scRNA_gene_index.19264.tsv"
_TARGET = 1e4  # counts per cell after normalisation
_OTHER_PARTS = (r"decoder\.", r"decoder_embed\.", r"norm\.", r"to_final\.", r"token_emb\.emb_(?:mask|pad)\.")


class _Values(nn.Module):
    """Expression as a weighted mean of learned bins."""

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.mlp = nn.Linear(1, bins)
        self.mlp2 = nn.Linear(bins, bins)
        self.emb = nn.Embedding(bins, width)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = F.leaky_relu(self.mlp(values.unsqueeze(1)), 0.1)  # (tokens, bins)
        return torch.softmax(hidden + self.mlp2(hidden), dim=-1) @ self.emb.weight


class ScFoundation(nn.Module):
    """The part of scFoundation that embeds cells.

    Parameters
    ----------
    genes
        Genes of the vocabulary; two more places are for the target depth and the depth.
    width, depth, heads, bins
        Length of a token, layers, attention heads, bins of expression.
    """

    def __init__(
        self, genes: int = GENES, *, width: int = 768, depth: int = 12, heads: int = 12, bins: int = 100
    ) -> None:
        super().__init__()
        self.token_emb = _Values(width, bins)
        self.pos_emb = nn.Embedding(genes + 3, width)  # the last row is for padding
        blocks = nn.ModuleList(Block(width, heads, 4 * width) for _ in range(depth))
        self.encoder = nn.ModuleDict({"transformer_encoder": blocks, "norm": nn.LayerNorm(width)})

    def forward(self, places: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """Encode cells packed end to end.

        Parameters
        ----------
        places
            Positions of genes in the vocabulary, (tokens,) int64.
        values
            Log-normalised expression and depths, (tokens,) float32.
        lengths
            Tokens of each cell, in order.

        Returns
        -------
        Tokens, (tokens, width).
        """
        x = self.token_emb(values) + self.pos_emb(places)
        runs = list(find_runs(lengths))
        layers: Any = self.encoder["transformer_encoder"]
        for layer in layers:
            x = layer(x, runs)
        found: torch.Tensor = self.encoder["norm"](x)
        return found


def tokenise(
    genes_found: NDArray[np.integer], counts: NDArray[np.floating], total: float, *, genes: int, depth: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Turn one cell into tokens: its expressed genes, then the target depth and the depth.

    Parameters
    ----------
    genes_found
        Places of the expressed genes, (n,), in any order.
    counts
        Their raw counts, above zero, (n,).
    total
        Total count of the cell.
    genes
        Genes of the vocabulary; the depths have the two places after them.
    depth
        Target depth, log10 of counts.

    Returns
    -------
    Places and values, (n + 2,) each; expression is log1p of counts per 10,000.
    """
    order = np.argsort(genes_found, kind="stable")
    values = np.log1p(counts[order] / total * _TARGET)
    places = np.concatenate([genes_found[order], [genes, genes + 1]])
    return places.astype(np.int64), np.concatenate([values, [depth, np.log10(total)]]).astype(np.float32)


class ScFoundationEncoder:
    """scFoundation on counts.

    Parameters
    ----------
    model
        The network.
    vocabulary
        Symbols, (19264,); empty for random weights, whose places are those of the table's own genes.
    options
        `pool` and `depth`, the target depth as log10 of counts.
    device
        Where it runs.
    precision
        `fp32` or `bf16`.
    """

    normalises = True  # total counts over all genes make a difference

    def __init__(
        self,
        model: ScFoundation,
        vocabulary: Sequence[str],
        *,
        options: Mapping[str, Any],
        device: torch.device,
        precision: str,
    ) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False).to(device)
        self.vocabulary = tuple(vocabulary)
        self.options = dict(options)
        self.device = device
        self.precision = precision

    def encode(
        self, counts: sp.csr_matrix, names: Sequence[str], totals: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Embed cells, spots or niches.

        Parameters
        ----------
        counts
            Raw counts in the order of `vocabulary`, CSR (n, n_genes).
        names
            Names of the rows, (n,); they make no difference.
        totals
            Total counts over all genes, (n,), where `counts` holds only some of the genes.

        Returns
        -------
        Embeddings, (n, dim) float32; NaN for rows without a count.

        Raises
        ------
        ValueError
            If there are more genes than places.
        """
        genes = self.model.pos_emb.num_embeddings - 3
        if counts.shape[1] > genes:
            raise ValueError(message(f"Expected at most {genes} genes", found=counts.shape[1]))
        totals = np.asarray(counts.sum(axis=1)).ravel() if totals is None else totals
        cells = []
        for i in range(len(names)):
            part = slice(counts.indptr[i], counts.indptr[i + 1])
            above = counts.data[part] > 0
            if above.any() and totals[i] > 0:
                found, values = counts.indices[part][above], counts.data[part][above]
                cells.append((i, *tokenise(found, values, totals[i], genes=genes, depth=self.options["depth"])))
        cells.sort(key=lambda cell: (len(cell[1]), cell[0]))
        pool = self.options["pool"]
        width = self.model.pos_emb.embedding_dim
        out = np.full((len(names), width * (4 if pool == "all" else 1)), np.nan, dtype=np.float32)
        for batch in batches(cells, [len(cell[1]) for cell in cells]):
            packed = (torch.from_numpy(np.concatenate([cell[k] for cell in batch])).to(self.device) for k in (1, 2))
            lengths = [len(cell[1]) for cell in batch]
            with torch.inference_mode(), autocast(self.device, self.precision):
                tokens = self.model(*packed, lengths).float()
            pooled = torch.stack([_pooled(cell, pool) for cell in tokens.split(lengths)])
            out[[cell[0] for cell in batch]] = pooled.cpu().numpy()
        return out


def _pooled(tokens: torch.Tensor, pool: str) -> torch.Tensor:
    """One cell's tokens (n + 2, width), genes first, to its embedding."""
    if pool == "max":
        return tokens.amax(0)
    genes = tokens[:-2]
    return torch.cat([tokens[-1], tokens[-2], genes.amax(0), genes.mean(0)])


def load(
    card: Card, path: Path | None, *, device: str | None = None, precision: str = "fp32", seed: int = 0
) -> ScFoundationEncoder:
    """Load scFoundation.

    Parameters
    ----------
    card
        The encoder.
    path
        Folder with models.ckpt and the gene table, or the weights file in such a folder; None for random parameters.
    device
        Torch device.
    precision
        `fp32` or `bf16`.
    seed
        Of random parameters.

    Returns
    -------
    The encoder.

    Raises
    ------
    FileNotFoundError
        If the gene table is not beside the weights.
    ValueError
        If the checkpoint does not fit.
    """
    one_of(precision, PRECISIONS, name="precision")
    kwargs: dict[str, Any] = {"options": card.options, "device": pick_device(device), "precision": precision}
    if path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return ScFoundationEncoder(ScFoundation(), (), **kwargs)
    file = weight_files(path)[0]
    vocabulary = _read_genes(file.parent / GENE_TABLE)
    found = read_file(file)
    state = tensors_of(found["cell"] if isinstance(found.get("cell"), dict) else found)
    with torch.device("meta"):
        model = ScFoundation(len(vocabulary), **_sizes(state))
    assign(model, state, ignore=_OTHER_PARTS, name=card.name)
    return ScFoundationEncoder(model, vocabulary, **kwargs)


def _read_genes(file: Path) -> list[str]:
    if not file.is_file():
        hint = "It is in the authors' repository, github.com/biomap-research/scFoundation"
        raise FileNotFoundError(message(f"Expected {GENE_TABLE} beside the weights", found=file.parent, hint=hint))
    lines = [line.split("\t") for line in file.read_text().splitlines()]
    if not lines or lines[0][:1] != ["gene_name"]:
        raise ValueError(message("Expected a table with the column gene_name first", found=file))
    return [line[0] for line in lines[1:] if line[0]]


def _sizes(state: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Sizes that the tensors' shapes tell; heads are 64 wide, as published."""
    try:
        bins, width = state["token_emb.emb.weight"].shape
    except KeyError as error:
        raise ValueError(message("Expected a checkpoint of scFoundation", found=f"no tensor {error}")) from error
    layers = {name.split(".")[2] for name in state if name.startswith("encoder.transformer_encoder.")}
    return {"bins": bins, "width": width, "depth": len(layers), "heads": max(width // 64, 1)}
