"""Labels for all spots from those of some, or from annotated sections."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, settings
from stalign._validate import message, one_of
from stalign.core.annotation import fit_annotation
from stalign.core.annotation_model import AnnotationModel
from stalign.data import table_of, write
from stalign.tl import _label_sections as read
from stalign.tl._label_sections import NO_LABEL, UNKNOWN, Source

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.core.annotation_features import SectionData

NAMED = ("lda", "logistic")
UNKNOWN_COLOR = "#808080"
_FALSE_ALARMS = 0.05  # share of labelled spots that `unknown=True` lets be called unknown
_LEAST_SHARED = 0.5  # share of a model's genes that a section has to have


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
    ignore: Collection[str] = NO_LABEL,
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
        Annotated sections, one object or several, or an `AnnotationModel` or the path of a saved one.
    classifier
        None for linear discriminant analysis with a shrunk covariance on the first 50 principal components of
        `use_rep`, and other features beside them where cross-validation on the labelled spots shows a gain (see
        Notes); `lda` for the first alone; `logistic` for logistic regression; or a classifier of scikit-learn with
        `predict_proba`, which is cloned.
    spatial
        Whether labels are smoothed over the ring of spots around each spot, with a strength that cross-validation
        chooses, 0 if it finds no gain; or the strength; False for none.
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
        If there are labelled spots of fewer than two labels, the features of query and reference differ, or an argument
        makes no sense.
    TypeError
        If `classifier` has no `predict_proba`, or `data` is no container.
    FileNotFoundError
        If `reference` is a path to no file.

    Notes
    -----
    Features are centred in each section. Where labels are carried from one or two sections, the plain classifier and
    the strength of the smoothing are all there is, as held-out spots of a section do not tell what helps on another.
    Else cross-validation, which holds out whole sections where labels are carried and patches of neighbouring spots
    where sections are completed, compares the embedding, its mean over the spots around, and
    principal components of expression of single spots and of the spots around; those that are as good as the best,
    within two standard errors, are averaged. What departs from the plain classifier has to be better by more than one
    standard error. With fewer than 20 labelled spots nothing is chosen.

    Probabilities are calibrated on held-out labelled spots. In a section of another donor or platform they promise too
    much; `uns["stalign_annotation"]` holds what was measured.

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
            read.read_sections(source, rep, _codes(found, names), values)
            for source, found, values in zip([*sources, own], labels, expressions, strict=True)
        ]
        _check_widths(rep, [part for object_ in parts for _, part in object_])
        every = [part for object_ in parts for _, part in object_]
        learned = [part for part in every if (part.labels >= 0).any()] or every  # without labels, an error follows
        kept, columns = read.keep_variable(learned, shared)
        learned, own_parts = (
            [read.with_genes(part, columns) for part in some] for some in (learned, [part for _, part in parts[-1]])
        )
        others = [part for part in own_parts if not (part.labels >= 0).any()]
        model = fit_annotation(
            learned, names, colors, use_rep=rep, genes=kept, classifier=_classifier(classifier),
            choice=classifier is None, spatial=spatial, by_section=bool(others) and len(learned) > 2,
            others=others, seed=seed,
        )  # fmt: skip
        rows = [rows for rows, _ in parts[-1]]
    else:
        rows, own_parts = _for_model(own, model, rep, own_labels, layer, total_counts)
        if spatial is not True:
            model = replace(model, strength=float(spatial))
    result = _predict(own.table, own_parts, rows, model, unknown=unknown, overwrite=overwrite)
    record = _record(
        model, truth=truth, use_rep=rep, spatial=spatial, unknown=unknown, overwrite=overwrite,
        library_key=library_key, random_state=seed, key_added=key,
        classifier=classifier if classifier is None or isinstance(classifier, str) else repr(classifier),
        reference=_described(reference),
    )  # fmt: skip
    slots = {
        "obs": {key if name == "label" else f"{key}_{name}": values for name, values in result["obs"].items()},
        "obsm": {f"{key}_probability": result["probability"]},
    }
    changed = write(data, slots, copy=copy, table_key=table_key)
    target = table_of(data if changed is None else changed, table_key)
    target.uns[key] = record
    target.uns[f"{key}_colors"] = [*model.colors, *([UNKNOWN_COLOR] if UNKNOWN in _categories(result) else [])]
    _tell(result, key, record)
    return changed


def annotation_model(
    source: AnnotationModel | AnnData | SpatialData | str | Path,
    *,
    key: str | None = None,
    table_key: str | None = None,
) -> AnnotationModel:
    """Get the labels that were learned, to save them or to carry them to other sections.

    Parameters
    ----------
    source
        Data that `tl.annotate` was called on, or the path of a saved model; a model is given back as it is.
    key
        The obs column of the annotation; None for `stalign_annotation`.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    The model, with `save`.

    Reads
    -----
    - `uns["stalign_annotation"]["model"]`

    Raises
    ------
    KeyError
        If `tl.annotate` was not called on the data, or with a classifier that can't be stored.
    FileNotFoundError
        If there is no file at the path.
    ValueError
        If the file is not a saved annotation model.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.annotate(adata, "domain")
    >>> path = stalign.tl.annotation_model(adata).save("layers")  # doctest: +SKIP
    >>> stalign.tl.annotate(other, reference=path)  # doctest: +SKIP
    """
    if isinstance(source, AnnotationModel):
        return source
    if isinstance(source, str | Path):
        return AnnotationModel.load(source)
    key = Keys.ANNOTATION if key is None else key
    found = table_of(source, table_key).uns.get(key, {})
    if "model" not in found:
        hint = "Call `tl.annotate` on these data first, with the default, `lda`, `logistic` or a linear classifier"
        raise KeyError(message(f"Expected a model in uns[{key!r}]", found="none", hint=hint))
    return AnnotationModel.from_dict(found["model"])


def _check(classifier: Any, spatial: bool | float, unknown: bool | float) -> None:  # noqa: FBT001
    if isinstance(classifier, str):
        one_of(classifier, NAMED, name="classifier")
    elif classifier is not None and not (hasattr(classifier, "fit") and hasattr(classifier, "predict_proba")):
        hint = "Pass 'lda', 'logistic' or a classifier of scikit-learn"
        raise TypeError(
            message("Expected a classifier with `fit` and `predict_proba`", found=type(classifier).__name__, hint=hint)
        )
    if not isinstance(spatial, bool) and not (np.isfinite(spatial) and spatial >= 0):
        raise ValueError(message("Expected `spatial` to be True, False or a strength of 0 or more", found=spatial))
    if not isinstance(unknown, bool) and not 0 < unknown < 1:
        raise ValueError(message("Expected `unknown` to be True, False or a share between 0 and 1", found=unknown))


def _classifier(named: Any) -> Any:
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
    """The fused embedding; that of the image where these sections were embedded from it alone, and the others not."""
    has_genes = [Keys.EMBED_GENE in source.table.obsm for source in sources]
    has_image = all(Keys.EMBED_IMAGE in source.table.obsm for source in (own, *sources))
    if not has_image or Keys.EMBED_GENE in own.table.obsm or not any(has_genes):
        return Keys.EMBED
    logger.info("These spots were embedded from the image alone: annotating by obsm[%r].", Keys.EMBED_IMAGE)
    return Keys.EMBED_IMAGE


def _codes(labels: pd.Categorical, names: Sequence[str]) -> np.ndarray:
    place = np.array([*(names.index(name) if name in names else -1 for name in labels.categories), -1], dtype=np.intp)
    return place[labels.codes]


def _check_widths(rep: str, parts: Sequence[SectionData]) -> None:
    widths = sorted({part.rep.shape[1] for part in parts})
    if len(widths) > 1:
        found = f"{' and '.join(map(str, widths))} columns"
        hint = "Embed all of them with the same weights"
        raise ValueError(
            message(f"Expected the same features in obsm[{rep!r}] of all sections", found=found, hint=hint)
        )


def _for_model(
    own: Source, model: AnnotationModel, rep: str, labels: pd.Categorical, layer: str | None, total_counts: str | None
) -> tuple[list[np.ndarray], list[SectionData]]:
    """Rows and data of the sections, in the genes of a model."""
    expression = None
    if any(part.source != "rep" for view in model.views for part in view):
        share = own.table.var_names.isin(model.genes).sum() / max(len(model.genes), 1)
        if share < _LEAST_SHARED:
            hint = "Fit the model with `genes=False`, or name the genes alike"
            raise ValueError(
                message(f"Expected the {len(model.genes)} genes of the model", found=f"{share:.0%} of them", hint=hint)
            )
        if share < 1:
            logger.warning("%.0f %% of the genes of the model are missing and taken as 0.", 100 * (1 - share))
        expression = read.expression_of(own.table, model.genes, layer=layer, total_counts=total_counts)
    found = read.read_sections(own, rep, _codes(labels, list(model.names)), expression)
    if found and found[0][1].rep.shape[1] != model.width:
        raise ValueError(
            message(f"Expected the {model.width} columns of the model in obsm[{rep!r}]",
                    found=found[0][1].rep.shape[1], hint="Embed with the weights that the reference was embedded with")
        )  # fmt: skip
    return [rows for rows, _ in found], [part for _, part in found]


def _predict(
    table: AnnData,
    parts: Sequence[SectionData],
    rows: Sequence[np.ndarray],
    model: AnnotationModel,
    *,
    unknown: bool | float,
    overwrite: bool,
) -> dict[str, Any]:
    """Labels, confidence, novelty and probabilities of all spots."""
    n, k = table.n_obs, len(model.names)
    probability, novelty = np.full((n, k), np.nan), np.full(n, np.nan)
    given = np.full(n, -1, dtype=np.intp)
    for own, part in zip(rows, parts, strict=True):
        given[own] = part.labels
        found = model.predict(part, given=None if overwrite else part.labels)
        probability[own], novelty[own] = found.probability, found.novelty
    known = np.isfinite(probability).all(axis=1)
    codes = np.full(n, -1, dtype=np.intp)
    codes[known] = probability[known].argmax(axis=1)
    measured = given >= 0
    if not overwrite:
        probability[measured] = np.eye(k)[given[measured]]
        codes[measured] = given[measured]
    confidence = np.full(n, np.nan)
    confidence[codes >= 0] = probability[codes >= 0].max(axis=1)
    categories = list(model.names)
    if unknown:
        limit = 1 - (_FALSE_ALARMS if unknown is True else float(unknown))
        strange = (novelty > limit) & (overwrite | ~measured)
        codes[strange] = k
        categories = [*categories, UNKNOWN]
    index = table.obs_names
    return {
        "obs": {
            "label": pd.Series(pd.Categorical.from_codes(codes, categories=categories), index=index),
            "confidence": pd.Series(confidence.astype(np.float32), index=index),
            "novelty": pd.Series(novelty.astype(np.float32), index=index),
            "given": pd.Series(measured, index=index),
        },
        "probability": probability.astype(np.float32),
    }


def _categories(result: dict[str, Any]) -> list[str]:
    return list(result["obs"]["label"].cat.categories)


def _described(reference: Any) -> str:
    if reference is None:
        return "none"
    if isinstance(reference, AnnotationModel | str | Path):
        return "model"
    return f"{len(reference) if isinstance(reference, list | tuple) else 1} object(s)"


def _record(model: AnnotationModel, **params: Any) -> dict[str, Any]:
    """What is written to uns: parameters, what was chosen, what was measured, and the model if it can be stored."""
    views = [" + ".join(f"{p.source}:{p.passes}:{p.n_components}" for p in view) for view in model.views]
    record: dict[str, Any] = {
        "params": {name: value for name, value in params.items() if value is not None},
        "views": views,
        "strength": model.strength,
        "temperature": model.temperature,
        "labels": list(model.names),
        "figures": dict(model.figures),
    }
    if model.can_be_saved:
        record["model"] = model.to_dict()
    else:
        logger.info("The model is not stored, as its classifier is not linear; files hold no pickles.")
    return record


def _tell(result: dict[str, Any], key: str, record: dict[str, Any]) -> None:
    labels, given = result["obs"]["label"], result["obs"]["given"]
    missing = int(labels.isna().sum())
    logger.info(
        "Annotated %d spots, of which %d had a label: added obs[%r]%s; %.0f %% of held-out labelled spots are right.",
        *(len(labels) - missing, int(given.sum()), key),
        f"; {missing} without features are NaN" if missing else "",
        100 * record["figures"]["accuracy"],
    )
