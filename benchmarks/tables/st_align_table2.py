"""Table 2 of the ST-Align paper: the ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.cells import Missing
from benchmarks.features import concatenated, encoder
from benchmarks.sections import find
from benchmarks.short_training import variants
from benchmarks.tables.st_align_table1 import absent, cell

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cells import Cell
    from benchmarks.config import Config

TITLE = "ST-Align, table 2: ablation"
NOTE = """\
Rows of the paper. The three below "concatenation" are trained from scratch at the size of `stalign-mini` for 30 steps
(`--steps`) of 128 spots in single precision, so that the table takes minutes, on the sections of its recipe that have
an image, without her2st patients A and B, olfactory bulb rep2 and all of the cortex: they compare with each other and
not with the paper's network or the packaged weights, which were trained for longer. Two seeds, which are those of
training. `X_stalign`, of which "ARI" is, keeps the distances of expression whatever was learned; "ARI, what was
learned" is that of the fused embedding, or of genes where the image is too coarse. Genes: the most variable of
olfactory bulb rep1, predicted from the image of rep2 by ridge. UNI and scGPT, and both side by side, need weights from
elsewhere; the last rows do the same with what is in the package."""
COMMAND = "python -m benchmarks run st-align-table2 --download --weights scgpt=FOLDER"
SEEDS = 2
BEST = {"MSE, genes": "min", "MSE over that of the mean, genes": "min"}
ASKED = ("151673", "151675", "mob rep2", "her2st A1")
VARIANTS = {
    "without adaptive encoders": {"adaptive": False},
    "without spot-niche loss": {"loss": {"lambda_spot": 4 / 7, "lambda_niche": 3 / 7}},
    "full": {},
    "full, concatenation for ABFN": {"fusion": "concat"},
}


def cells(config: Config) -> Iterator[Cell]:
    uni, scgpt = encoder("UNI", "uni", config), encoder("scGPT", "scgpt", config)
    colour, pca = encoder("colour statistics", "colour", config), encoder("Scanpy", "pca", config)
    asked = config.slices or ASKED
    rows = [uni, scgpt, concatenated("UNI and scGPT, concatenated", (uni, scgpt))]
    rows += [colour, pca, concatenated("colour statistics and Scanpy, concatenated", (colour, pca))]
    for features in rows[:3]:
        yield from _of(features, asked, config)
    yield from variants(VARIANTS, asked, config.seeds_or(SEEDS), config)
    for features in rows[3:]:
        yield from _of(features, asked, config)


def _of(features, asked: tuple[str, ...], config: Config) -> Iterator[Cell]:
    for name in asked:
        try:
            section = find(name, config)
        except Missing as error:
            yield absent(features.name, name, error)
            continue
        yield from (cell(features, section, seed) for seed in config.seeds_or(SEEDS))
