"""Made Visium HD sections for `benchmarks/hd.py`: cells and counts are simulated, the image is pasted from real H&E."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sklearn.cluster import KMeans

import stalign
from stalign.datasets._toy_hd import DOMAINS, IMAGE_MPP, simulate

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

OTHER = {"domain_um": 190.0, "empty": 0.4, "depth": 45.0}  # toy_hd, by which stalign was developed: 240, 0.3, 60
FIRST_SEED = 100  # those below were seen in development
Image.MAX_IMAGE_PIXELS = None  # these have 92 million, and are known
_FILES = ("her2st/images/B4.jpg", "her2st/images/C2.jpg", "her2st/images/C4.jpg", "her2st/images/C6.jpg")
_MPP = 0.688  # µm per px of these
_TILE = 300  # µm, side of the patch of H&E that a domain is painted with
_GLASS = 205  # grey level above which a px is no tissue


@cache
def patches(root: Path) -> tuple[NDArray[np.uint8], ...]:
    """Six patches of H&E, 1 µm per px: the most typical of each of six groups by colour and grain."""
    tiles, looks = [], []
    for name in _FILES:
        with Image.open(root / name) as file:
            size = [round(side * _MPP) for side in file.size]
            picture = np.asarray(file.convert("RGB").resize(size, Image.Resampling.NEAREST))
        for y in range(0, picture.shape[0] - _TILE, _TILE):
            for x in range(0, picture.shape[1] - _TILE, _TILE):
                tile = picture[y : y + _TILE, x : x + _TILE]
                grey = tile.mean(axis=2)
                if (grey > _GLASS).mean() < 0.4 and (grey < 40).mean() < 0.02:
                    tiles.append(tile)
                    fine = np.abs(np.diff(grey, axis=0)).mean()
                    looks.append([*tile.mean(axis=(0, 1)), *tile.std(axis=(0, 1)), fine])
    features = np.array(looks)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    groups = KMeans(len(DOMAINS), n_init=5, random_state=0).fit(features)
    return tuple(tiles[index] for index in groups.transform(features).argmin(axis=0))


def painted(adata: AnnData, seed: int, side: float, given: dict[str, float], root: Path | None) -> None:
    """Give a section its image: each domain painted with its patch, mirrored at its edges, where cells can lie."""
    tissue = simulate(side, seed, **given)
    entry = adata.uns["spatial"]["toy_hd"]
    if root is None or not (root / _FILES[0]).is_file():
        entry["images"]["hires"] = tissue.picture(seed, IMAGE_MPP)
        return
    extent = int(np.ceil(tissue.pixels(np.array([[side, side]])).max() * 0.5 + 40))
    y, x = np.mgrid[:extent, :extent]
    domain = tissue.domain(*tissue.on_array(x * IMAGE_MPP, y * IMAGE_MPP))
    image = np.full((extent, extent, 3), 244, dtype=np.uint8)
    turn = np.random.default_rng(seed).permutation(len(DOMAINS))
    for number in range(len(DOMAINS)):
        patch = patches(root)[turn[number]]
        mirrored = np.concatenate([np.concatenate([part, part[:, ::-1]], axis=1) for part in (patch, patch[::-1])])
        where = domain == number
        image[where] = mirrored[y[where] % len(mirrored), x[where] % len(mirrored)]
    entry["images"]["hires"] = image


def made(kind: str, seed: int, side: float, root: Path | None) -> AnnData:
    """Make a section as bins of `8 µm`, `16 µm`, `2 µm, summed to 8 µm` and so on, or as `cells`."""
    size = 8 if kind == "cells" else int(kind.split()[0])
    options = {**OTHER, "side_um": side, "seed": seed, "image": False}
    adata = stalign.datasets.toy_hd(size, cells=kind == "cells", **options)
    if "summed" in kind:
        truth = adata.obs["domain"].astype(str)
        um = int(kind.split()[-2])
        larger = stalign.pp.rebin(adata, um)
        parents = adata.obs[f"square_{um:03d}um"].astype(str)
        most = truth.groupby(parents.to_numpy()).agg(lambda labels: labels.mode().iloc[0])
        larger.obs["domain"] = most.loc[larger.obs_names].to_numpy()
        adata = larger
    painted(adata, seed, side, OTHER, root)
    return adata
