"""One section made ready for the network: patches cut by index, expression as scores on a gene basis."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from stalign._settings import logger
from stalign._validate import message
from stalign.core.niches import Niche
from stalign.data.coarse import CoarseImage
from stalign.data.counts import CountKeys
from stalign.data.expression import read_expression
from stalign.data.table import has_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from stalign.data.expression import Expression
    from stalign.data.images import SectionImage
    from stalign.data.section import Section
    from stalign.data.vocabulary import Vocabulary
    from stalign.models.batch import Batch
    from stalign.models.config import InputSpec

_STATISTICS_SPOTS = 1000  # spots whose patches give a section's colour mean and spread
_LEVELS = ("spot", "niche")


@dataclass
class SpotReader:
    """Batches of spots and niches of one section, as the network takes them.

    Parameters
    ----------
    name
        Name of the section.
    coords
        Positions of its spots, (n, 2), x and y in coordinate px; NaN where there is none.
    image
        Its image, or None.
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
    coarse
        Places of which the niche's image is encoded, to interpolate between them; None to encode it of each spot.
    """

    name: str
    coords: NDArray[np.float64]
    image: SectionImage | None
    spec: InputSpec
    graph: sp.csr_matrix
    valid: NDArray[np.bool_]
    windows: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    expression: Expression | None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    coarse: CoarseImage | None = None
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
        if len(rows) == 0:
            return
        rows = rows[np.lexsort(self.coords[rows].T)]  # by position: the order of the spots must not matter
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _STATISTICS_SPOTS)).astype(np.intp)]
        pixels = self.patches(rows, level=1, size=16).reshape(-1, 3)
        self.image_mean = (pixels.mean(0, dtype=np.float64) / 255).astype(np.float32)
        self.image_std = np.maximum(pixels.std(0, dtype=np.float64) / 255, 0.02).astype(np.float32)

    def __len__(self) -> int:
        return len(self.valid)

    @property
    def modality(self) -> str:
        """Which of image and genes the section brings: `both`, `image` or `gene`."""
        image = self.windows is not None or any(branch.endswith("image") for branch in self.features)
        gene = self.expression is not None or any(branch.endswith("gene") for branch in self.features)
        return "both" if image and gene else "image" if image else "gene"

    @property
    def dense(self) -> bool:
        """Whether expression goes to the network gene by gene rather than as scores."""
        return self.spec.rank == 0

    @property
    def basis(self) -> NDArray[np.float32] | None:
        """The gene basis of the scores, (rank, n_genes); None where there are none."""
        return None if self.expression is None or self.dense else self.expression.low_rank.basis

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
        if self.windows is None or self.image is None:
            msg = message("Expected a section with an image", found=f"none for {self.name!r}")
            raise ValueError(msg)
        return self.image.patches(self.windows[level][rows], size)

    def order(self) -> NDArray[np.intp]:
        """Get the spots that can be embedded, in the order in which their image is best read.

        Returns
        -------
        Positions in the section, (n_valid,).
        """
        rows = np.flatnonzero(self.valid)
        if self.windows is None or self.image is None:
            return rows
        return rows[self.image.reading_order(self.windows[1][rows])]

    def batch(
        self,
        rows: NDArray[np.intp],
        *,
        levels: Sequence[str] = _LEVELS,
        keep: float | None = None,
        rng: np.random.Generator | None = None,
    ) -> Batch:
        """Read a batch of spots with their niches.

        Parameters
        ----------
        rows
            Positions of the spots in the section, (b,).
        levels
            What to read: `spot`, `niche` or both.
        keep
            Probability that a count is kept (augmentation in training); None leaves the counts alone. Expression that
            goes to the network gene by gene is not thinned.
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
            for name, size in (("spot", self.spec.spot_px), ("niche", self.spec.niche_px)):
                branch = f"{name}_image"
                if name in levels and name == "niche" and self.coarse is not None:
                    parts[branch] = torch.from_numpy(self.coarse.tokens_of(rows))
                elif name in levels and branch not in self.features:
                    patches = self.patches(rows, level=_LEVELS.index(name), size=size)
                    parts[branch] = torch.from_numpy(patches).permute(0, 3, 1, 2)  # channels last, which is faster
        gene_valid = None
        if self.expression is not None:
            has_genes = self.expression.has_niche[rows]
            gene_valid = None if has_genes.all() else torch.from_numpy(has_genes)
            pair = self._dense(rows) if self.dense else self._scores(rows, keep, rng)
            parts |= {f"{name}_gene": torch.from_numpy(pair[_LEVELS.index(name)]) for name in levels}
        parts |= {
            branch: torch.from_numpy(values[rows])
            for branch, values in self.features.items()
            if branch.split("_")[0] in levels
        }
        return Batch(
            **parts,
            basis=None if self.basis is None else torch.from_numpy(self.basis)[None],
            image_mean=torch.from_numpy(self.image_mean)[None],
            image_std=torch.from_numpy(self.image_std)[None],
            section=torch.zeros(len(rows), dtype=torch.long),
            gene_valid=gene_valid,
        )

    def without_counts(self) -> SpotReader:
        """Let go of the counts and their niches, as scores are all that batches need unless counts are thinned.

        Returns
        -------
        A reader that gives the same batches for embedding.
        """
        light = copy.copy(self)
        if self.expression is not None and not self.dense:
            light.expression = replace(self.expression, counts=None, graph=None)
        return light

    def image_batch(self, windows: NDArray[np.float64], *, level: str) -> Batch:
        """Read a batch of images from anywhere in the section.

        Parameters
        ----------
        windows
            (b, 4) x0 y0 x1 y1 in px of the section's image.
        level
            `spot` or `niche`, whose size the patches take.

        Returns
        -------
        The batch, with one section and no genes.
        """
        import torch

        from stalign.models.batch import Batch

        if self.image is None:
            raise ValueError(message("Expected a section with an image", found=f"none for {self.name!r}"))
        size = self.spec.spot_px if level == "spot" else self.spec.niche_px
        patches = torch.from_numpy(self.image.patches(windows, size)).permute(0, 3, 1, 2)
        return Batch(
            section=torch.zeros(len(windows), dtype=torch.long),
            image_mean=torch.from_numpy(self.image_mean)[None],
            image_std=torch.from_numpy(self.image_std)[None],
            **{f"{level}_image": patches},
        )

    def _dense(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        expression = self._expression()
        members, own, local = _members(expression.niches(rows), rows)
        values, niches = expression.dense(members, local)
        return values[own], niches

    def _expression(self) -> Expression:
        if self.expression is None:
            msg = message("Expected a section with counts", found=f"none for {self.name!r}")
            raise ValueError(msg)
        return self.expression

    def _scores(
        self, rows: NDArray[np.intp], keep: float | None, rng: np.random.Generator | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        expression = self._expression()
        if keep is None or rng is None:
            return expression.scores[rows], expression.niche_scores[rows]
        members, own, local = _members(expression.niches(rows, rng), rows)
        scores, niches = expression.thinned(members, local, keep, rng)
        return scores[own], niches


def _members(graph: sp.csr_matrix, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp], sp.csr_matrix]:
    """Spots of niches (b, n) or their own spots (m,), where these own ones are (b,), and the niches, CSR (b, m)."""
    members, where = np.unique(np.concatenate([rows, graph.indices]), return_inverse=True)
    shape = len(rows), len(members)
    return members, where[: len(rows)], sp.csr_matrix((graph.data, where[len(rows) :], graph.indptr), shape=shape)


def read_section(
    section: Section,
    spec: InputSpec,
    vocabulary: Vocabulary,
    *,
    keys: CountKeys = CountKeys(),  # noqa: B008 (frozen)
    image: bool = True,
    genes: bool = True,
    features: Mapping[str, NDArray[np.floating]] | None = None,
    image_step: float | None = None,
    random_state: int = 0,
) -> SpotReader:
    """Make a section ready for the network.

    Parameters
    ----------
    section
        The section.
    spec
        What the weights expect of their input.
    vocabulary
        The genes that the weights know.
    keys
        Where the counts are.
    image, genes
        Whether to use the image and the counts, or features of them, where they are there.
    features
        Precomputed features of each branch that takes some, (n, d) each.
    image_step
        Distance in µm between the places of which the image of niches is encoded, to interpolate between them, where
        niches have windows of one width; None to encode it of each spot.
    random_state
        Seed of the subsample that the gene basis is fitted to.

    Returns
    -------
    The reader.

    Raises
    ------
    KeyError
        If a layer or a column does not exist.
    ValueError
        If neither image nor counts are left to embed from, counts are negative or no gene is known.

    Notes
    -----
    An image coarser than `spec.max_mpp` µm per px is not used, and the log says so. A section whose spots have no
    counts at all is embedded from its image, if there is one.
    """
    niche = niche_for(spec)
    graph = section.niches(niche)
    valid = section.valid.copy()
    arrays = {
        branch: np.asarray(values, np.float32)
        for branch, values in (features or {}).items()
        if (image if branch.endswith("image") else genes)
    }
    windows = coarse = None
    if image and section.image is not None and _fine_enough(section, spec):
        width = [
            section.window_um(level, spot_um=spec.spot_um, niche_um=spec.niche_um, fixed=spec.fixed_windows)
            for level in _LEVELS
        ]
        spots, niches = (section.windows(level, niche, width_um=um) for level, um in zip(_LEVELS, width, strict=True))
        windows = (spots.astype(np.float64), niches.astype(np.float64))
        valid &= np.isfinite(windows[0]).all(axis=1) & np.isfinite(windows[1]).all(axis=1)
        if image_step is not None and "niche_image" not in arrays:
            coarse = CoarseImage.of(section, width[1], image_step)
    expression = None
    if genes and has_counts(section.table, layer=keys.layer):
        counts = section.counts(vocabulary, keys)
        if windows is None or (counts.totals[valid] > 0).any():
            expression = read_expression(counts, section, graph, valid, spec, random_state=random_state)
        else:
            logger.warning("Section %r has no counts: embedding from its image alone.", section.name)
    if expression is not None and windows is None:
        valid &= expression.has_niche
    if windows is None and expression is None and not arrays:
        why = "the image is too coarse or was left out" if section.image is not None else "there is no image"
        raise ValueError(
            message(
                f"Expected an image or counts for section {section.name!r}",
                found=f"neither: {why}, and there are no counts",
                hint="Put raw counts in `.X` (or name their `layer`), or an image of at most "
                f"{spec.max_mpp:g} µm per px in `uns['spatial']`",
            )
        )
    for values in arrays.values():
        valid &= np.isfinite(values).all(axis=1)
    placed = section.name, section.coords, section.image
    return SpotReader(*placed, spec, graph, valid, windows, expression, arrays, coarse)


def niche_for(spec: InputSpec) -> Niche:
    """Tell what makes a niche for some weights.

    Parameters
    ----------
    spec
        What the weights expect of their input.

    Returns
    -------
    What makes a niche.
    """
    return Niche(spec.n_neighbors, spec.include_self)


def _fine_enough(section: Section, spec: InputSpec) -> bool:
    if section.image is None or not section.image.mpp > spec.max_mpp:
        return True
    logger.warning(
        "The image of %r has %.1f µm per px, coarser than the %.1f µm per px that the weights can use: "
        "embedding from genes alone.",
        section.name,
        section.image.mpp,
        spec.max_mpp,
    )
    return False
