"""STimage-1K4M: t-SNE of image embeddings, coloured by the annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.report import MARKS
from benchmarks.sections import find
from benchmarks.tables.stimage_probe import methods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.config import Config
    from benchmarks.sections import Section

TITLE = "STimage-1K4M: t-SNE of image embeddings"
NOTE = """\
t-SNE by scanpy with its defaults (`sc.tl.tsne(adata, use_rep=KEY)`), drawn by `pl.embedding(basis="tsne")` and
coloured by the annotation; 151675 is the sample that the paper shows. The table says how many embeddings are drawn."""
BEST = {"embeddings": "none"}


def cells(config: Config) -> Iterator[Cell]:
    for name in config.slices or ("151675", "mob rep2"):
        try:
            section = find(name, config)
        except Missing as error:
            reason = error

            def fail(reason: Missing = reason) -> dict[str, float]:
                raise reason

            yield Cell("figure", name.partition("@")[0], fail)
            continue
        yield Cell(
            "figure", section.name, lambda s=section: draw(s, config), settings=", ".join(config.stalign),
            data=section.sha256,
        )  # fmt: skip


def draw(section: Section, config: Config) -> dict[str, float]:
    """Draw one section; return how many embeddings there are."""
    import matplotlib.pyplot as plt
    import scanpy as sc

    drawn = {}
    for features in methods(config, [section]):
        try:
            key = features.of(section)
        except Missing:
            continue
        adata = section.read()
        if np.isfinite(adata.obsm[key]).all(axis=1).sum() > 100:
            drawn[features.name + MARKS.get(features.seen(section), "")] = key
    if not drawn:
        raise Missing("no embedding of the image can be had: it is absent or too coarse")
    figure, axes = plt.subplots(1, len(drawn), figsize=(3.4 * len(drawn), 3.2), squeeze=False)
    for axis, (row, key) in zip(axes.flat, drawn.items(), strict=True):
        adata = section.read()
        part = adata[np.isfinite(adata.obsm[key]).all(axis=1) & adata.obs[section.truth].notna().to_numpy()].copy()
        sc.tl.tsne(part, use_rep=key, random_state=0)
        stalign.pl.embedding(part, section.truth, basis="tsne", ax=axis, show=False)
        axis.set_title(row, fontsize=8)
        if axis is not axes.flat[-1]:
            axis.get_legend().remove()
    config.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.out / f"stimage-tsne-{section.name.replace(' ', '-')}.png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    return {"embeddings": float(len(drawn))}
