"""Table 1 of the ST-Align paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.features import baselines_of, embedded, encoder, tuned
from benchmarks.real import IGNORED, SECTIONS
from benchmarks.sections import find
from stalign.core.clustering import GMM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.config import Config
    from benchmarks.features import Features
    from benchmarks.sections import Section

TITLE = "ST-Align, table 1: domains of cortex"
NOTE = """\
ARI and NMI of domains against the annotated layers, labelled spots only: a tied Gaussian mixture with as many domains
as labels on 15 components of the features, not refined; the papers do not say how theirs were cut. Rows as in the
paper, where ST-Align stands for the packaged weights, then baselines. "Scanpy" is `tl.encode("pca")`: 50 components
of 2,000 scaled variable genes of single spots, as in scanpy's tutorial (unlike "PCA" in the model card, which is 15
components of all genes, not scaled). Image encoders read patches of the level `spot`. Genes of the shared sections
were preselected by their publishers, so rows compare with one another and not with published figures."""
COMMAND = (
    "python -m benchmarks run st-align-table1 --slices dlpfc:151507 dlpfc:151508 dlpfc:151509 dlpfc:151669 "
    "dlpfc:151670 dlpfc:151673 --download --weights scgpt=FOLDER scfoundation=FOLDER ctranspath=FILE"
)
SEEDS = 3
PAPER = ("151507", "151508", "151509", "151669", "151670", "151673")
ENCODERS = {
    "CTransPath": "ctranspath", "UNI": "uni", "Prov-GigaPath": "gigapath", "Hibou": "hibou-b", "CONCH": "conch",
    "Scanpy": "pca", "scFoundation": "scfoundation", "scGPT": "scgpt",
}  # fmt: skip
TUNED = {"CLIP": "clip-vit-b32", "PLIP": "plip"}
ROWS, COLUMNS = (*ENCODERS, *TUNED), PAPER


def methods(config: Config) -> Iterator[Features]:
    """Rows of the table."""
    for row, name in ENCODERS.items():
        yield encoder(row, name, config)
    for row, name in TUNED.items():
        yield tuned(row, name, config)
    for weights in config.stalign:
        yield embedded(weights, row=f"ST-Align ({weights.rstrip('/').split('/')[-1]})")
    yield from baselines_of(config)


def names(config: Config) -> tuple[str, ...]:
    """Sections that were named, or those of the paper and the others of the data folder."""
    return config.slices or (*PAPER, *(real.name for real in SECTIONS if real.name not in PAPER))


def cells(config: Config) -> Iterator[Cell]:
    for name in names(config):
        try:
            section = find(name, config)
        except Missing as error:
            yield from (absent(features.name, name, error) for features in methods(config))
            continue
        for features in methods(config):
            for seed in config.seeds_or(SEEDS):
                yield cell(features, section, seed)


def absent(row: str, column: str, error: Missing, settings: str = "") -> Cell:
    """A cell of a section that is not there."""

    def fail() -> dict[str, float]:
        raise error

    return Cell(row, column.partition("@")[0], fail, settings=settings)


def cell(features: Features, section: Section, seed: int) -> Cell:
    """Domains of one seed against the labels."""

    def compute() -> dict[str, float]:
        adata, key = section.read(), features.of(section)
        stalign.tl.domains(adata, GMM(section.n_domains), use_rep=key, random_state=seed)
        score = stalign.tl.score(adata, section.truth, ignore=IGNORED).iloc[-1]
        return {"ARI": score["ARI"], "NMI": score["NMI"]}

    return Cell(
        features.name, section.name, compute, seed,
        weights=features.sha256, data=section.sha256, seen=features.seen(section),
    )  # fmt: skip
