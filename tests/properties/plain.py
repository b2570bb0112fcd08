"""Small sections in their plainest form, which every other form is compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys
from stalign.datasets._toy_genes import symbols

GENES = tuple(symbols()[:24])
FEATURES = "given"  # obsm key of three groups of features, for domains that need no embedding
IMAGE_MPP = 4.0  # µm per px of the image
PITCH_UM = {"hex": 100.0, "square": 200.0, "irregular": 100.0}
_EDGE = 8  # px of a block of one colour


@dataclass(frozen=True, repr=False, eq=False)
class Plain:
    """A section: positions in coordinate px, counts, pixels and the numbers that link them.

    `scale` is image px per coordinate px, `mpp` µm per coordinate px.
    """

    name: str
    lattice: str
    coords: np.ndarray
    counts: np.ndarray
    pixels: np.ndarray
    features: np.ndarray
    scale: float
    origin: str = ""

    def __repr__(self) -> str:
        return f"{self.origin}, {len(self)} spots"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # as hypothesis calls it
        printer.text(repr(self))

    @property
    def mpp(self) -> float:
        return IMAGE_MPP * self.scale

    @property
    def spot_px(self) -> float:
        return (100.0 if self.lattice == "square" else 65.0) / self.mpp

    def __len__(self) -> int:
        return len(self.coords)

    def named(self, name: str) -> Plain:
        return replace(self, name=name)

    def taken(self, rows: np.ndarray) -> Plain:
        return replace(self, coords=self.coords[rows], counts=self.counts[rows], features=self.features[rows])


def make(
    seed: int,
    *,
    lattice: str = "hex",
    n_rows: int = 5,
    n_columns: int = 6,
    ideal: bool = False,
    scale: float = 0.25,
    name: str = "s",
) -> Plain:
    """Make a section; one that is ideal has whole coordinates and so many neighbours that are equally far."""
    rng = np.random.default_rng(seed)
    row, column = (index.ravel().astype(float) for index in np.mgrid[:n_rows, :n_columns])
    if lattice == "square":
        unit = np.column_stack([column, row])
    else:
        unit = np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)])
    jitter = 0.3 if lattice == "irregular" else 0.0 if ideal else 0.02
    unit = unit + rng.uniform(-jitter, jitter, unit.shape)
    pitch = PITCH_UM[lattice] / (IMAGE_MPP * scale)
    coords = (unit + 1.2) * pitch
    coords = np.rint(coords) if ideal else coords
    height, width = (np.ceil((coords.max(0) + 1.2 * pitch) * scale).astype(int))[::-1]
    n = len(coords)
    place = unit / unit.max()
    activity = np.column_stack([place[:, 0], place[:, 1] ** 2, np.sin(4 * place[:, 0] + 3 * place[:, 1])])
    programmes = rng.gamma(0.5, [[1.0], [0.7], [0.4]], (3, len(GENES)))
    rate = np.exp(2.0 + activity @ programmes)
    group = np.concatenate([[0, 1, 2], rng.integers(0, 3, n - 3)])
    features = rng.normal(0, 0.1, (n, 3)) + 9 * np.eye(3)[group]
    origin = f"make({seed}, {lattice=}, {n_rows=}, {n_columns=}, {ideal=}, {scale=}, {name=})"
    pixels = _draw(rng, height, width)
    return Plain(name, lattice, coords, rng.poisson(rate), pixels, features.astype(np.float32), scale, origin)


def _draw(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw grainy blocks of pink and violet on a white ground, (height, width, 3) uint8."""
    blocks = rng.integers((170, 90, 140), (251, 211, 241), (height // _EDGE + 1, width // _EDGE + 1, 3), dtype=np.uint8)
    pixels = blocks.repeat(_EDGE, axis=0).repeat(_EDGE, axis=1)[:height, :width]
    pixels = pixels + rng.integers(0, 4, pixels.shape, dtype=np.uint8)
    pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:] = 255, 255, 255, 255
    return pixels


def to_anndata(section: Plain) -> anndata.AnnData:
    """A section as Space Ranger's files are read."""
    obs = pd.DataFrame(index=[f"{section.name}-{i:03d}-1" for i in range(len(section))])
    obs["sample"] = pd.Categorical([section.name] * len(section))
    adata = anndata.AnnData(sparse.csr_matrix(section.counts.astype(np.int32)), obs, pd.DataFrame(index=list(GENES)))
    adata.obsm[Keys.SPATIAL] = section.coords.copy()
    adata.obsm[FEATURES] = section.features.copy()
    adata.uns[Keys.UNS_SPATIAL] = {section.name: entry(section)}
    return adata


def entry(section: Plain) -> dict:
    """What `uns["spatial"]` says about a section."""
    factors = {"tissue_hires_scalef": section.scale, "spot_diameter_fullres": section.spot_px}
    stated = {"um_per_px": section.mpp} if section.lattice == "irregular" else {}
    return {"images": {"hires": section.pixels.copy()}, "scalefactors": factors, "metadata": stated}


def joined(sections: list[Plain]) -> anndata.AnnData:
    """Several sections in one table, told apart by `obs["sample"]`."""
    table = anndata.concat([to_anndata(section) for section in sections])
    names = [section.name for section in sections]
    table.obs["sample"] = pd.Categorical(table.obs["sample"].astype(str), categories=names)
    table.uns[Keys.UNS_SPATIAL] = {section.name: entry(section) for section in sections}
    return table


STANDARD = (make(1, ideal=True), make(2, lattice="square", scale=0.5), make(3, lattice="irregular", scale=0.17))
