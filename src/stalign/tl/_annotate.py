"""Labels for all spots from those of some, or from annotated sections."""

from __future__ import annotations

from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger, settings
from stalign._threads import few_threads
from stalign._validate import message, one_of
from stalign.core.annotation import fit_annotation
from stalign.core.annotation_model import AnnotationModel
from stalign.core.labels import NO_LABEL_OR_UNKNOWN
from stalign.data import table_of, write
from stalign.tl import _label_sections as read
from stalign.tl._annotation_model import annotation_model
from stalign.tl._annotation_result import predict, record_of
from stalign.tl._label_sections import Source

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData


NAMED = ("lda", "logistic")


@few_threads
def annotate(
    data: AnnData | SpatialData,
    truth: str = "layer",
    *,
    reference: AnnData | SpatialData | AnnotationModel | str | Path | Sequence[AnnData | SpatialData] | None = None,
    classifier: Any = None,
    spatial: bool | float = True,
    unknown: bool | float = False,
    overwrite: bool = False,
    use_rep: str | None = None,
    genes: bool | None = None,
    layer: str | None = None,
    total_counts: str | None = None,
    ignore: Collection[str] = NO_LABEL_OR_UNKNOWN,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Give every spot a label, from the labels of some spots, of annotated sections, or of both.

    Without a reference, the labels in `obs[truth]` are completed. With one, its labels are carried to these sections,
    and labels that these have already are learned from as well. A spot that has a label keeps it.

    Parameters
    ----------
    data
        One or more sections with an embedding.
    truth
        The obs column of labels, in these sections and in the reference. Missing values and those of `ignore` mean
        that a spot has no label. With a reference, these sections need not have the column.
    reference
        Annotated sections, one object or several, or an `AnnotationModel` or the path of a saved one. Labels of these
        sections that a model does not know are kept, and not learned.
    classifier
        None for linear discriminant analysis with a shrunk covariance on several kinds of features, which
        cross-validation on the labelled spots can change (see Notes); `lda` for one on the first 50 principal
        components of `use_rep` alone; `logistic` for logistic regression; or a classifier of scikit-learn with
        `predict_proba`, which is cloned.
    spatial
        Whether labels that complete a section are smoothed over two rings of spots around each spot, with the usual
        strength of .5 unless cross-validation finds a better one; or the strength, for carried labels too; False for
        none.
    unknown
        Whether a spot unlike anything in the reference is called `unknown`: the share of known spots that may be called
        so by mistake, within sections that were annotated; True for .05.
    overwrite
        Whether spots with a label get the predicted one.
    use_rep
        The obsm key of the embedding; None for `X_stalign`, or for that of a model. Where these sections were embedded
        from the image alone, as slides without spots are, and the reference was not, None is `X_stalign_image`.
    genes
        Whether expression is used beside the embedding, in genes that all sections have; None uses it where
        `classifier` and `use_rep` are not given and all sections have raw counts.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column with each spot's total count over all genes, for tables of selected genes.
    ignore
        Labels that mean "no label", beside missing values.
    library_key
        obs column that names the section of each spot; None for one section. In a reference without this column, the
        object is one section.
    table_key
        Table of SpatialData objects.
    random_state
        Seed; None for `settings.seed`.
    key_added
        The obs column to write; None for `stalign_annotation`. Other slots are named after it.
    copy
        Return a changed copy instead of writing in place.

    Returns
    -------
    None, or the changed copy.

    Reads
    -----
    - `obs[truth]`: labels
    - `obsm[use_rep]`, (n_obs, d) float: spots with NaN get no label
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image
    - `X` or `layers[layer]`: raw counts, where expression is used

    Writes
    ------
    - `obs["stalign_annotation"]`, (n_obs,) categorical of strings, with the names and the order of the reference
    - `obs["stalign_annotation_confidence"]`, (n_obs,) float32: probability of the label; 1 for a label that was kept
    - `obs["stalign_annotation_novelty"]`, (n_obs,) float32: share of labelled spots that are more like their class,
      from 0 to 1; near 1 is unlike anything in the reference
    - `obs["stalign_annotation_given"]`, (n_obs,) bool: whether the spot had a label
    - `obsm["stalign_annotation_probability"]`, (n_obs, n_labels) float32: in the order of the labels
    - `uns["stalign_annotation_colors"]`, list of strings: `#RRGGBB` for each category
    - `uns["stalign_annotation"]`: parameters, what was chosen and measured, and the model

    Raises
    ------
    KeyError
        If the embedding, a column or a table does not exist.
    ValueError
        If there are labelled spots of fewer than two labels, the features of query and reference differ, a label is
        `unknown` beside `unknown=`, or an argument makes no sense, such as a classifier beside a model.
    TypeError
        If `classifier` has no `predict_proba`, or `data` is no container.
    FileNotFoundError
        If `reference` is a path to no file.

    Notes
    -----
    Features are centred in each section. Classifiers of the embedding of single spots, of its means over the spots
    around, and of expression where there are counts are averaged, and where a section is completed their probabilities
    are smoothed over two rings of spots. Cross-validation, which holds out whole sections where labels are carried from
    three or more and patches of neighbouring spots otherwise, compares these and further features; those that are as
    good as the best, within two standard errors, are averaged instead if more spots are right then, and another
    strength is taken if it makes their labels likelier, each by more than one standard error. With fewer than 20
    labelled spots nothing is chosen.

    Probabilities are calibrated on held-out labelled spots. In a section of another donor or platform they promise too
    much; `uns["stalign_annotation"]` holds what was measured.

    The arguments are many because counts, image, scale and section can each lie elsewhere in a container; they have the
    same names in all calls, and all have defaults.

    Examples
    --------
    >>> import numpy as np
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> adata.obs["few"] = adata.obs["domain"].where(np.arange(adata.n_obs) % 5 == 0)
    >>> stalign.tl.annotate(adata, "few")
    >>> list(adata.obs["stalign_annotation"].cat.categories)
    ['L1', 'L2/3', 'L4', 'L5/6', 'WM']
    """
    _check(classifier, spatial, unknown)
    key = Keys.ANNOTATION if key_added is None else key_added
    seed = settings.seed if random_state is None else random_state
    own = Source(data, table_of(data, table_key), library_key, table_key)
    model, sources = _resolve(reference, own)
    rep = use_rep or (model.use_rep if model is not None else _shared_rep(own, sources))
    if model is None and not sources and truth not in own.table.obs:
        read.read_names(own.table, truth, ignore)  # raises
    own_labels = read.read_names(own.table, truth, ignore) if truth in own.table.obs else read.no_labels(own.table)
    if model is None:
        use_genes = genes if genes is not None else (None if classifier is None and use_rep is None else False)
        common = {"layer": layer, "total_counts": total_counts}
        labels = [read.read_names(source.table, truth, ignore) for source in sources] + [own_labels]
        tables = [source.table for source in sources] + [own.table]
        names, colors = read.joined_names(tables, labels, truth)
        expressions, shared = read.read_expression([*sources, own], genes=use_genes, **common)
        parts = [
            read.read_sections(source, rep, read.codes_of(found, names), values)
            for source, found, values in zip([*sources, own], labels, expressions, strict=True)
        ]
        read.check_widths(rep, [part for object_ in parts for _, part in object_])
        every = [part for object_ in parts for _, part in object_]
        learned = [part for part in every if ((part.labels >= 0) & part.usable).any()] or every  # else an error follows
        kept, columns = read.keep_variable(learned, shared)
        learned, own_parts = (
            [read.with_genes(part, columns) for part in some] for some in (learned, [part for _, part in parts[-1]])
        )
        carried = any(not (part.labels >= 0).any() for part in own_parts)
        model = fit_annotation(
            learned, names, colors, use_rep=rep, genes=kept, classifier=_classifier(classifier),
            choice=classifier is None, spatial=spatial, by_section=carried and len(learned) > 2,
            carried=carried, seed=seed,
        )  # fmt: skip
        rows = [rows for rows, _ in parts[-1]]
    else:
        if classifier is not None or genes is not None:
            expected = "Expected `classifier` and `genes` to be left out, as the model in `reference` has its own"
            raise ValueError(message(expected, found=f"classifier={classifier!r}, genes={genes!r}"))
        names, colors = read.joined_names([own.table], [own_labels], truth, model)  # own ones after those of the model
        codes = read.codes_of(own_labels, names)
        rows, own_parts = read.sections_for_model(own, model, rep, codes, layer, total_counts)
        if spatial is not True:
            model = replace(model, strength=float(spatial))
    result = predict(own.table.n_obs, own_parts, rows, model, names, unknown=unknown, overwrite=overwrite)
    record = record_of(
        model, names, truth=truth, use_rep=rep, spatial=spatial, unknown=unknown, overwrite=overwrite,
        library_key=library_key, random_state=seed, key_added=key,
        classifier=classifier if classifier is None or isinstance(classifier, str) else repr(classifier),
        reference=_described(reference),
    )  # fmt: skip
    changed = write(data, result.slots(key, own.table.obs_names), copy=copy, table_key=table_key)
    target = table_of(data if changed is None else changed, table_key)
    target.uns[key], target.uns[f"{key}_colors"] = record, result.colors(colors)
    result.log(key, record["figures"]["accuracy"])
    return changed


def _check(classifier: Any, spatial: bool | float, unknown: bool | float) -> None:  # noqa: FBT001
    """Refuse arguments that make no sense."""
    if isinstance(classifier, str):
        one_of(classifier, NAMED, name="classifier")
    elif classifier is not None and not (hasattr(classifier, "fit") and hasattr(classifier, "predict_proba")):
        hint = "Pass 'lda', 'logistic' or a classifier of scikit-learn"
        raise TypeError(
            message("Expected a classifier with `fit` and `predict_proba`", found=type(classifier).__name__, hint=hint)
        )
    if not isinstance(spatial, bool) and not (isinstance(spatial, Real) and np.isfinite(spatial) and spatial >= 0):
        raise ValueError(
            message("Expected `spatial` to be True, False or a strength of 0 or more", found=repr(spatial))
        )
    if not isinstance(unknown, bool) and not (isinstance(unknown, Real) and 0 < unknown < 1):
        raise ValueError(
            message("Expected `unknown` to be True, False or a share between 0 and 1", found=repr(unknown))
        )


def _classifier(named: Any) -> Any:
    """The classifier that is cloned; None for discriminant analysis."""
    if named == "logistic":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1000)
    return None if isinstance(named, str) else named


def _resolve(reference: Any, own: Source) -> tuple[AnnotationModel | None, list[Source]]:
    """The model, or the objects to learn from; the query itself is learned from anyway."""
    if isinstance(reference, AnnotationModel | str | Path):
        return annotation_model(reference), []
    items = [] if reference is None else list(reference) if isinstance(reference, list | tuple) else [reference]
    if reference is not None and not items:
        raise ValueError(message("Expected at least one annotated section in `reference`", found="an empty list"))
    sources = []
    for item in items:
        if isinstance(item, AnnotationModel | str | Path):
            raise TypeError(message("Expected sections, or one model alone, in `reference`", found=type(item).__name__))
        table = table_of(item, own.table_key)
        if table is own.table:
            logger.info("The reference holds the sections that are to be annotated: their own labels are completed.")
            continue
        key = own.library_key if own.library_key in table.obs else None
        sources.append(Source(item, table, key, own.table_key))
    return None, sources


def _shared_rep(own: Source, sources: Sequence[Source]) -> str:
    """X_stalign; the embedding of the image where these sections were embedded from it alone, and the others not."""
    has_genes = [Keys.EMBED_GENE in source.table.obsm for source in sources]
    has_image = all(Keys.EMBED_IMAGE in source.table.obsm for source in (own, *sources))
    if not has_image or Keys.EMBED_GENE in own.table.obsm or not any(has_genes):
        return Keys.EMBED
    logger.info("These spots were embedded from the image alone: annotating by obsm[%r].", Keys.EMBED_IMAGE)
    return Keys.EMBED_IMAGE


def _described(reference: Any) -> str:
    """Say in the record what labels came from."""
    if reference is None:
        return "none"
    if isinstance(reference, AnnotationModel | str | Path):
        return "model"
    return f"{len(reference) if isinstance(reference, list | tuple) else 1} object(s)"
