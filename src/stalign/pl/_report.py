"""A report that can be sent on: one HTML file with figures, scores, parameters, weights, warnings and versions."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._settings import logger
from stalign.data import sections, table_of
from stalign.pl import _findings as say
from stalign.pl import _html as html
from stalign.pl._domains import domains
from stalign.pl._embedding import embedding
from stalign.pl._genes import genes
from stalign.pl._labels import read_labels
from stalign.pl._niches import niches
from stalign.pl._patches import patches
from stalign.pl._scores import scores as draw_scores
from stalign.pl._training import training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from spatialdata import SpatialData

_SCORES = (
    "ARI, the adjusted Rand index, is 1 where domains and labels agree and 0 for a random labelling; NMI is the share "
    "of information that they have in common. Where there are several runs, dots are single runs and whiskers one "
    "standard deviation."
)


def report(
    data: AnnData | SpatialData,
    path: str | Path,
    *,
    truth: str | None = None,
    predicted: AnnData | None = None,
    scores: pd.DataFrame | None = None,
    metrics: str | Path | pd.DataFrame | None = None,
    weights: str | Path | None = None,
    notes: Sequence[str] = (),
    title: str = "ST-Align report",
    umap: bool = True,
    library_key: str | None = None,
    table_key: str | None = None,
    image_key: str | Mapping[str, str] | None = None,
    mpp: float | Mapping[str, float] | None = None,
    dpi: float = 110,
) -> Path:
    """Write one HTML file with everything that was found, and how.

    The file holds its figures and needs neither network nor scripts. It shows what is there: sections, domains with
    the truth beside them, scores, embedding, niches and patches, predicted genes, training curves, parameters, the
    weights and their card, warnings and versions.

    Parameters
    ----------
    data
        One or more sections. They are not changed.
    path
        The file to write; one that is there is replaced.
    truth
        Column of obs with true labels.
    predicted
        What `tl.predict_genes` returned.
    scores
        What `tl.score` returned, or a table of several runs; None scores the domains against `truth`.
    metrics
        Training curves, as `pl.training` takes them.
    weights
        Folder of the weights' checkpoint, for their card; None looks for packaged weights of the recorded name.
    notes
        Warnings to list before those that are found in the data.
    title
        Title of the page.
    umap
        Whether to compute a UMAP of the embedding, which takes a while.
    library_key
        Column of obs that names the section of each spot; None for one section.
    table_key, image_key
        Table and image of a SpatialData object, or the image (`hires`, `lowres`) of an AnnData object.
    mpp
        µm per px of the full-resolution image; None derives it from the pitch of the spots.
    dpi
        Px per inch of the figures.

    Returns
    -------
    The path.

    Reads
    -----
    - `obs["stalign_domain"]`, `obs[truth]`, `obs["stalign_valid"]`
    - `obsm["X_stalign"]`, `obsm["spot_window"]`, `obsm["niche_window"]`, `obsp["niche_connectivities"]`
    - `obsm["spatial"]`, `uns["spatial"]`, `uns["stalign"]`

    Raises
    ------
    KeyError
        If `truth`, the table, the image or `library_key` does not exist.
    FileNotFoundError
        If there is no checkpoint at `weights`.

    Notes
    -----
    A figure that cannot be drawn is left out, and the warnings say why.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy()
    >>> path = stalign.pl.report(adata, "report.html", truth="domain")  # doctest: +SKIP
    """
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    table = table_of(data, table_key)
    if truth is not None:
        read_labels(table, truth)
    card = say.card(table, weights)
    common = {"table_key": table_key, "library_key": library_key, "image_key": image_key, "mpp": mpp}
    views = sections(data, **common)  # type: ignore[arg-type]
    has_domains = Keys.DOMAIN in table.obs
    if scores is None and truth is not None and has_domains:
        scores = say.score_table(table, views, truth)
    job = _Report(warnings=[*notes, *say.findings(table, views, truth)], dpi=dpi)
    with plt.ioff(), mpl.rc_context(), mpl.style.context("default"):
        job.add(
            "sections", "Sections", html.table(say.section_table(table, views), "Sections and their physical scale")
        )
        if has_domains or truth is not None:
            key = None if has_domains else truth
            job.draw(
                lambda: domains(data, key, truth=truth if has_domains else None, return_fig=True, **common),  # type: ignore[arg-type]
                say.map_text(table, views, truth, has_domains=has_domains),
                "Each spot at its true size over the image. Domains take the colour of the label they agree with most."
                if truth is not None
                else "Each spot at its true size over the image, in the colour of its domain.",
            )
            job.add("domains", "Domains", say.size_table(table, Keys.DOMAIN if has_domains else str(truth)))
        if scores is not None:
            numbers = scores
            job.draw(lambda: draw_scores(numbers, return_fig=True), "Bars of the scores in the table below.", _SCORES)
            job.add("scores", "Scores", html.table(scores, "Agreement of domains and labels", digits=3))
        if umap and Keys.EMBED in table.obsm and (has_domains or truth is not None):
            job.draw(
                lambda: embedding(data, truth=truth, table_key=table_key, library_key=library_key, return_fig=True),
                "Two-dimensional map of the embedding, a dot per spot, coloured by label and domain.",
                "UMAP of the embedding; distances between far groups mean nothing.",
            )
            job.add("embedding", "Embedding")
        if Keys.NICHE_GRAPH in table.obsp:
            job.draw(
                lambda: niches(data, return_fig=True, **common),  # type: ignore[arg-type]
                "Graph of which spots are averaged with which, and one niche up close.",
                "Niches. The solid square is the spot window, the dashed one the niche window.",
            )
        if {Keys.SPOT_WINDOW, Keys.NICHE_WINDOW} <= set(table.obsm) and any(view.image for view in views):
            by = truth or (Keys.DOMAIN if has_domains else None)
            job.draw(
                lambda: patches(data, by=by, return_fig=True, **common),  # type: ignore[arg-type]
                "Image patches of example spots, and of their niches below.",
                "Patches of one spot from the middle of each label.",
            )
        job.add("niches", "Niches and patches")
        if predicted is not None:
            result = predicted
            job.draw(
                lambda: genes(result, library_key=library_key, mpp=mpp, return_fig=True),
                "Maps of predicted expression, with the measured where there is some, of the most reliable genes.",
                "Predicted expression, and the measured where there is some, on one colour scale.",
            )
            job.add("genes", "Predicted genes", say.gene_table(predicted))
        if metrics is not None:
            curves = metrics
            job.draw(
                lambda: training(curves, return_fig=True), "Curves of the losses over steps.", "Losses over steps."
            )
            job.add("training", "Training")
    job.add("parameters", "Parameters", say.parameters(table))
    job.add("weights", "Weights", card)
    job.add("versions", "Versions", html.facts(say.versions(), "Software"))
    listed = html.bullets(job.warnings, kind="warnings") if job.warnings else html.paragraph("None.")
    job.sections.insert(0, ("warnings", "Warnings", listed))
    spots = f"{table.n_obs:,} spots, {table.n_vars:,} genes, {len(views)} section{'s' if len(views) > 1 else ''}."
    made = f"Made by stalign {say.package_version('stalign')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    return _write(Path(path), html.page(title, spots, job.sections, made))


@dataclass
class _Report:
    """Sections of the page so far, and figures that wait for theirs."""

    warnings: list[str]
    dpi: float
    sections: list[tuple[str, str, str]] = field(default_factory=list)
    waiting: str = ""

    def draw(self, figure: Callable[[], Any], alt: str, caption: str) -> None:
        """Draw a figure, or note why it could not be drawn."""
        try:
            drawn = figure()
        except (KeyError, ValueError) as error:
            reason = str(error.args[0]) if error.args else type(error).__name__
            logger.warning("Left out of the report: %s (%s)", caption, reason)
            self.warnings.append(f"A figure was left out ({caption.rstrip('.')}). {reason}")
            return
        self.waiting += html.picture(drawn, alt, caption, dpi=self.dpi)

    def add(self, key: str, heading: str, content: str = "") -> None:
        """Close a section, if there is anything in it."""
        if self.waiting or content:
            self.sections.append((key, heading, self.waiting + content))
        self.waiting = ""


def _write(path: Path, page: str) -> Path:
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    logger.info("Wrote the report to %s.", path)
    return path
