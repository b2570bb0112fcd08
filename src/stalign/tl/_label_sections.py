"""What annotation reads: labels, an embedding, expression and neighbours of the sections of several objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.core.annotation_features import SectionData, most_variable
from stalign.core.expression import normalise
from stalign.core.labels import as_labels
from stalign.core.palette import palette
from stalign.core.refine import ring_graph
from stalign.data import has_counts, open_sections, read_counts
from stalign.data.table import check_labels, label_columns
from stalign.tl._domains import features_of
from stalign.tl._modality import check_modality

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.core.annotation_model import AnnotationModel

UNKNOWN = "unknown"
_LEAST_SHARED = 0.5  # share of a model's genes that a section has to have


@dataclass(frozen=True)
class Source:
    """One object that spots are read from.

    Parameters
    ----------
    data
        AnnData or SpatialData.
    table
        Its table.
    library_key
        obs column that names the section of each spot, or None.
    table_key
        Name of the table of a SpatialData.
    """

    data: AnnData | SpatialData
    table: AnnData
    library_key: str | None
    table_key: str | None


def read_names(table: AnnData, truth: str, ignore: Collection[str]) -> pd.Categorical:
    """Read labels as a categorical of strings, NaN where there is none; categories in the order of the column."""
    if truth not in table.obs:
        expected = "Expected `truth` to name a column of obs"
        raise KeyError(message(expected, found=repr(truth), available=label_columns(table)))
    check_labels(table, truth, name="truth")
    column = table.obs[truth]
    labels = as_labels(column, ignore=(ignore,) if isinstance(ignore, str) else ignore)
    present = {label for label in labels if label is not None}
    if isinstance(column.dtype, pd.CategoricalDtype):
        order = [name for name in dict.fromkeys(as_labels(column.cat.categories, ignore=())) if name in present]
    elif all(name.isdecimal() for name in present):
        order = sorted(present, key=int)
    else:
        order = sorted(present)
    return pd.Categorical(labels, categories=order)


def joined_names(
    tables: Sequence[AnnData],
    labels: Sequence[pd.Categorical],
    truth: str,
    model: AnnotationModel | None = None,
) -> tuple[list[str], list[str]]:
    """Names of all labels and a colour for each: order and colours of the model, or the first table, that has them."""
    stored = {} if model is None else dict(zip(model.names, model.colors, strict=True))
    names: list[str] = list(dict.fromkeys([*stored, *(str(name) for found in labels for name in found.categories)]))
    for table in tables:
        colors = table.uns.get(f"{truth}_colors")
        if colors is not None and truth in table.obs and isinstance(table.obs[truth].dtype, pd.CategoricalDtype):
            for name, color in zip(as_labels(table.obs[truth].cat.categories, ignore=()), colors, strict=False):
                stored.setdefault(name, str(color))
    taken = {color.upper() for color in stored.values()}
    spare = (color for color in palette(len(names) + len(taken)) if color.upper() not in taken)
    return names, [stored[name] if name in stored else next(spare) for name in names]


def no_labels(table: AnnData) -> pd.Categorical:
    """Labels of a table where no spot has one."""
    return pd.Categorical([None] * table.n_obs, categories=[])


def read_sections(
    source: Source, use_rep: str, codes: np.ndarray, expression: sparse.csr_matrix | None
) -> list[tuple[np.ndarray, SectionData]]:
    """Read the sections of an object: rows and data of each."""
    check_modality(source.table, use_rep)
    rep = features_of(source.table, use_rep)
    opened = open_sections(source.data, library_key=source.library_key, table_key=source.table_key, image=False)
    if Keys.SPATIAL in source.table.obsm:
        views = [(one.rows, one.positions) for one in opened]
    else:
        logger.warning("No coordinates in obsm[%r]: labels are not smoothed over neighbours.", Keys.SPATIAL)
        views = [(one.rows, np.full((len(one), 2), np.nan)) for one in opened]
    return [
        (
            rows,
            SectionData(
                np.asarray(rep[rows], dtype=np.float64), ring_graph(coords), codes[rows],
                None if expression is None else expression[rows], coords,
            ),
        )
        for rows, coords in views
    ]  # fmt: skip


def read_expression(
    sources: Sequence[Source], *, genes: bool | None, layer: str | None, total_counts: str | None
) -> tuple[list[sparse.csr_matrix | None], list[str]]:
    """Read normalised expression in the genes that all objects have; None for each where it is not to be used.

    With `genes=None` it is left out, and the log says why, where an object has no raw counts.
    """
    without: tuple[list[sparse.csr_matrix | None], list[str]] = [None] * len(sources), []
    if genes is False:
        return without
    tables = [source.table for source in sources]
    reason = _why_not(tables, layer)
    if not reason:
        shared = tables[0].var_names
        for table in tables[1:]:
            shared = shared[shared.isin(table.var_names)]
        reason = "" if len(shared) > 1 else "reference and query share no genes"
    if reason:
        if genes:
            raise ValueError(message("Expected raw counts of the same genes in all sections", found=reason))
        logger.info("Labels are read from the embedding alone: %s.", reason)
        return without
    found: list[sparse.csr_matrix | None] = [
        expression_of(table, shared, layer=layer, total_counts=total_counts) for table in tables
    ]
    return found, [str(name) for name in shared]


def _why_not(tables: Sequence[AnnData], layer: str | None) -> str:
    """Say why expression can't be used, or nothing."""
    for table in tables:
        if layer is not None and layer not in table.layers:
            return f"no layer {layer!r}"
        if not has_counts(table, layer):
            return "no counts"
        if not table.var_names.is_unique:
            return "names of genes that are not unique"
        matrix = table.X if layer is None else table.layers[layer]
        sample = matrix[: min(200, table.n_obs)]
        sample = sample.compute() if hasattr(sample, "compute") else sample
        values = sparse.csr_matrix(sample).data
        if not np.isfinite(values).all() or (values < 0).any() or (values % 1 != 0).any():
            return f"no raw counts in {'X' if layer is None else f'layers[{layer!r}]'}"
    return ""


def expression_of(
    table: AnnData, genes: Sequence[str], *, layer: str | None, total_counts: str | None
) -> sparse.csr_matrix:
    """Normalised expression of some genes, CSR (n, g); a gene that the table lacks is 0 throughout."""
    named = total_counts if total_counts in table.obs else None
    counts, totals = read_counts(table, layer=layer, total_counts=named)
    values = normalise(counts, totals)
    place = table.var_names.get_indexer(pd.Index(genes))
    there = np.flatnonzero(place >= 0)
    chosen = sparse.csr_matrix(
        (np.ones(len(there), np.float32), (place[there], there)), shape=(table.n_vars, len(genes))
    )
    return sparse.csr_matrix(values @ chosen)


def keep_variable(parts: Sequence[SectionData], names: Sequence[str]) -> tuple[list[str], np.ndarray | None]:
    """Choose the genes that vary most within sections: names and columns."""
    if not parts or any(part.expression is None for part in parts):
        return [], None
    columns = most_variable(parts)
    return [names[column] for column in columns], columns


def with_genes(part: SectionData, columns: np.ndarray | None) -> SectionData:
    """Keep some columns of the expression, or none."""
    if columns is None or part.expression is None:
        return replace(part, expression=None)
    return replace(part, expression=sparse.csr_matrix(part.expression[:, columns]))


def codes_of(labels: pd.Categorical, names: Sequence[str]) -> np.ndarray:
    """Position of each label in the names, -1 where there is none."""
    place = np.array([*(names.index(name) if name in names else -1 for name in labels.categories), -1], dtype=np.intp)
    return np.asarray(place[labels.codes])


def check_widths(rep: str, parts: Sequence[SectionData]) -> None:
    """Refuse embeddings of different widths."""
    widths = sorted({part.rep.shape[1] for part in parts})
    if len(widths) > 1:
        found = f"{' and '.join(map(str, widths))} columns"
        hint = "Embed all of them with the same weights"
        raise ValueError(
            message(f"Expected the same features in obsm[{rep!r}] of all sections", found=found, hint=hint)
        )


def sections_for_model(
    own: Source, model: AnnotationModel, rep: str, codes: np.ndarray, layer: str | None, total_counts: str | None
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
        expression = expression_of(own.table, model.genes, layer=layer, total_counts=total_counts)
    found = read_sections(own, rep, codes, expression)
    if found and found[0][1].rep.shape[1] != model.width:
        raise ValueError(
            message(f"Expected the {model.width} columns of the model in obsm[{rep!r}]",
                    found=found[0][1].rep.shape[1], hint="Embed with the weights that the reference was embedded with")
        )  # fmt: skip
    return [rows for rows, _ in found], [part for _, part in found]
