"""Tokens of gene sentences: one for a gene, beside special ones and those of organs and diseases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SPECIAL = ("[PAD]", "[SOT]", "[EOT]", "[UNK]")
PAD, SOT, EOT, UNK = range(4)


@dataclass(frozen=True)
class GeneTokens:
    """The tokens of a text encoder: special ones first, then those of metadata, then one for each gene.

    Parameters
    ----------
    symbols
        Gene symbols, in the order of the vocabulary that sentences refer to.
    metadata
        What can stand before the genes, such as `"organ:brain"` and `"disease:healthy"`.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.models.gene_tokens import GeneTokens
    >>> tokens = GeneTokens(("GFAP", "MBP"))
    >>> found, mask = tokens.encode(np.array([[1, 0], [1, -1]]))
    >>> tokens.words(found)
    [['[SOT]', 'MBP', 'GFAP', '[EOT]'], ['[SOT]', 'MBP', '[EOT]']]
    """

    symbols: tuple[str, ...]
    metadata: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        twice = [name for name, times in Counter([*SPECIAL, *self.metadata, *self.symbols]).items() if times > 1]
        if twice or not self.symbols:
            found = f"{twice[0]!r} more than once" if twice else "no genes"
            raise ValueError(message("Expected genes and metadata of different names", found=found))

    def __len__(self) -> int:
        return self.offset + len(self.symbols)

    @property
    def offset(self) -> int:
        """Number of the first gene's token."""
        return len(SPECIAL) + len(self.metadata)

    def encode(
        self,
        genes: NDArray[np.integer[Any]],
        metadata: Sequence[Sequence[str]] | None = None,
        *,
        context: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Turn sentences into numbers: `[SOT]`, metadata, genes, `[EOT]`, filled up with `[PAD]`.

        Parameters
        ----------
        genes
            (B, K), positions of genes in `symbols`, filled up with -1 at the end.
        metadata
            What stands before the genes of each spot, equally many for each; what is not known becomes `[UNK]`.
        context
            T, the longest text; genes at the end that do not fit are left out. None for what the longest needs.

        Returns
        -------
        Tokens (B, T) int64, and which are no padding (B, T) bool. T is no longer than the longest text needs.

        Raises
        ------
        ValueError
            If a gene is not in the vocabulary, or the context has no place for one.
        """
        genes = np.asarray(genes)
        n = len(genes)
        if genes.ndim != 2 or (genes.size and not -1 <= genes.min() <= genes.max() < len(self.symbols)):
            expected = f"Expected sentences (B, K) of positions below {len(self.symbols)}"
            raise ValueError(message(expected, found=f"shape {genes.shape} with {genes.max(initial=-1)}"))
        known = {name: len(SPECIAL) + place for place, name in enumerate(self.metadata)}
        before = np.array([[known.get(name, UNK) for name in row] for row in metadata or [()] * n], dtype=np.int64)
        before = before.reshape(n, -1)
        free = genes.shape[1] if context is None else context - before.shape[1] - 2
        if free < 1 and genes.shape[1]:
            expected = f"Expected a context above {before.shape[1] + 2}"
            raise ValueError(message(expected, found=context, hint="It holds [SOT], metadata, genes and [EOT]"))
        genes = genes[:, :free]
        sizes = (genes >= 0).sum(axis=1)
        start = 1 + before.shape[1]
        tokens = np.full((n, start + sizes.max(initial=0) + 1), PAD, dtype=np.int64)
        tokens[:, 0] = SOT
        tokens[:, 1:start] = before
        genes = genes[:, : tokens.shape[1] - start - 1]
        tokens[:, start:-1] = np.where(genes >= 0, genes + self.offset, PAD)
        tokens[np.arange(n), start + sizes] = EOT
        found = torch.from_numpy(tokens)
        return found, found != PAD

    def words(self, tokens: Tensor) -> list[list[str]]:
        """Turn numbers back into words, without padding.

        Parameters
        ----------
        tokens
            (B, T) int64.
        """
        names = [*SPECIAL, *self.metadata, *self.symbols]
        return [[names[token] for token in row if token != PAD] for row in tokens.tolist()]
