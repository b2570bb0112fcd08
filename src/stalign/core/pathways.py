"""Gene sets, and how far the sentences of spots overlap with them (HiBio-ST, eq. 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_BLOCK = 4096  # spots whose overlaps with all sets are in memory at one time


@dataclass(frozen=True)
class Pathways:
    """Gene sets in the genes of a vocabulary.

    Parameters
    ----------
    names
        (P,) names.
    members
        CSR (P, V) float32 of ones.

    Examples
    --------
    >>> import numpy as np
    >>> from stalign.core.pathways import Pathways
    >>> sets = Pathways.of({"myelin": ["MBP", "PLP1", "MAG"]}, ["GFAP", "MBP", "PLP1"], min_genes=2)
    >>> sets.overlaps(np.array([[1, 0], [2, 1]])).toarray()
    array([[0.5],
           [1. ]])
    """

    names: tuple[str, ...]
    members: sparse.csr_matrix

    @classmethod
    def of(
        cls,
        sets: Mapping[str, Iterable[str]],
        symbols: Sequence[str],
        *,
        min_genes: int = 10,
        max_genes: int = 500,
    ) -> Pathways:
        """Find the genes of sets in a vocabulary, without regard to case.

        Parameters
        ----------
        sets
            Gene symbols by name of the set.
        symbols
            (V,) symbols of the vocabulary.
        min_genes, max_genes
            Sets with fewer or more genes in the vocabulary are left out. Small ones overlap by a single gene.

        Raises
        ------
        ValueError
            If no set is left.
        """
        place: dict[str, int] = {}
        for column, symbol in enumerate(symbols):
            place.setdefault(symbol.casefold(), column)
        found = {
            name: sorted({place[g.casefold()] for g in genes if g.casefold() in place}) for name, genes in sets.items()
        }
        kept = {name: genes for name, genes in found.items() if min_genes <= len(genes) <= max_genes}
        if not kept:
            sizes = [len(genes) for genes in found.values()]
            text = f"{len(sizes)} sets, with {min(sizes)} to {max(sizes)} of them" if sizes else "no sets"
            first = next((gene for genes in sets.values() for gene in genes), "none")
            hint = f"Are both of one species? The sets hold {first!r}, the vocabulary {next(iter(symbols), 'none')!r}"
            expected = f"Expected gene sets with {min_genes} to {max_genes} genes of the vocabulary"
            raise ValueError(message(expected, found=text, hint=hint))
        starts = np.cumsum([0, *map(len, kept.values())])
        genes = np.concatenate([np.asarray(genes, dtype=np.int32) for genes in kept.values()])
        ones = np.ones(len(genes), dtype=np.float32)
        return cls(tuple(kept), sparse.csr_matrix((ones, genes, starts), shape=(len(kept), len(symbols))))

    def __len__(self) -> int:
        return len(self.names)

    def overlaps(
        self, sentences: NDArray[np.integer], *, above: float = 0.0, largest: int | None = None
    ) -> sparse.csr_matrix:
        """Measure how far sentences overlap with the sets: shared genes over those of the shorter one (eq. 5).

        Parameters
        ----------
        sentences
            (n, K) positions in the vocabulary, filled up with -1.
        above
            Threshold: overlaps up to it, itself included, are 0.
        largest
            Keep this many of the largest of a spot, of equal ones the first; None keeps all.

        Returns
        -------
        CSR (n, P) float64 without stored zeros. A spot without genes overlaps with nothing.
        """
        sizes = np.diff(self.members.indptr)
        blocks = []
        for start in range(0, len(sentences), _BLOCK):
            genes = sentences[start : start + _BLOCK]
            shared = (one_hot(genes, self.members.shape[1]) @ self.members.T).tocsr().astype(np.float64)
            rows = np.repeat(np.arange(len(genes)), np.diff(shared.indptr))
            shared.data /= np.minimum((genes >= 0).sum(axis=1)[rows], sizes[shared.indices])
            shared.data[shared.data <= above] = 0
            if largest is not None:
                order = np.lexsort((shared.indices, -shared.data, rows))
                shared.data[order[np.arange(len(order)) - shared.indptr[rows] >= largest]] = 0
            shared.eliminate_zeros()
            shared.sort_indices()
            blocks.append(shared)
        return sparse.vstack(blocks, format="csr") if blocks else sparse.csr_matrix((0, len(self)))

    def lists(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the genes of all sets one after the other, (m,), and where each set starts, (P,)."""
        return self.members.indices.astype(np.int64), self.members.indptr[:-1].astype(np.int64)


def one_hot(sentences: NDArray[np.integer], n_genes: int) -> sparse.csr_matrix:
    """Mark the genes of sentences.

    Parameters
    ----------
    sentences
        (n, K) positions in the vocabulary, filled up with -1.
    n_genes
        V.

    Returns
    -------
    CSR (n, V) float32 of ones.
    """
    there = sentences >= 0
    starts = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
    genes = sentences[there]
    return sparse.csr_matrix((np.ones(len(genes), np.float32), genes, starts), shape=(len(sentences), n_genes))


def draw(
    positives: sparse.csr_matrix, n_negatives: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Put negatives beside the positives of each spot.

    Parameters
    ----------
    positives
        (B, P) overlaps that count.
    n_negatives
        Sets without overlap to draw for each spot, fewer where there are fewer.
    rng
        Source of randomness.

    Returns
    -------
    Sets of each spot, (B, J) int64, positives first, filled up with -1; and their overlaps, 0 for negatives.
    """
    n, n_sets = positives.shape
    counts = np.diff(positives.indptr)
    keys = rng.random((n, n_sets), dtype=np.float32)
    rows = np.repeat(np.arange(n), counts)
    keys[rows, positives.indices] = 2
    n_negatives = min(n_negatives, n_sets)
    drawn = (
        np.argpartition(keys, n_negatives - 1, axis=1)[:, :n_negatives] if n_negatives else np.empty((n, 0), np.int64)
    )
    drawn = np.where(np.take_along_axis(keys, drawn, axis=1) < 2, drawn, -1)
    most = counts.max(initial=0)
    ids = np.full((n, most), -1, dtype=np.int64)
    overlap = np.zeros((n, most + n_negatives), dtype=np.float32)
    place = np.arange(len(rows)) - np.repeat(positives.indptr[:-1], counts)
    ids[rows, place], overlap[rows, place] = positives.indices, positives.data
    return np.concatenate([ids, drawn], axis=1), overlap
