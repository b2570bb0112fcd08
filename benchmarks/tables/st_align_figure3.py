"""Figure 3 of the ST-Align paper: domains of methods beside the annotation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import stalign
from benchmarks.cells import Cell, Missing
from benchmarks.real import IGNORED
from benchmarks.report import MARKS
from benchmarks.sections import find
from benchmarks.tables.st_align_table1 import PAPER, methods
from stalign.core.clustering import GMM

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.config import Config
    from benchmarks.sections import Section

TITLE = "ST-Align, figure 3: domains beside the annotation"
NOTE = """\
One figure for each section: the annotated layers, and domains of each method of table 1 that is there, seed 0,
coloured by the label that they agree with most; marks as in the tables. The table says how many methods are drawn."""
COMMAND = "python -m benchmarks run st-align-figure3 --slices dlpfc:151507 dlpfc:151669 dlpfc:151673 --download"
BEST = {"methods": "none"}


def cells(config: Config) -> Iterator[Cell]:
    for name in config.slices or PAPER:
        try:
            section = find(name, config)
        except Missing as error:
            reason = error

            def fail(reason: Missing = reason) -> dict[str, float]:
                raise reason

            yield Cell("figure", name.partition("@")[0], fail)
            continue
        drawn = ", ".join(sorted([*config.stalign, *config.weights]))
        yield Cell(
            "figure", section.name, lambda section=section: draw(section, config), settings=drawn, data=section.sha256
        )


def draw(section: Section, config: Config) -> dict[str, float]:
    """Draw one section; return how many methods there are."""
    import matplotlib.pyplot as plt

    from stalign.core.palette import palette

    adata, panels = section.read(), {"annotation": section.truth}
    for features in methods(config):
        try:
            key = features.of(section)
        except Missing:
            continue
        stalign.tl.domains(adata, GMM(section.n_domains), use_rep=key, random_state=0)
        score = stalign.tl.score(adata, section.truth, ignore=IGNORED).iloc[-1]["ARI"]
        title = f"{features.name}{MARKS.get(features.seen(section), '')}, ARI {score:.2f}"
        adata.obs[title] = adata.obs["stalign_domain"]
        panels[title] = title
    n_columns = 4
    n_rows = -(-len(panels) // n_columns)
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(3.2 * n_columns, 3.2 * n_rows), squeeze=False)
    truth = adata.obs[section.truth].astype("category")
    colours = dict(zip(truth.cat.categories, palette(len(truth.cat.categories)), strict=True))
    for axis in axes.flat:
        axis.axis("off")
    x, y = adata.obsm["spatial"].T
    for axis, (title, column) in zip(axes.flat, panels.items(), strict=False):
        labels = truth if column == section.truth else _named(adata.obs[column], truth)
        shown = [colours.get(label, "#dddddd") for label in labels]
        axis.scatter(x, -y, c=shown, s=max(1.0, 12_000 / len(x) / 4), linewidths=0)
        axis.set_aspect("equal")
        axis.set_title(title, fontsize=8)
    config.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(config.out / f"st-align-figure3-{section.name.replace(' ', '-')}.png", dpi=90, bbox_inches="tight")
    plt.close(figure)
    adata.obs = adata.obs.drop(columns=[column for column in panels.values() if column != section.truth])
    return {"methods": float(len(panels) - 1)}


def _named(domains, truth):
    """Give each domain the label that most of its spots have."""
    import pandas as pd

    table = pd.crosstab(domains, truth)
    return domains.map(table.idxmax(axis=1).to_dict())
