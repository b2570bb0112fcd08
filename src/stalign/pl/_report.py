"""A report that can be sent on: one HTML file with figures, scores, parameters, weights, warnings and versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import text_of
from stalign.core.files import write_whole
from stalign.data import open_sections, table_of
from stalign.pl import _findings as content
from stalign.pl._annotate import annotate
from stalign.pl._domains import domains
from stalign.pl._embedding import embedding
from stalign.pl._genes import genes
from stalign.pl._html import page, part, picture, png_of
from stalign.pl._labels import read_labels, resolve
from stalign.pl._niches import niches
from stalign.pl._patches import patches
from stalign.pl._records import from_weights, seen_in_training, split_of, stored_card
from stalign.pl._scores import scores as draw_scores
from stalign.pl._training import training

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd
    from anndata import AnnData
    from markupsafe import Markup
    from spatialdata import SpatialData

T = TypeVar("T")
_DOMAINS = "Each spot at its true size over the image, in the colour of its domain."
_TRUTH = " Labels without colours of their own take those of the domains they agree with most."
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
    basis: str | None = None,
    figures: str | Path | None = None,
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
    basis
        obsm key of two dimensions to draw instead of a UMAP, as in `pl.embedding`.
    figures
        Folder to write the figures to as well, as PNG: those of `domains`, `annotation`, `scores`, `embedding`,
        `niches`, `patches`, `genes` and training `curves` that are in the report.
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
    - `obs["stalign_domain"]`, `obs["stalign_annotation"]`, `obs[truth]`, `obs["stalign_valid"]`
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
    A part that fails is left out, and the warnings say why; the verbosity "debug" logs the traceback. Domains have the
    same colours in all figures. What predicted genes were fitted to, and which sections the weights were trained on,
    stands under the figures.

    The arguments are many because each part of the report can be given or left out, and because sections, image and
    scale are found as in all plots.

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
    stored = stored_card(table, weights)
    common: dict[str, Any] = {
        "table_key": table_key,
        "library_key": library_key,
        "image_key": image_key,
        "mpp": mpp,
    }
    views = open_sections(data, **common)
    has_domains = Keys.DOMAIN in table.obs
    job = _Report(list(notes), dpi, None if figures is None else Path(figures))
    rows = {view.name: view.rows for view in views}
    known = job.made("Sections in the training were left out", lambda: seen_in_training(table, rows, card=stored)) or []
    job.warnings += job.made("Warnings were left out", lambda: content.findings(table, views, truth)) or []
    job.warnings += known
    seen = " ".join(known)
    if scores is None and truth is not None and has_domains:
        scores = job.made("The scores were left out", lambda: content.score_table(table, views, truth))
    with plt.ioff(), mpl.rc_context(), mpl.style.context("default"):
        job.add("sections", "Sections", lambda: content.section_table(table, views))
        if has_domains or truth is not None:
            shown = Keys.DOMAIN if has_domains else str(truth)
            job.draw(
                "the domains",
                lambda: domains(data, shown, truth=truth if has_domains else None, return_fig=True, **common),
                lambda: content.map_text(table, views, truth, has_domains=has_domains),
                f"{_DOMAINS}{_TRUTH if has_domains and truth is not None else ''} "
                f"{seen if has_domains and from_weights(table) else ''}",
            )
            job.add("domains", "Domains", lambda: content.size_table(table, shown))
        if Keys.ANNOTATION in table.obs:
            job.draw(
                "the annotation",
                lambda: annotate(data, truth=truth, return_fig=True, **common),
                "Labels of the annotation over the tissue, and their confidence.",
                "Labels given to all spots from those of some, or from other sections, and how sure they are.",
            )
            about = "How labels were given, and how many are right"
            job.add("annotation", "Annotation", lambda: part("facts", content.annotation(table, views, truth), about))
        if scores is not None:
            numbers = scores
            job.draw(
                "the scores", lambda: draw_scores(numbers, return_fig=True), "Bars of the scores in the table below.",
                f"{_SCORES} {seen if from_weights(table) else ''}",
            )  # fmt: skip
            job.add("scores", "Scores", lambda: part("table", numbers, "Agreement of domains and labels", digits=3))
        if (basis or (umap and Keys.EMBED in table.obsm)) and (has_domains or truth is not None):
            where: dict[str, Any] = {"basis": basis, "table_key": table_key, "library_key": library_key}
            umap_says = "UMAP of the embedding; distances between far groups mean nothing."
            what = umap_says if basis is None else f"The two dimensions in obsm[{basis!r}]."
            job.draw(
                "the embedding",
                lambda: embedding(data, truth=truth, return_fig=True, **where),
                "Two-dimensional map of the embedding, a dot per spot, coloured by label and domain.",
                f"{what} {seen}",
            )
            job.add("embedding", "Embedding")
        if Keys.NICHE_GRAPH in table.obsp:
            job.draw(
                "the niches",
                lambda: niches(data, return_fig=True, **common),
                "Graph of which spots are averaged with which, and one niche up close.",
                "Niches. The solid square is the spot window, the dashed one the niche window.",
            )
        if {Keys.SPOT_WINDOW, Keys.NICHE_WINDOW} <= set(table.obsm) and any(view.image for view in views):
            job.draw(
                "the patches",
                lambda: patches(
                    data, return_fig=True, **_as_on_the_map(table, truth, has_domains=has_domains), **common
                ),
                "Image patches of example spots, and of their niches below.",
                "Patches of one spot from the middle of each label.",
            )
        job.add("niches", "Niches and patches")
        if predicted is not None:
            result = predicted
            split = split_of(result)
            job.draw(
                "the predicted genes",
                lambda: genes(result, library_key=library_key, mpp=mpp, return_fig=True),
                "Maps of predicted expression, with the measured where there is some, of the most reliable genes.",
                "Predicted expression, and the measured where there is some, on one colour scale. "
                f"{split}{'.' if split else ''} {seen}",
            )
            job.add("genes", "Predicted genes", lambda: content.gene_table(result))
        if metrics is not None:
            curves = metrics
            job.draw(
                "the training curves",
                lambda: training(curves, return_fig=True),
                "Curves of the losses over steps.",
                "Losses over steps.",
            )
            job.add("training", "Training")
    job.add("parameters", "Parameters", lambda: content.parameters(table))
    job.add("weights", "Weights", lambda: content.card(table, stored))
    job.add("versions", "Versions", lambda: part("facts", content.versions(), "Software"))
    job.sections.insert(0, ("warnings", "Warnings", [part("warnings", job.warnings)]))
    spots = f"{table.n_obs:,} spots, {table.n_vars:,} genes, {len(views)} section{'s' if len(views) > 1 else ''}."
    made = f"Made by stalign {content.package_version('stalign')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page(title, spots, job.sections, made).encode())
    logger.info("Wrote the report to %s.", path)
    return path


def _as_on_the_map(table: AnnData, truth: str | None, *, has_domains: bool) -> dict[str, Any]:
    """Which labels patches are taken from, in the colours that these have in the map of domains."""
    if truth is None:
        return {"by": Keys.DOMAIN if has_domains else None}
    labels = resolve(table, [Keys.DOMAIN] if has_domains else [], truth, None, None)[0]
    return {"by": truth, "palette": dict(zip(labels.names, labels.colors, strict=True))}


@dataclass
class _Report:
    """Sections of the page so far, and figures that wait for theirs."""

    warnings: list[str]
    dpi: float
    folder: Path | None
    sections: list[tuple[str, str, list[Markup]]] = field(default_factory=list)
    waiting: list[Markup] = field(default_factory=list)

    def made(self, left_out: str, make: Callable[[], T]) -> T | None:
        """Make a part of the report, or say why it is left out: no part takes the report with it."""
        from matplotlib import pyplot as plt

        before = set(plt.get_fignums())
        try:
            return make()
        except Exception as error:  # noqa: BLE001
            reason = text_of(error)
            if not reason.startswith("Expected"):  # else it is a sentence of stalign
                reason = f"{type(error).__name__}: {reason}"
            logger.warning("Report: %s. %s", left_out, reason)
            logger.debug("Report: %s", left_out, exc_info=True)
            self.warnings.append(f"{left_out}. {reason}")
            return None
        finally:
            for number in set(plt.get_fignums()) - before:
                plt.close(number)

    def draw(self, what: str, figure: Callable[[], Any], alt: str | Callable[[], str], caption: str) -> None:
        """Draw a figure, and write it to the folder of figures under the last word of what it shows."""
        drawn = self.made(
            f"A figure was left out ({what})",
            lambda: (png_of(figure(), dpi=self.dpi), alt if isinstance(alt, str) else alt()),
        )
        if drawn is None:
            return
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / f"{what.split()[-1]}.png", drawn[0])
        self.waiting.append(picture(*drawn, caption.strip()))

    def add(self, key: str, heading: str, make: Callable[[], Markup] | None = None) -> None:
        """Close a section, if there is anything in it."""
        made = None if make is None else self.made(f"A table was left out ({heading})", make)
        if parts := self.waiting + ([made] if made else []):
            self.sections.append((key, heading, parts))
        self.waiting = []
