"""Table 3 of the ST-Align paper: nine genes predicted from images."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.features import baselines_of, embedded, encoder, tuned
from benchmarks.sections import find
from benchmarks.tables.st_align_table1 import ENCODERS, PAPER, TUNED, absent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.config import Config
    from benchmarks.features import Features
    from benchmarks.sections import Section

TITLE = "ST-Align, table 3: genes from images"
NOTE = """\
Mean squared error of log1p of counts per 10,000 (the papers do not say which values theirs is of), by an MLP on image
features. "80/20 by spot": each spot is predicted from the other four fifths of its section, whose neighbours it has.
"By patient": each section is predicted from the sections of other donors. The papers give the same figures for both.
A gene that can't be predicted is predicted by its level, as everywhere in `tl.predict_genes`; the last row predicts
the level alone. Mean ± standard deviation over sections. The images of the shared sections have 16 µm per px, where a
spot is 3.4 px wide: they hold next to nothing, and networks that need finer ones are missing."""
COMMAND = (
    "python -m benchmarks run st-align-table3 --slices dlpfc:151507 dlpfc:151508 dlpfc:151509 dlpfc:151669 "
    "dlpfc:151670 dlpfc:151673 --download --weights ctranspath=FILE"
)
GROUPS = {
    "layer markers": ("FABP7", "CCK", "PVALB"),
    "laminar": ("PCP4", "MOBP", "SNAP25"),
    "non-laminar": ("IGKC", "HBB", "NPY"),
}
GENES = [gene for genes in GROUPS.values() for gene in genes]
SPLITS = {"spot": "MSE, 80/20 by spot", "patient": "MSE, by patient"}
BEST = dict.fromkeys(SPLITS.values(), "min")
LEVEL = "the level alone"
COLUMNS = (*GENES, *GROUPS, "all")


def methods(config: Config) -> Iterator[Features]:
    """Rows of the table: encoders of images."""
    for row, name in ENCODERS.items():
        if stalign.encoders.get(name).modality == "image":
            yield encoder(row, name, config)
    for row, name in TUNED.items():
        yield tuned(row, name, config)
    for weights in config.stalign:
        name = weights.rstrip("/").split("/")[-1]
        yield embedded(weights, "X_stalign_image", f"ST-Align ({name}), image")
    yield from (features for features in baselines_of(config) if "no network" not in features.name)


def cells(config: Config) -> Iterator[Cell]:
    there, rows = [], list(methods(config))
    for name in config.slices or dict.fromkeys((*PAPER, "151675", "151510")):
        try:
            there.append(find(name, config))
        except Missing as error:
            yield from (absent(features.name, "all", error, name) for features in rows)
    for section in there:
        for split in SPLITS:
            for features in rows:
                yield _cell(features.name, features, section, there, split)
                if features.name == "colour statistics":  # the same with any features
                    yield _cell(LEVEL, features, section, there, split)


def _cell(row: str, features: Features, section: Section, there: list[Section], split: str) -> Cell:
    def compute() -> dict[tuple[str, str], float]:
        others = tuple(other for other in there if other.donor != section.donor)
        errors = _errors(features, section, others, split)["mse_mean" if row == LEVEL else "mse"]
        columns = {**{gene: (gene,) for gene in GENES}, **GROUPS, "all": GENES}
        means = {
            name: np.mean([errors[gene] for gene in genes if gene in errors] or [np.nan])
            for name, genes in columns.items()
        }
        return {(name, SPLITS[split]): float(mean) for name, mean in means.items()}

    return Cell(
        row, "all", compute, settings=f"{section.name}, by {split}", weights=features.sha256, data=section.sha256,
        seen="" if row == LEVEL else features.seen(section), columns=COLUMNS,
    )  # fmt: skip


@lru_cache(maxsize=2)
def _errors(
    features: Features, section: Section, others: tuple[Section, ...], split: str
) -> dict[str, dict[str, float]]:
    """Errors of each gene, and those of predicting the level."""
    if split == "patient" and not others:
        raise Missing("there is no section of another donor; name one with --slices")
    tables = [_by_symbol(part, features.of(part)) for part in (section, *(others if split == "patient" else ()))]
    names = set.intersection(*(set(table.var_names) for table in tables))
    genes = [gene for gene in GENES if gene in names]
    if not genes:
        raise Missing(f"none of the nine genes is in {section.name}")
    counts = {"total_counts": section.real.total_counts}
    reference = tables[1:] or None
    how = {"split": "spot"} if reference is None else {"patient_key": "benchmark_donor"}
    found = stalign.tl.predict_genes(
        tables[0], reference, genes=genes, use_rep=features.of(section), model="mlp", random_state=0, **how, **counts
    )
    return {key: {gene: float(found.var[key][gene]) for gene in genes} for key in ("mse", "mse_mean")}


def _by_symbol(section: Section, key: str):
    """A copy with symbols as names of genes, and the donor as a column."""
    adata = section.read().copy()
    if section.real.gene_key:
        adata.var_names = adata.var[section.real.gene_key].astype(str).to_numpy()
        adata = adata[:, ~adata.var_names.duplicated()].copy()
    adata.obs["benchmark_donor"] = section.donor or section.name
    finite = np.isfinite(adata.obsm[key]).all(axis=1)
    if not finite.any():
        raise Missing(f"no patch of {section.name} can be read at its scale")
    return adata
