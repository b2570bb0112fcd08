"""A simulated Visium HD section: cells with transcripts around them, counted in bins or per cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from stalign._constants import Keys
from stalign._validate import message
from stalign.datasets import _toy_genes, _toy_image
from stalign.datasets._toy import loadings

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

DOMAINS = ("D1", "D2", "D3", "D4", "D5", "D6")
MPP = 0.5  # µm per px of the full-resolution image
IMAGE_MPP = 1.0  # µm per px of the hires image
NUCLEUS = 0.6  # radius of a nucleus over that of its cell
_PROGRAMMES = ("L1", "L2/3", "L4", "L5/6", "WM", "vessel")  # of the cells that are typical of each domain
_SPACING = 10.0  # µm between cells
_RADIUS = 4.6  # µm
_SPREAD = 3.0  # µm, standard deviation of transcripts around the centre of their cell
_OWN = 0.65  # share of the cells of a domain that are typical of it; the others are of any kind
_GAP = 90.0  # µm, about the distance between gaps in the tissue
_SQUARE = 8.0  # µm, the bins that the share of empty ones is meant for
_TILT = np.deg2rad(0.5)  # of the array against the image
_MARGIN = 40.0  # µm of glass around the array
_TEXTURES = (
    _toy_image.Texture(density=0, radius=2.4, elongation=1.3, eosin=0.34, fibres=0.25),
    _toy_image.Texture(density=0, radius=3.0, elongation=1.2, eosin=0.40, fibres=0.10),
    _toy_image.Texture(density=0, radius=2.6, elongation=1.1, eosin=0.46, fibres=0.06),
    _toy_image.Texture(density=0, radius=3.3, elongation=1.5, eosin=0.43, fibres=0.14),
    _toy_image.Texture(density=0, radius=2.3, elongation=2.0, eosin=0.60, fibres=0.60),
    _toy_image.Texture(density=0, radius=2.8, elongation=1.7, eosin=0.52, fibres=0.40),
)


@dataclass(frozen=True)
class Tissue:
    """Cells and transcripts of a section; lengths in µm along the rows and columns of the array.

    Parameters
    ----------
    side
        Edge of the array.
    centres, radius
        (n_cells, 2) x and y, and (n_cells,).
    at
        (n_transcripts, 2) x and y.
    gene, cell
        Gene and cell of each transcript, (n_transcripts,).
    genes
        Symbols.
    seeds, kinds
        (m, 2) middles of the patches of tissue and the domain of each, (m,).
    """

    side: float
    centres: np.ndarray
    radius: np.ndarray
    at: np.ndarray
    gene: np.ndarray
    cell: np.ndarray
    genes: list[str]
    seeds: np.ndarray
    kinds: np.ndarray

    def domain(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Index of the domain, -1 outside the tissue."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        u, v = 2 * x / self.side - 1, 2 * y / self.side - 1
        inside = (np.abs(u) ** 5 + np.abs(v) ** 5) ** 0.2 < 0.95 + 0.03 * np.sin(5 * np.arctan2(v, u))
        warp = 12 * np.sin(y / 31.0), 12 * np.sin(x / 27.0)
        nearest = KDTree(self.seeds).query(np.stack([x + warp[0], y + warp[1]], axis=-1))[1]
        return np.where(inside, self.kinds[nearest], -1)

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Convert (..., 2) x and y on the array to px of the full-resolution image, against which it is turned."""
        u, v = (points[..., axis] - self.side / 2 for axis in (0, 1))
        turned = np.stack([u * np.cos(_TILT) - v * np.sin(_TILT), u * np.sin(_TILT) + v * np.cos(_TILT)], axis=-1)
        return (turned + self.side / 2 + _MARGIN) / MPP

    def on_array(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Convert x and y in µm on the image to those on the array."""
        u, v = (np.asarray(value, dtype=np.float64) - _MARGIN - self.side / 2 for value in (x, y))
        back = u * np.cos(_TILT) + v * np.sin(_TILT), v * np.cos(_TILT) - u * np.sin(_TILT)
        return back[0] + self.side / 2, back[1] + self.side / 2

    def picture(self, seed: int, mpp: float) -> np.ndarray:
        """Draw the section, (height, width, 3) uint8."""
        size = int(np.ceil((self.side + 2 * _MARGIN) / mpp))

        def wave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            return 0.8 * np.sin(np.asarray(x) / 110.0) + 0.8 * np.cos(np.asarray(y) / 130.0)

        return _toy_image.draw(
            np.random.default_rng([seed, 2]),
            (size, size),
            mpp,
            domain=lambda x, y: self.domain(*self.on_array(x, y)),
            angle=wave,
            along=lambda x, y: np.asarray(x) * np.sin(wave(x, y)) + np.asarray(y) * np.cos(wave(x, y)),
            stain=np.ones(2),
            textures=_TEXTURES,
            cells=self.pixels(self.centres) * MPP,
        )

    def bins(self, bin_um: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, csr_matrix]:
        """Rows, columns, domains and counts (n, n_genes) of the bins in tissue, by row and column of the array."""
        from scipy import sparse

        count = int(round(self.side / bin_um))
        row, column = (index.ravel() for index in np.mgrid[:count, :count])
        domain = self.domain((column + 0.5) * bin_um, (row + 0.5) * bin_um)
        cell = np.floor(self.at / bin_um).astype(np.intp)
        inside = ((cell >= 0) & (cell < count)).all(axis=1)
        where = cell[inside, 1] * count + cell[inside, 0]
        ones = np.ones(len(where), dtype=np.int32)
        counts = sparse.csr_matrix((ones, (where, self.gene[inside])), shape=(count**2, len(self.genes)))
        kept = domain >= 0
        return row[kept], column[kept], domain[kept], counts[kept]

    def cells(self) -> csr_matrix:
        """Counts of the cells, (n_cells, n_genes): those of their own transcripts that lie in them."""
        from scipy import sparse

        own = np.square(self.at - self.centres[self.cell]).sum(axis=1) < np.square(self.radius[self.cell])
        ones = np.ones(int(own.sum()), dtype=np.int32)
        shape = len(self.centres), len(self.genes)
        return sparse.csr_matrix((ones, (self.cell[own], self.gene[own])), shape=shape)


def simulate(side: float, seed: int, *, empty: float, depth: float, domain_um: float) -> Tissue:
    """Simulate cells and transcripts; see `toy_hd`."""
    rng = np.random.default_rng([seed, 1])
    patches = max(len(DOMAINS), round((side / domain_um) ** 2))
    seeds = rng.uniform(0, side, (8 * patches, 2))
    for _ in range(4):  # evenly spread
        around = rng.uniform(0, side, (200 * patches, 2))
        seeds = seeds[:patches]
        nearest = KDTree(seeds).query(around)[1]
        weight = np.bincount(nearest, minlength=patches)
        seeds = np.column_stack([np.bincount(nearest, around[:, i], minlength=patches) / weight for i in (0, 1)])
    kinds = np.concatenate([rng.permutation(len(DOMAINS)) for _ in range(-(-patches // len(DOMAINS)))])[:patches]
    genes = _toy_genes.symbols()
    nothing = np.zeros(0, dtype=np.intp)
    tissue = Tissue(side, np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2)), nothing, nothing, genes, seeds, kinds)

    y, x = np.mgrid[0 : side : _SPACING * np.sqrt(3) / 2, 0:side:_SPACING]
    x = x + (np.arange(len(x)) % 2)[:, None] * _SPACING / 2
    centres = np.column_stack([x.ravel(), y.ravel()]) + rng.normal(0, 0.18 * _SPACING, (x.size, 2))
    domain = tissue.domain(*centres.T)
    centres, domain = centres[domain >= 0], domain[domain >= 0]
    n = len(centres)
    other = rng.integers(len(DOMAINS), size=n)
    kind = np.where(rng.random(n) < _OWN, domain, other)
    weights, base = loadings(np.random.default_rng([seed, 1_000_003]), genes)
    programmes = list(_toy_genes.PROGRAMMES)
    activity = np.zeros((n, len(programmes)))
    activity[np.arange(n), np.array([programmes.index(name) for name in _PROGRAMMES])[kind]] = 1.0
    activity += rng.normal(0, 0.25, activity.shape)
    total = depth * rng.lognormal(-0.18, 0.6, n)

    cell, gene = [], []
    for start in range(0, n, 8192):
        rate = np.exp(base + activity[start : start + 8192] @ weights)
        rate *= (total[start : start + 8192] / rate.sum(axis=1))[:, None]
        counts = rng.poisson(rate.astype(np.float32))
        where = np.nonzero(counts)
        times = counts[where]
        cell.append(np.repeat(where[0] + start, times))
        gene.append(np.repeat(where[1], times))
    of, which = np.concatenate(cell), np.concatenate(gene)
    at = centres[of] + rng.normal(0, _SPREAD, (len(of), 2))

    # Cells are missing in gaps and here and there, so that as many bins of 8 µm hold no transcript as were asked for.
    count = int(round(side / _SQUARE))
    row, column = np.mgrid[:count, :count]
    place = np.floor(at / _SQUARE).astype(np.intp)
    inside = ((place >= 0) & (place < count)).all(axis=1)
    wave = rng.normal(0, 2 * np.pi / _GAP, (2, 60))
    order = np.cos(centres @ wave + rng.uniform(0, 2 * np.pi, 60)).mean(axis=1) + rng.normal(0, 0.03, n)
    first = np.full(count**2, np.inf)
    np.minimum.at(first, place[inside, 1] * count + place[inside, 0], order[of[inside]])
    first = first[tissue.domain((column + 0.5) * _SQUARE, (row + 0.5) * _SQUARE).ravel() >= 0]
    present = order <= np.sort(first)[min(int((1 - empty) * len(first)), len(first) - 1)]
    new = np.cumsum(present) - 1
    kept = present[of]
    radius = _RADIUS * rng.lognormal(0, 0.12, n)[present]
    return Tissue(side, centres[present], radius, at[kept], which[kept], new[of[kept]], genes, seeds, kinds)


def toy_hd(
    bin_um: int = 8,
    *,
    cells: bool = False,
    side_um: float = 736.0,
    seed: int = 0,
    empty: float = 0.3,
    depth: float = 60.0,
    domain_um: float = 240.0,
    image: bool = True,
    spatialdata: bool = False,
) -> Any:
    """Simulate a Visium HD section, in square bins or segmented cells, with an H&E-like image.

    Cells lie about 10 µm apart. Six domains (`D1` to `D6`) form patches of tissue; they differ in the look of the image
    and in their cells, two in three of which are of the kind typical of the domain and the others of any. Each cell has
    some tens of transcripts, scattered around it, and there are gaps without cells, so that many bins hold no
    transcript, most hold few, and a single bin says little of its domain. One seed gives one section, whatever it is
    counted in.

    Parameters
    ----------
    bin_um
        Edge of the bins in µm, such as 2, 8 or 16.
    cells
        Whether to count transcripts in cells instead of bins.
    side_um
        Edge of the array in µm, a multiple of the bins; 736 µm have about 7,600 bins of 8 µm in tissue.
    seed
        Seed of everything that is drawn.
    empty
        Share of the 8-µm bins in tissue that hold no transcript, from 0 to 1. Below a few per cent it is not reached.
    depth
        Transcripts of a cell on average.
    domain_um
        About the width of a patch of tissue in µm.
    image
        Whether to draw the image, 1 µm per px.
    spatialdata
        Whether to return a SpatialData with image, squares or polygons, and table, named as spatialdata-io does.

    Returns
    -------
    AnnData, bins or cells x genes, or SpatialData:

    - `X`: raw counts, CSR int32; bins in tissue without counts are there.
    - `obs["domain"]`: the true domain, categorical. Of bins also `obs["array_row"]`, `obs["array_col"]`,
      `obs["in_tissue"]`, int64.
    - `obsm["spatial"]`: (n, 2) float64, x and y of the centres in px of the full-resolution image (0.5 µm per px).
    - `uns["spatial"]["toy_hd"]`: `images["hires"]` (height, width, 3) uint8, `scalefactors` with `microns_per_pixel`
      and, of bins, `bin_size_um`, and `metadata`.

    Raises
    ------
    ValueError
        If `side_um` is below 200 µm or no multiple of `bin_um`, or `empty` is no share.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.toy_hd(16, side_um=320)
    >>> adata.uns["spatial"]["toy_hd"]["scalefactors"]["bin_size_um"]
    16.0
    >>> st.datasets.toy_hd(cells=True, side_um=320).obs_names[0]
    'cellid_000000001-1'
    """
    tissue = checked(bin_um, side_um, seed, empty=empty, depth=depth, domain_um=domain_um)
    adata = cell_table(tissue) if cells else bin_table(tissue, bin_um)
    if image:
        adata.uns[Keys.UNS_SPATIAL]["toy_hd"]["images"]["hires"] = tissue.picture(seed, IMAGE_MPP)
    if not spatialdata:
        return adata
    from stalign.datasets._toy_spatialdata import hd_to_spatialdata

    return hd_to_spatialdata(adata, outlines(tissue, 1.0) if cells else None)


def checked(bin_um: float, side_um: float, seed: int, *, empty: float, depth: float, domain_um: float) -> Tissue:
    """Check the arguments of `toy_hd` and simulate."""
    if not (bin_um > 0 and side_um >= 200 and abs(side_um / bin_um - round(side_um / bin_um)) < 1e-9):
        found = f"{side_um:g} µm with bins of {bin_um:g} µm"
        raise ValueError(message("Expected `side_um` of at least 200 and a multiple of `bin_um`", found=found))
    if not 0 <= empty < 1:
        raise ValueError(message("Expected `empty` to be a share from 0 to below 1", found=empty))
    return simulate(float(side_um), seed, empty=empty, depth=depth, domain_um=domain_um)


def bin_table(tissue: Tissue, bin_um: int) -> AnnData:
    """Count bins, without an image."""
    row, column, domain, counts = tissue.bins(bin_um)
    names = [f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
    array = {"in_tissue": np.ones(len(row), dtype=np.int64), "array_row": row, "array_col": column}
    centres = np.column_stack([column + 0.5, row + 0.5]) * bin_um
    factors = {"bin_size_um": float(bin_um), "spot_diameter_fullres": bin_um / MPP}
    return _table(tissue, counts, names, domain, centres, array, factors)


def cell_table(tissue: Tissue) -> AnnData:
    """Count cells, without an image."""
    names = [f"cellid_{number + 1:09d}-1" for number in range(len(tissue.centres))]
    return _table(tissue, tissue.cells(), names, tissue.domain(*tissue.centres.T), tissue.centres, {}, {})


def _table(
    tissue: Tissue,
    counts: csr_matrix,
    names: list[str],
    domain: np.ndarray,
    centres: np.ndarray,
    array: dict[str, np.ndarray],
    factors: dict[str, float],
) -> AnnData:
    import pandas as pd
    from anndata import AnnData

    labels = pd.Categorical.from_codes(domain, categories=list(DOMAINS))
    adata = AnnData(
        counts, obs=pd.DataFrame({**array, "domain": labels}, index=names), var=pd.DataFrame(index=tissue.genes)
    )
    adata.obsm[Keys.SPATIAL] = tissue.pixels(centres)
    factors = {"microns_per_pixel": MPP, "tissue_hires_scalef": MPP / IMAGE_MPP, **factors}
    metadata = {"chemistry_description": "simulated", "software_version": "stalign.datasets.toy_hd"}
    adata.uns[Keys.UNS_SPATIAL] = {"toy_hd": {"images": {}, "scalefactors": factors, "metadata": metadata}}
    return adata


def outlines(tissue: Tissue, share: float) -> np.ndarray:
    """Outlines of the cells, or of their nuclei where the share of the radius is less, (n_cells, 13, 2) px, closed."""
    turn = np.linspace(0, 2 * np.pi, 13)[None, :]
    phase = np.arange(len(tissue.centres))[:, None]
    radius = share * tissue.radius[:, None] * (1 + 0.08 * np.sin(3 * turn + phase))
    offset = np.stack([radius * np.cos(turn), radius * np.sin(turn)], axis=-1)
    outline = tissue.pixels(tissue.centres[:, None] + offset)
    outline[:, -1] = outline[:, 0]
    return outline
