"""Pairs of patches and expression for the CLIP baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stalign._validate import message
from stalign.data import gene_ids, open_sections, read_counts, table_of
from stalign.train.source import StepData, StepPlans

if TYPE_CHECKING:
    from collections.abc import Sequence

    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data.images import SectionImage
    from stalign.encoders.vision import ImageEncoder

PUBLISHED_GENES = {"overlap": 100, "hvg": 128}


@dataclass
class Pairs:
    """Spots of several sections, each with a window and expression.

    Parameters
    ----------
    images
        The image of each section.
    section
        Section of each spot, (n,).
    windows
        Window of each spot in px of its section's image, (n, 4).
    expression
        Log-normalised expression, (n, n_genes) float32.
    genes
        Names of the columns; for genes that differ between sections, of their ranks.
    size
        Side of the patches, px.
    """

    images: list[SectionImage]
    section: NDArray[np.intp]
    windows: NDArray[np.float64]
    expression: NDArray[np.float32]
    genes: list[str]
    size: int
    n_genes: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_genes = len(self.genes)

    def __len__(self) -> int:
        return len(self.section)

    def patches(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Cut patches.

        Parameters
        ----------
        rows
            Which spots, (b,).

        Returns
        -------
        (b, size, size, 3) uint8.
        """
        out = np.empty((len(rows), self.size, self.size, 3), dtype=np.uint8)
        for i, image in enumerate(self.images):
            here = np.flatnonzero(self.section[rows] == i)
            if len(here):
                out[here] = image.patches(self.windows[rows[here]], self.size)
        return out


def read_pairs(
    data: Sequence[AnnData | SpatialData],
    *,
    genes: str,
    n_genes: int,
    level: str,
    size: int,
    library_key: str | None = None,
    layer: str | None = None,
) -> Pairs:
    """Read sections.

    Parameters
    ----------
    data
        AnnData or SpatialData objects with images and raw counts.
    genes
        `overlap` or `hvg`; see `ClipConfig`.
    n_genes
        How many; 0 for the published numbers.
    level
        `spot` or `niche`, for the patches; expression is the spot's own.
    size
        Side of the patches, px.
    library_key
        Column of obs that tells sections apart.
    layer
        Layer of the raw counts.

    Returns
    -------
    The pairs.

    Raises
    ------
    ValueError
        If no section has spots with image and counts, or too few genes are shared.
    """
    images, windows, counts, names = [], [], [], []
    for one in data:
        table = table_of(one)
        matrix, _ = read_counts(table, layer=layer)
        ids, _ = gene_ids(table)
        for one_section in open_sections(one, library_key=library_key):
            given = one_section.windows(level)
            kept = np.isfinite(given).all(axis=1) & (np.asarray(matrix[one_section.rows].sum(axis=1)).ravel() > 0)
            if one_section.image is not None and kept.any():
                images.append(one_section.image)
                windows.append(given[kept].astype(np.float64))
                counts.append(matrix[one_section.rows[kept]])
                names.append(ids)
    if not images:
        raise ValueError(message("Expected sections with spots that have an image and counts", found="none"))
    n_genes = n_genes or PUBLISHED_GENES[genes]
    choose = _own_genes if genes == "hvg" else _shared_genes
    parts, columns = choose(counts, names, n_genes)
    section = np.repeat(np.arange(len(images)), [len(part) for part in windows])
    return Pairs(images, section, np.concatenate(windows), np.concatenate(parts), columns, size)


@dataclass(frozen=True)
class PairStep:
    """Spots of one step: normalised images (b, 3, H, W) and expression (b, n_genes)."""

    images: Tensor
    genes: Tensor
    sections: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.genes)

    def to(self, device: torch.device, *, non_blocking: bool = False) -> PairStep:
        """Return a copy on a device."""
        images, genes = (part.to(device, non_blocking=non_blocking) for part in (self.images, self.genes))
        return PairStep(images, genes)


class PairSteps(Dataset[PairStep]):
    """Images and expression of the spots that a plan names."""

    def __init__(self, pairs: Pairs, encoder: ImageEncoder) -> None:
        self.pairs, self.encoder = pairs, encoder

    def __getitem__(self, rows: NDArray[np.intp]) -> PairStep:
        return PairStep(self.encoder.prepare(self.pairs.patches(rows)), torch.from_numpy(self.pairs.expression[rows]))


class PairOrders(StepPlans["NDArray[np.intp]"]):
    """All spots in another order each epoch; a last one alone, which has no negatives, is left out."""

    def __init__(self, n: int, batch_size: int, seed: int) -> None:
        self.n, self.batch_size, self.seed = n, batch_size, seed

    @property
    def steps_per_epoch(self) -> int:
        """Steps that read everything once."""
        return len(range(0, self.n - 1, self.batch_size))

    def plan(self, step: int) -> NDArray[np.intp]:
        """Say which spots a step reads."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
        return order[index * self.batch_size :][: self.batch_size]


class PairData(StepData):
    """The batches of a run."""

    def __init__(self, dataset: PairSteps, orders: PairOrders, steps: int) -> None:
        super().__init__(steps=steps)
        self.dataset, self.orders = dataset, orders

    def training(self, rank: int, world: int) -> tuple[PairSteps, PairOrders]:
        """Return what to train on."""
        return self.dataset, self.orders


def _table(counts: sp.csr_matrix) -> Any:
    import scanpy as sc

    return sc.AnnData(counts.astype(np.float32).copy())


def _normalised(table: Any) -> Any:
    import scanpy as sc

    sc.pp.normalize_total(table)
    sc.pp.log1p(table)
    return table


def _own_genes(
    counts: list[sp.csr_matrix], names: list[list[str]], n_genes: int
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """Each section's most variable genes by Pearson residuals, by rank."""
    import scanpy as sc

    fewest = min(matrix.shape[1] for matrix in counts)
    if fewest < n_genes:
        raise ValueError(message(f"Expected at least {n_genes} genes in every section", found=fewest))
    parts = []
    for matrix in counts:
        table = _table(matrix)
        sc.experimental.pp.highly_variable_genes(table, n_top_genes=n_genes, flavor="pearson_residuals")
        best = np.argsort(table.var["highly_variable_rank"].to_numpy())[:n_genes]  # NaN, not variable, comes last
        parts.append(np.asarray(_normalised(table).X[:, best].todense(), dtype=np.float32))
    del names
    return parts, [f"rank {i + 1}" for i in range(n_genes)]


def _shared_genes(
    counts: list[sp.csr_matrix], names: list[list[str]], n_genes: int
) -> tuple[list[NDArray[np.float32]], list[str]]:
    """The most variable of the genes that all sections have."""
    import scanpy as sc
    import scipy.sparse as sp

    shared = sorted(set.intersection(*(set(ids) for ids in names)))
    if len(shared) < n_genes:
        raise ValueError(message(f"Expected at least {n_genes} genes in all sections", found=len(shared)))
    places = [{gene: i for i, gene in reversed(list(enumerate(ids)))} for ids in names]
    together = sp.vstack([matrix[:, [at[g] for g in shared]] for matrix, at in zip(counts, places, strict=True)])
    table = _normalised(_table(together.tocsr()))
    sc.pp.highly_variable_genes(table, n_top_genes=n_genes)
    kept = table.var["highly_variable"].to_numpy()
    dense = np.asarray(table.X[:, kept].todense(), dtype=np.float32)
    ends = np.cumsum([matrix.shape[0] for matrix in counts])[:-1]
    return np.split(dense, ends), [gene for gene, keep in zip(shared, kept, strict=True) if keep]
