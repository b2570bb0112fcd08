"""Features that tables compare: encoders, concatenations, baselines and weights of stalign, and what they have seen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import stalign
from benchmarks import baselines
from benchmarks.cells import Missing
from benchmarks.seen import seen
from stalign._constants import Keys
from stalign.encoders.access import hash_of
from stalign.models import REGISTRY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from benchmarks.config import Config
    from benchmarks.sections import Section

FAILURES = (FileNotFoundError, PermissionError, ConnectionError, ValueError, KeyError)


@dataclass(frozen=True)
class Features:
    """A row of a table: what writes its features, and what was trained elsewhere."""

    name: str
    write: Callable[[Section], str]  # to obsm of the section; returns the key
    weights: str = ""  # a name or folder of weights of stalign, whose card says what they have seen
    foreign: bool = False  # trained by others, on what no card of theirs lists
    path: str = ""  # file or folder of foreign weights

    def of(self, section: Section) -> str:
        """Write the features of a section once; return their key, or raise `Missing` with the reason."""
        return _of(self, section)

    def seen(self, section: Section) -> str:
        if self.weights:
            return seen(self.weights, section.own_name, section.donor, section.study)
        return "unknown" if self.foreign else ""

    @property
    def sha256(self) -> str:
        return weights_sha256(self.weights or self.path)


def weights_sha256(name: str) -> str:
    """Hash of weights: a packaged name, a file, or the weights in a folder; "" for none."""
    if name in REGISTRY:
        return REGISTRY[name].sha256
    path = Path(name).expanduser()
    files = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.pt")) if path.is_dir() else [path]
    return hash_of(*files) if name and files and all(file.is_file() for file in files) else ""


@cache
def _of(features: Features, section: Section) -> str:
    try:
        return features.write(section)
    except FAILURES as error:
        raise Missing(reason(error)) from error


def encoder(row: str, name: str, config: Config) -> Features:
    """A registered encoder; weights from `--weights NAME=PATH`, else from the hub's cache or the hub."""
    weights, card = config.weights.get(name), stalign.encoders.get(name)

    def write(section: Section) -> str:
        level = config.level if card.modality == "image" else "spot"
        if (key := f"X_{name}_{level}") in section.read().obsm:  # of another table
            return key
        genes = {} if card.modality == "image" else section.counts
        if card.needs_weights and weights is None and card.access == "folder":
            raise Missing(no_weights(name))
        try:
            stalign.tl.encode(section.read(), name, level=level, weights=weights, **genes)
        except (FileNotFoundError, PermissionError, ConnectionError) as error:
            raise Missing(no_weights(name)) from error
        return key

    return Features(row, write, foreign=card.needs_weights and card.access != "package", path=weights or "")


def tuned(row: str, name: str, config: Config) -> Features:
    """CLIP or PLIP fine-tuned by `stalign.train.clip`, whose folder is named by `--weights NAME-tuned=FOLDER`."""
    folder = config.weights.get(f"{name}-tuned")

    def write(section: Section) -> str:
        if folder is None:
            raise Missing(
                f"fine-tuned first: `python -m stalign.train.clip clip.toml encoder={name} out=FOLDER`, "
                f"then `--weights {name}-tuned=FOLDER`"
            )
        key = f"X_{name}-tuned"
        stalign.tl.encode(section.read(), "clip-tuned", level=config.level, weights=folder, key_added=key)
        return key

    return Features(row, write, foreign=True, path=folder or "")


def concatenated(row: str, parts: tuple[Features, Features]) -> Features:
    """Two representations side by side, each reduced to 15 components of equal total variance."""

    def write(section: Section) -> str:
        obsm = section.read().obsm
        key = f"X_{row}"
        obsm[key] = np.concatenate([_standard(obsm[part.of(section)]) for part in parts], axis=1)
        return key

    return Features(row, write, foreign=any(part.foreign for part in parts))


def _standard(features: NDArray[np.float32]) -> NDArray[np.float32]:
    from sklearn.decomposition import PCA

    known = np.isfinite(features).all(axis=1)
    n = min(15, features.shape[1])
    out = np.full((len(features), n), np.nan, dtype=np.float32)
    out[known] = PCA(n, random_state=0).fit_transform(features[known])
    return out / np.sqrt(np.nanvar(out, axis=0).sum())


def niche_mean() -> Features:
    """The baseline without a network: 15 components of the mean over a spot and its three neighbours."""

    def write(section: Section) -> str:
        adata, key = section.read(), "X_niche_mean"
        if key not in adata.obsm:
            adata.obsm[key] = baselines.niche_mean(adata, total_counts=section.real.total_counts)
        return key

    return Features("niche mean, no network", write)


def embedded(weights: str, part: str = Keys.EMBED, row: str = "") -> Features:
    """An embedding by weights of stalign."""
    name = Path(weights).name

    def write(section: Section) -> str:
        adata = section.read()
        key = f"{part}_{name}"
        if key not in adata.obsm:
            made = stalign.tl.embed(adata, weights, copy=True, **section.counts)
            for found in (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE, Keys.EMBED_FUSED):
                if found in made.obsm:
                    adata.obsm[f"{found}_{name}"] = made.obsm[found]
        if key not in adata.obsm:
            raise Missing(f"{name} has no {part.removeprefix('X_stalign_')} embedding of this section (no image)")
        return key

    return Features(row or f"{name}, zero-shot", write, weights=weights)


def baselines_of(config: Config) -> Iterator[Features]:
    """Rows below those of a paper that need no file from elsewhere."""
    yield niche_mean()
    yield encoder("colour statistics", "colour", config)
    yield encoder("raw pixels", "pixels", config)
    yield encoder("EfficientNet-Lite0 (ImageNet)", "efficientnet-lite0", config)


def reason(error: Exception) -> str:
    """The first sentence of an error."""
    return " ".join(str(error).strip("'\"").split()).split(". ")[0]


def no_weights(name: str) -> str:
    """Say where the weights of an encoder are, and the option that takes them."""
    card = stalign.encoders.get(name)
    if card.access == "folder":
        return f"no weights here: from its authors at {card.url} ({card.licence}), then `--weights {name}=PATH`"
    gate = {True: "gated", None: "sources disagree on whether it is gated", False: "not gated"}[card.gated]
    return f"no weights here: {card.repo} on the hub ({gate}, {card.licence}); `--download`, or `--weights {name}=PATH`"
