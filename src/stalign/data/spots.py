"""One section made ready for the network: patches cut by index, expression as scores on a gene basis."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.data.expression import Expression, Vocabulary, read_expression
from stalign.data.table import has_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.sections import SectionView
    from stalign.models.batch import Batch
    from stalign.models.config import InputSpec

_STATISTICS_SPOTS = 1000  # spots whose patches give a section's colour mean and spread


@dataclass
class SpotReader:
    """Batches of spots and niches of one section, as the network takes them.

    Parameters
    ----------
    section
        The section.
    spec
        What the weights expect of their input.
    graph
        Niches, CSR (n, n), rows sum to 1.
    valid
        Whether a spot can be embedded, (n,).
    windows
        Spot and niche windows in px of the section's image, (n, 4) each; None without an image.
    expression
        The section's counts; None without counts.
    features
        Precomputed features of frozen encoders, (n, d) each, by branch (`spot_image`, `niche_image`, `spot_gene`,
        `niche_gene`); they stand in for what the branch would read.
    """

    section: SectionView
    spec: InputSpec
    graph: sp.csr_matrix
    valid: NDArray[np.bool_]
    windows: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    expression: Expression | None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    image_mean: NDArray[np.float32] = field(init=False)
    image_std: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.image_mean = np.full(3, 0.5, np.float32)
        self.image_std = np.full(3, 0.25, np.float32)
        if self.windows is None:
            return
        if self.spec.stain != "section":
            self.image_mean = np.asarray(self.spec.mean, np.float32)
            self.image_std = np.asarray(self.spec.std, np.float32)
            return
        rows = np.flatnonzero(self.valid)
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _STATISTICS_SPOTS)).astype(np.intp)]
        pixels = self.patches(rows, level=1, size=16).reshape(-1, 3).astype(np.float32) / 255
        self.image_mean = pixels.mean(0)
        self.image_std = np.maximum(pixels.std(0), 0.02)

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def modality(self) -> str:
        """Which of image and genes the section brings: `both`, `image` or `gene`."""
        if self.windows is None:
            return "gene"
        return "image" if self.expression is None else "both"

    @property
    def dense(self) -> bool:
        """Whether expression goes to the network gene by gene rather than as scores."""
        return self.spec.rank == 0

    def patches(self, rows: NDArray[np.intp], *, level: int, size: int) -> NDArray[np.uint8]:
        """Cut patches.

        Parameters
        ----------
        rows
            Positions of the spots in the section, (b,).
        level
            0 for spots, 1 for niches.
        size
            Edge of a patch after resampling, in px.

        Returns
        -------
        Patches, (b, size, size, 3) uint8.
        """
        if self.windows is None or self.section.image is None:
            msg = message("Expected a section with an image", found=f"none for {self.section.library!r}")
            raise ValueError(msg)
        return self.section.image.patches(self.windows[level][rows], size)

    def batch(
        self, rows: NDArray[np.intp], *, keep: float | None = None, rng: np.random.Generator | None = None
    ) -> Batch:
        """Read a batch of spots with their niches.

        Parameters
        ----------
        rows
            Positions of the spots in the section, (b,).
        keep
            Probability that a count is kept (augmentation in training); None leaves the counts alone.
        rng
            Source of randomness of the thinning.

        Returns
        -------
        The batch, with one section.
        """
        import torch

        from stalign.models.batch import Batch

        parts: dict[str, torch.Tensor | None] = dict.fromkeys(("spot_image", "niche_image", "spot_gene", "niche_gene"))
        if self.windows is not None:
            for level, (branch, size) in enumerate(
                (("spot_image", self.spec.spot_px), ("niche_image", self.spec.niche_px))
            ):
                if branch not in self.features:
                    patches = self.patches(rows, level=level, size=size)
                    parts[branch] = torch.from_numpy(np.ascontiguousarray(patches.transpose(0, 3, 1, 2)))
        basis = gene_valid = None
        if self.expression is not None:
            has_genes = np.asarray(self.graph[rows] @ self.expression.totals) > 0
            gene_valid = None if has_genes.all() else torch.from_numpy(has_genes)
            spot, niche = self._dense(rows) if self.dense else self._scores(rows, keep, rng)
            parts |= {"spot_gene": torch.from_numpy(spot), "niche_gene": torch.from_numpy(niche)}
            if not self.dense:
                basis = torch.from_numpy(self.expression.low_rank.basis)[None]
        parts |= {branch: torch.from_numpy(values[rows]) for branch, values in self.features.items()}
        return Batch(
            **parts,
            basis=basis,
            image_mean=torch.from_numpy(self.image_mean)[None],
            image_std=torch.from_numpy(self.image_std)[None],
            section=torch.zeros(len(rows), dtype=torch.long),
            gene_valid=gene_valid,
        )

    def _dense(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        values = self._expression().values
        return values[rows].toarray(), np.asarray((self.graph[rows] @ values).toarray(), np.float32)

    def _expression(self) -> Expression:
        if self.expression is None:
            msg = message("Expected a section with counts", found=f"none for {self.section.library!r}")
            raise ValueError(msg)
        return self.expression

    def _scores(
        self, rows: NDArray[np.intp], keep: float | None, rng: np.random.Generator | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        expression = self._expression()
        graph = self.graph[rows]
        if keep is None or rng is None:
            return expression.scores[rows], np.asarray(graph @ expression.scores, np.float32)
        # The niche mean commutes with the scores, as these are affine and the rows of the graph sum to 1.
        members, where = np.unique(np.concatenate([rows, graph.indices]), return_inverse=True)
        scores = expression.thinned(members, keep, rng)
        local = sp.csr_matrix((graph.data, where[len(rows) :], graph.indptr), shape=(len(rows), len(members)))
        return scores[where[: len(rows)]], np.asarray(local @ scores, np.float32)


def read_section(
    adata: AnnData,
    section: SectionView,
    spec: InputSpec,
    vocabulary: Vocabulary,
    *,
    graph: sp.csr_matrix | None = None,
    windows: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    image: bool = True,
    genes: bool = True,
    layer: str | None = None,
    total_counts: str | None = None,
    gene_key: str | None = None,
    orthologs: Mapping[str, str] | None = None,
    features: Mapping[str, str] | None = None,
    random_state: int = 0,
) -> SpotReader:
    """Make a section ready for the network.

    Parameters
    ----------
    adata
        The table, with the slots that `pp.niches` and, where there is an image, `pp.patches` write.
    section
        The section.
    spec
        What the weights expect of their input.
    vocabulary
        The genes that the weights know.
    graph
        Niches of the whole table, CSR (n_obs, n_obs); None reads what `pp.niches` wrote.
    windows
        Spot and niche windows of the whole table, (n_obs, 4) each, in px of the section's image; None reads what
        `pp.patches` wrote.
    image, genes
        Whether to use the image and the counts, where they are there.
    features
        obsm key of the precomputed features of each branch that takes some.
    layer, total_counts, gene_key, orthologs, random_state
        See `read_expression`.

    Returns
    -------
    The reader.

    Raises
    ------
    ValueError
        If neither image nor counts are left to embed from.

    Notes
    -----
    An image coarser than `spec.max_mpp` µm per px is not used, and the log says so.
    """
    rows = section.rows
    graph = sp.csr_matrix(adata.obsp[Keys.NICHE_GRAPH] if graph is None else graph)[rows][:, rows]
    valid = np.asarray(np.isfinite(section.coords).all(axis=1), dtype=bool)
    own = None
    if image and section.image is not None:
        if section.image.mpp > spec.max_mpp:
            logger.warning(
                "The image of %r has %.1f µm per px, coarser than the %.1f µm per px that the weights can use: "
                "embedding from genes alone.",
                section.library,
                section.image.mpp,
                spec.max_mpp,
            )
        else:
            if windows is None:
                windows = (adata.obsm[Keys.SPOT_WINDOW], adata.obsm[Keys.NICHE_WINDOW])
            own = (np.asarray(windows[0], np.float64)[rows], np.asarray(windows[1], np.float64)[rows])
            valid = valid & np.isfinite(own[0]).all(axis=1) & np.isfinite(own[1]).all(axis=1)
    expression = None
    if genes and has_counts(adata, layer=layer):
        expression = read_expression(
            adata,
            rows,
            graph,
            valid,
            spec,
            vocabulary,
            layer=layer,
            total_counts=total_counts,
            gene_key=gene_key,
            orthologs=orthologs,
            random_state=random_state,
        )
        if own is None:
            valid = valid & (np.asarray(graph @ expression.totals) > 0)
    if own is None and expression is None:
        why = "the image is too coarse or was left out" if section.image is not None else "there is no image"
        msg = message(
            f"Expected an image or counts for section {section.library!r}",
            found=f"neither: {why}, and there are no counts",
            hint="Put raw counts in `.X` (or name their `layer`), or an image of at most "
            f"{spec.max_mpp:g} µm per px in `uns['spatial']`",
        )
        raise ValueError(msg)
    arrays = {}
    for branch, key in (features or {}).items():
        if key not in adata.obsm:
            raise KeyError(
                message(
                    f"Expected features of {branch} in obsm",
                    found=repr(key),
                    available=adata.obsm.keys(),
                    hint="Write them with `tl.encode`",
                )
            )
        arrays[branch] = np.asarray(adata.obsm[key], np.float32)[rows]
        valid = valid & np.isfinite(arrays[branch]).all(axis=1)
    return SpotReader(section, spec, graph, valid, own, expression, arrays)


def stack(batches: Sequence[Batch]) -> Batch:
    """Join batches of several sections into one.

    Parameters
    ----------
    batches
        Batches of one section each; a modality that one of them lacks is filled with zeros there and marked in
        `image_valid` or `gene_valid`, and ranks of the gene bases are padded with zeros.

    Returns
    -------
    The batch, whose `section` counts through the sections in order.
    """
    import torch

    from stalign.models.batch import Batch

    sizes = [len(b.section) for b in batches]
    rank = max((b.basis.shape[1] for b in batches if b.basis is not None), default=0)

    def join(name: str, *, width: int | None = None) -> torch.Tensor | None:
        parts = [getattr(b, name) for b in batches]
        given = [part for part in parts if part is not None]
        if not given:
            return None
        per_section = name in ("basis", "image_mean", "image_std")
        lengths = [1] * len(batches) if per_section else sizes
        full = []
        for part, length in zip(parts, lengths, strict=True):
            shape = list(given[0].shape)
            shape[0] = length
            if part is None:
                part = given[0].new_zeros(shape)
            if width is not None and part.shape[1] < width:
                shape = [part.shape[0], width - part.shape[1], *part.shape[2:]]
                part = torch.cat([part, part.new_zeros(shape)], dim=1)
            full.append(part)
        return torch.cat(full)

    def valid(name: str, mask: str) -> torch.Tensor | None:
        masks = []
        for b, size in zip(batches, sizes, strict=True):
            own = getattr(b, mask)
            if getattr(b, name) is None:
                own = torch.zeros(size, dtype=torch.bool)
            masks.append(torch.ones(size, dtype=torch.bool) if own is None else own)
        joined = torch.cat(masks)
        return None if bool(joined.all()) else joined

    return Batch(
        spot_image=join("spot_image"),
        niche_image=join("niche_image"),
        image_mean=join("image_mean"),
        image_std=join("image_std"),
        spot_gene=join("spot_gene", width=rank or None),
        niche_gene=join("niche_gene", width=rank or None),
        basis=join("basis", width=rank or None),
        section=torch.cat([b.section + index for index, b in enumerate(batches)]),
        image_valid=valid("spot_image", "image_valid"),
        gene_valid=valid("spot_gene", "gene_valid"),
    )
