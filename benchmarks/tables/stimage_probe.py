"""STimage-1K4M: linear probes of images, and how compact the pathologist's regions are in them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.features import Features, baselines_of, embedded, encoder
from benchmarks.features import tuned as published
from benchmarks.real import IGNORED, SECTIONS
from benchmarks.sections import find
from benchmarks.tables.st_align_table1 import absent
from stalign.core.probe import linear_probe
from stalign.core.scores import compactness

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from benchmarks.config import Config
    from benchmarks.sections import Section

TITLE = "STimage-1K4M: linear probe and cluster scores"
NOTE = """\
Protocol of STimage-1K4M: logistic regression by stochastic gradient descent on unscaled features, spots split 80 / 10
/ 10 %, five splits, the penalty of 1, .1, .01, .001, .0001 with the best mean macro-F1 on the validation parts,
macro-F1 on the test parts. Spots of one section lie in all parts, so these figures are optimistic, as the published
ones are. Silhouette, Calinski-Harabasz and Davies-Bouldin score the annotated regions themselves on the features,
without a clustering. The annotated sections of the data folder stand for the 71 annotated slides; "tuned" rows are
CLIP and PLIP after `stalign.train.clip` with `hvg` (each section's 128) or `overlap` (100 common) genes on all asked
sections."""
COMMAND = "python -m benchmarks run stimage-probe --slices dlpfc:151507 dlpfc:151673 --download"
SEEDS = 5
BEST = {"Davies-Bouldin": "min"}
ZERO_SHOT = {"CLIP": "clip-vit-b32", "PLIP": "plip", "UNI": "uni"}
METRICS = {
    "silhouette": "silhouette", "calinski_harabasz": "Calinski-Harabasz", "davies_bouldin": "Davies-Bouldin",
}  # fmt: skip


def methods(config: Config, sections: list[Section]) -> Iterator[Features]:
    """Rows of the table."""
    for row, name in ZERO_SHOT.items():
        yield encoder(f"{row}, zero-shot", name, config)
    for row, name in list(ZERO_SHOT.items())[:2]:
        if f"{name}-tuned" in config.weights:
            yield published(f"{row}, tuned", name, config)
        else:
            yield from (
                tuned_here(f"{row}, tuned, {genes}", name, genes, sections, config) for genes in ("hvg", "overlap")
            )
    for weights in config.stalign:
        name = weights.rstrip("/").split("/")[-1]
        yield embedded(weights, "X_stalign_image", f"{name}, image")
    yield from (features for features in baselines_of(config) if "no network" not in features.name)


def tuned_here(row: str, name: str, genes: str, sections: list[Section], config: Config) -> Features:
    """An encoder fine-tuned on the asked sections, once, in the cache folder."""
    from benchmarks.features import no_weights

    def write(section: Section) -> str:
        folder = config.cache / f"{name}-{genes}-{'-'.join(part.sha256[:8] for part in sections)}"
        if not (folder / "clip.json").is_file():
            from stalign.encoders.access import fetch
            from stalign.encoders.registry import get
            from stalign.train.clip import ClipConfig, fit_clip

            how = ClipConfig(encoder=name, weights=config.weights.get(name, ""), genes=genes, out=str(folder))
            try:
                fetch(get(name), config.weights.get(name))  # before anything is read
                fit_clip([part.read() for part in sections], how)
            except (FileNotFoundError, PermissionError, ConnectionError) as error:
                raise Missing(no_weights(name)) from error
        stalign.tl.encode(section.read(), "clip-tuned", weights=folder, key_added=f"X_{row}")
        return f"X_{row}"

    return Features(row, write, foreign=True)


def cells(config: Config) -> Iterator[Cell]:
    there, lost = [], {}
    for name in config.slices or [real.name for real in reversed(SECTIONS)]:
        try:
            there.append(find(name, config))
        except Missing as error:
            lost[name] = error
    rows = list(methods(config, there))
    for name, error in lost.items():
        yield from (absent(features.name, name, error) for features in rows)
    for section in there:
        for features in rows:
            probe = lru_cache(maxsize=1)(lambda f=features, s=section: _probe(f, s, len(config.seeds_or(SEEDS))))
            shared = {"weights": features.sha256, "data": section.sha256, "seen": features.seen(section)}
            for seed in config.seeds_or(SEEDS):
                yield Cell(
                    features.name, section.name, lambda seed=seed, probe=probe: {"macro-F1": float(probe()[seed])},
                    seed, f"of {len(config.seeds_or(SEEDS))} splits", **shared,
                )  # fmt: skip
            yield Cell(
                features.name,
                section.name,
                lambda f=features, s=section: _compactness(f, s),
                settings="regions",
                **shared,
            )


def _known(features: Features, section: Section) -> tuple[np.ndarray, pd.Series]:
    """Features and labels, where there are both."""
    adata = section.read()
    values = np.asarray(adata.obsm[features.of(section)], dtype=np.float64)
    labels = adata.obs[section.truth].astype(object)
    kept = np.isfinite(values).all(axis=1) & (labels.notna() & ~labels.astype(str).isin(IGNORED)).to_numpy()
    if not kept.any():
        raise Missing("no annotated spot has these features: the image is absent or too coarse")
    return values[kept], labels[kept].astype(str)


def _probe(features: Features, section: Section, n: int) -> np.ndarray:
    values, labels = _known(features, section)
    return linear_probe(values, labels, seeds=range(n)).test


def _compactness(features: Features, section: Section) -> dict[str, float]:
    values, labels = _known(features, section)
    found = compactness(values, labels.to_numpy())
    return {title: found[name] for name, title in METRICS.items()}
