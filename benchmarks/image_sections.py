"""The sections with an image that genes are predicted for, and their image features, computed once and kept on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

import stalign
from stalign._constants import Keys
from stalign.core.colour import colour_features
from stalign.core.patches import spot_windows_um
from stalign.core.surroundings import gaussian_mean
from stalign.data import open_sections
from stalign.models.weights import load_weights
from stalign.tl._patch_rows import patch_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

COLOUR, LITE0 = "X_colour", "X_lite0"
COLOUR_UM = (100.0, 250.0, 600.0)  # sides of the windows of colour statistics in µm
LITE0_UM = (112.0, 224.0)
CONTEXT_UM = 250.0
_PATCH_PX = 24
_CHUNK = 256


def read(root: Path, names: Iterable[str]) -> dict[str, AnnData]:
    """Read sections of her2st and mob with their images and, of her2st, the patient in obs."""
    her2st, found = None, {}
    for name in names:
        if name.startswith("rep"):
            found[name] = stalign.io.read_h5ad(root / "mob" / f"{name}.h5ad")
            continue
        her2st = her2st if her2st is not None else stalign.io.read_h5ad(root / "her2st" / "her2st.h5ad")
        found[name] = her2st[her2st.obs["section"] == name].copy()
        found[name].uns["spatial"] = {name: her2st.uns["spatial"][name]}
        found[name].obs["patient"] = name[0]
    return found


def add_colours(adata: AnnData, cache: Path) -> None:
    """Colour statistics of windows of three sizes around each spot, (n_obs, 90), and their Gaussian mean."""

    def compute() -> NDArray[np.float32]:
        (section,) = open_sections(adata)
        scale = section.image.scale / section.coord_mpp  # image px per µm
        offset = np.tile(section.image.offset, 2)
        features = np.full((adata.n_obs, 3 * 30), np.nan, np.float32)
        boxes = [spot_windows_um(section.coords_um[section.valid], side) * scale + offset for side in COLOUR_UM]
        features[section.valid] = np.hstack([colour_features(section.image.patches(box, _PATCH_PX)) for box in boxes])
        return features

    adata.obsm[COLOUR] = _kept(cache, adata, COLOUR, compute)
    (section,) = open_sections(adata, image=False)
    adata.obsm[f"{COLOUR}_context"] = gaussian_mean(adata.obsm[COLOUR], section.coords_um, CONTEXT_UM)


def add_lite0(adata: AnnData, cache: Path) -> None:
    """EfficientNet-Lite0 on windows of 112 and 224 µm, and the Gaussian mean of both around each spot."""
    parts = []
    for side in LITE0_UM:

        def compute(side: float = side) -> NDArray[np.float64]:
            one = stalign.tl.ImageFeatures(windows=(side,), context=None)
            return one.of(adata, library_key=None, table_key=None)

        parts.append(_kept(cache, adata, f"{LITE0}_{side:g}um", compute))
        adata.obsm[f"{LITE0}_{side:g}um"] = parts[-1]
    (section,) = open_sections(adata, image=False)
    adata.obsm[f"{LITE0}_context"] = gaussian_mean(np.hstack(parts), section.coords_um, CONTEXT_UM)


def add_weights(adata: AnnData, weights: str, cache: Path) -> dict[str, str]:
    """Embeddings by weights of stalign; returns the obsm key of the image, the fused and the gene embedding.

    The fused one is that of the image alone, without counts.
    """
    name = weights.rstrip("/").split("/")[-1]
    keys = {part: f"X_{name}_{part}" for part in ("image", "fused", "gene")}
    made: dict[bool, AnnData] = {}

    def compute(part: str) -> NDArray[np.float32]:
        counts = part == "gene"
        if counts not in made:
            made[counts] = adata.copy()
            stalign.tl.embed(made[counts], weights, genes=counts)
        source = {"image": Keys.EMBED_IMAGE, "fused": Keys.EMBED, "gene": Keys.EMBED_GENE}[part]
        return np.asarray(made[counts].obsm[source])

    for part, key in keys.items():
        adata.obsm[key] = _kept(cache, adata, key, lambda part=part: compute(part))
    return keys


def add_towers(
    adata: AnnData, weights: str | Path, cache: Path, *, genes: bool = True, key: str = "X_hibio"
) -> tuple[str, str]:
    """Embeddings of images and sentences by weights of HiBio-ST whose image tower is EfficientNet-Lite0, frozen.

    What the tower sees is the same for all such weights, and is computed once.
    """
    network = load_weights(str(weights)).network.eval()

    def compute() -> NDArray[np.float32]:
        patches = patch_rows(adata, weights)
        features = np.full((adata.n_obs, network.n_features), np.nan, np.float32)
        with torch.inference_mode():
            for rows in np.split(np.arange(len(patches)), range(_CHUNK, len(patches), _CHUNK)):
                found = network.image_features(torch.from_numpy(patches[rows]))
                features[patches.rows[rows]] = found.numpy()
        return features

    features = _kept(cache, adata, "hibio_features", compute)
    with torch.inference_mode():
        adata.obsm[f"{key}_image"] = network.embed_image(torch.from_numpy(features)).numpy()
    if genes:
        stalign.tl.encode(adata, "hibio", weights=weights, modality="gene", cache=False, key_added=f"{key}_gene")
    return f"{key}_image", f"{key}_gene"


def _kept(cache: Path, adata: AnnData, key: str, compute: Callable[[], NDArray]) -> NDArray:
    """Read features of a section from disk, or compute them and write them there."""
    (name,) = adata.uns["spatial"]
    file = cache / f"{name}-{key}.npy"
    if file.exists():
        return np.load(file)
    values = compute()
    cache.mkdir(parents=True, exist_ok=True)
    np.save(file, values)
    return values
