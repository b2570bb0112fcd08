"""A simulated Visium section, made in code from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import VISIUM_PITCH_UM, Keys
from stalign._validate import message
from stalign.datasets import _toy_genes, _toy_image

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

DOMAINS = ("L1", "L2/3", "L4", "L5/6", "WM")
_EDGES = np.array(
    [0.13, 0.40, 0.56, 0.80]
)  # where one band ends, as a share of the way from the surface to the white matter
_MPP = 0.5  # µm per px of the full-resolution image
_IMAGE_MPP = 2.0  # µm per px of the hires image
_MARGIN_UM = 150.0
_WELL_KNOWN = 3
_TILT = np.deg2rad(0.6)  # of the array against the image


@dataclass(frozen=True)
class _Layout:
    """Tissue outline and bands of one section; every length in µm."""

    width: float
    height: float
    phase: np.ndarray

    def _polar(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return x - 0.30 * self.width, y - 1.45 * self.height

    def depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """0 at the surface of the cortex, 1 at the end of the white matter."""
        u, v = self._polar(x, y)
        radius, angle = np.hypot(u, v) / self.height, np.arctan2(u, -v)
        wave = 0.030 * np.sin(7 * angle + self.phase[0]) + 0.018 * np.sin(17 * angle + self.phase[1])
        return np.asarray((1.42 - radius + wave) / 0.98)

    def angle(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Direction along the bands, in radians."""
        u, v = self._polar(x, y)
        return np.asarray(np.arctan2(v, u) + np.pi / 2)

    def along(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Distance from the centre of the bands in µm, constant along a band."""
        return np.asarray(np.hypot(*self._polar(x, y)))

    def domain(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Index of the band, -1 outside the tissue."""
        u, v = 2 * x / self.width - 1, 2 * y / self.height - 1
        turn = np.arctan2(v, u)
        outline = 0.94 + 0.03 * np.sin(3 * turn + self.phase[2]) + 0.02 * np.sin(8 * turn + self.phase[3])
        depth = self.depth(x, y)
        inside = ((np.abs(u) ** 4 + np.abs(v) ** 4) ** 0.25 < outline) & (depth > 0)
        return np.where(inside, np.searchsorted(_EDGES, depth), -1)


def _activity(rng: np.random.Generator, depth: np.ndarray, domain: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Activity of every programme in every spot, (n, 8), ordered as `_toy_genes.PROGRAMMES`."""
    bump = np.stack(
        [
            np.exp(-0.5 * ((depth - centre) / width) ** 2)
            for centre, width in ((0.05, 0.10), (0.28, 0.13), (0.48, 0.09), (0.68, 0.13))
        ],
        axis=1,
    )
    white = 1 / (1 + np.exp(-(depth - 0.80) / 0.035))
    own = np.eye(5)[domain]
    bands = 0.55 * np.column_stack([bump, white]) + 0.45 * own
    neuron = np.clip(depth / 0.15, 0, 1) * (1 - 0.85 * white)
    wave = np.sin(place @ np.array([[2.1, -3.3], [1.7, 2.9]]) * 2 * np.pi + rng.uniform(0, 2 * np.pi, 2))
    cells = rng.dirichlet(np.full(5, 0.9), size=len(depth))  # the handful of cells under a spot is not the band's mean
    mixed = 0.80 * bands + 1.4 * (cells - 0.2)
    noise = rng.normal(0, (0.35, 0.4, 0.4), size=(len(depth), 3))
    return np.column_stack([neuron + noise[:, 0], mixed, 0.4 * wave + noise[:, 1:]])


def _counts(
    rng: np.random.Generator, activity: np.ndarray, weights: np.ndarray, base: np.ndarray, median: float
) -> csr_matrix:
    """Negative binomial counts, (n, genes) int32; spots differ in depth."""
    from scipy import sparse

    blocks = []
    for start in range(0, len(activity), 16384):
        rate = np.exp(base + activity[start : start + 16384] @ weights)
        total = median * rng.lognormal(0, 0.45, size=(len(rate), 1))
        rate *= total / rate.sum(axis=1, keepdims=True)
        shape = 2.0
        blocks.append(sparse.csr_matrix(rng.poisson(rng.gamma(shape, rate / shape)).astype(np.int32)))
    return sparse.vstack(blocks, format="csr")


def loadings(rng: np.random.Generator, genes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Loadings of the programmes, (8, genes), and log base level, (genes,)."""
    position = {gene: column for column, gene in enumerate(genes)}
    base = rng.normal(0, 1.1, len(genes))
    weights = rng.normal(0, 0.06, (len(_toy_genes.PROGRAMMES), len(genes)))
    for row, text in enumerate(_toy_genes.PROGRAMMES.values()):
        columns = [position[gene] for gene in text.split()]
        weights[row, columns] += rng.gamma(4.0, 0.24, len(columns))
        base[columns] = rng.normal(-0.4, 0.9, len(columns))
        weights[row, columns[:_WELL_KNOWN]] += 1.2  # the first of each list are those that one sees by eye
        base[columns[:_WELL_KNOWN]] = rng.normal(0.6, 0.4, _WELL_KNOWN)
    for names, level in ((_toy_genes.ribosomal(), 1.6), (_toy_genes.mitochondrial(), 2.8)):
        base[[position[gene] for gene in names]] += level
    return weights, base


def _section(n_rows: int, seed: int, *, library: str, number: int, image: bool) -> AnnData:
    """One section; sections of one seed share genes and differ in outline, depth and stain."""
    import pandas as pd
    from anndata import AnnData

    rng = np.random.default_rng([seed, number])
    row, column = (index.ravel() for index in np.mgrid[0:n_rows, 0:n_rows])
    column = 2 * column + row % 2
    x = column * VISIUM_PITCH_UM / 2
    y = row * VISIUM_PITCH_UM * np.sqrt(3) / 2
    width, height = x.max() + 2 * _MARGIN_UM, y.max() + 2 * _MARGIN_UM
    u, v = x - x.max() / 2, y - y.max() / 2
    # in whole px of the full-resolution image, as Space Ranger writes them
    x = np.rint((width / 2 + u * np.cos(_TILT) - v * np.sin(_TILT)) / _MPP) * _MPP
    y = np.rint((height / 2 + u * np.sin(_TILT) + v * np.cos(_TILT)) / _MPP) * _MPP
    layout = _Layout(width=width, height=height, phase=rng.uniform(0, 2 * np.pi, 4))
    domain = layout.domain(x, y)
    kept = domain >= 0
    row, column, x, y, domain = row[kept], column[kept], x[kept], y[kept], domain[kept]

    genes = _toy_genes.symbols()
    weights, base = loadings(np.random.default_rng([seed, 1_000_003]), genes)
    place = np.column_stack([x / layout.width, y / layout.height])
    activity = _activity(rng, layout.depth(x, y), domain, place)
    donor = rng.normal(0, 0.20 if number else 0.0, len(genes))
    counts = _counts(rng, activity, weights, base + donor, median=2600.0 * 0.6**number)

    names = [f"{library}_{r}x{c}" for r, c in zip(row, column, strict=True)]
    obs = pd.DataFrame(
        {
            "in_tissue": np.ones(len(row), dtype=np.int64),
            "array_row": row.astype(np.int64),
            "array_col": column.astype(np.int64),
            "library": pd.Categorical([library] * len(row)),
            "domain": pd.Categorical.from_codes(domain, categories=list(DOMAINS), ordered=True),
        },
        index=names,
    )
    adata = AnnData(X=counts, obs=obs, var=pd.DataFrame(index=pd.Index(genes)))
    adata.obsm[Keys.SPATIAL] = np.column_stack([x, y]) / _MPP
    slide: dict[str, Any] = {
        "images": {},
        "scalefactors": {
            "tissue_hires_scalef": _MPP / _IMAGE_MPP,
            "spot_diameter_fullres": 65.0 / _MPP,  # Space Ranger states 65 µm for spots of 55
            "fiducial_diameter_fullres": 105.0 / _MPP,
        },
        "metadata": {"chemistry_description": "simulated", "software_version": "stalign.datasets.toy"},
    }
    if image:
        size = int(np.ceil(layout.height / _IMAGE_MPP)), int(np.ceil(layout.width / _IMAGE_MPP))
        stain = np.ones(2) if number == 0 else rng.uniform((0.65, 0.75), (1.45, 1.25))
        slide["images"]["hires"] = _toy_image.draw(
            rng, size, _IMAGE_MPP, domain=layout.domain, angle=layout.angle, along=layout.along, stain=stain
        )
    adata.uns[Keys.UNS_SPATIAL] = {library: slide}
    return adata


def toy(n_rows: int = 32, seed: int = 0, *, n_sections: int = 1, image: bool = True, spatialdata: bool = False) -> Any:
    """Simulate a Visium section of layered tissue with an H&E-like image.

    The grid is hexagonal with a pitch of 100 µm. Five curved bands (`L1` to `WM`) differ in marker programmes, most of
    them shared or graded across bands, and in the density, size and direction of nuclei. Counts are negative binomial,
    spots hold a random mixture of cells and differ in depth, so that a single spot says less than its niche.

    Parameters
    ----------
    n_rows
        Rows and columns of the grid, at least 6; spots outside the tissue are left out, which leaves nine in ten.
    seed
        Seed of everything that is drawn.
    n_sections
        How many sections. The second and later ones come from another donor: another outline, stain, depth and
        background expression. They are put below one another, told apart by `obs["library"]`.
    image
        Whether to draw the image, 2 µm per px.
    spatialdata
        Whether to return a SpatialData with the image, circles and table instead of an AnnData.

    Returns
    -------
    AnnData, spots x genes, or SpatialData:

    - `X`: raw counts, CSR int32.
    - `obs["domain"]`: the true band, an ordered categorical from the surface to the white matter.
    - `obs["library"]`: the section, categorical, `toy` or `toy_1`, `toy_2` ...
    - `obs["array_row"]`, `obs["array_col"]`, `obs["in_tissue"]`: int64, as Space Ranger has them.
    - `obsm["spatial"]`: (n, 2) float64, x and y in px of the full-resolution image (0.5 µm per px).
    - `uns["spatial"][library]`: `images["hires"]` (height, width, 3) uint8, `scalefactors`, `metadata`.

    Raises
    ------
    ValueError
        If `n_rows` is below 6 or `n_sections` below 1.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.toy()
    >>> list(adata.obs["domain"].cat.categories)
    ['L1', 'L2/3', 'L4', 'L5/6', 'WM']
    >>> st.datasets.toy(n_rows=10, n_sections=2).obs["library"].cat.categories.tolist()
    ['toy_1', 'toy_2']
    """
    if n_rows < 6:
        raise ValueError(message("Expected `n_rows` to be at least 6", found=n_rows))
    if n_sections < 1:
        raise ValueError(message("Expected `n_sections` to be at least 1", found=n_sections))
    libraries = ["toy"] if n_sections == 1 else [f"toy_{number + 1}" for number in range(n_sections)]
    parts = [_section(n_rows, seed, library=name, number=i, image=image) for i, name in enumerate(libraries)]
    if spatialdata:
        from stalign.datasets._toy_spatialdata import to_spatialdata

        return to_spatialdata(parts, libraries)
    if n_sections == 1:
        return parts[0]
    from anndata import concat

    adata = concat(parts)
    adata.uns[Keys.UNS_SPATIAL] = {
        name: part.uns[Keys.UNS_SPATIAL][name] for name, part in zip(libraries, parts, strict=True)
    }
    return adata
