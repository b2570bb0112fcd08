"""What gene prediction reads: features, expression, sections and positions, of one object or of several."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.expression import normalise
from stalign.core.training_data import DONOR
from stalign.data import has_counts, label_columns, open_sections, read_counts, table_of
from stalign.tl._domains import features_of
from stalign.tl._image_features import ImageFeatures
from stalign.tl._modality import check_modality

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    Sources = tuple[tuple[int, ...], ...]

TARGETS = ("cp10k", "counts")


@dataclass(frozen=True)
class ReadOptions:
    """How a table is read.

    Parameters
    ----------
    features
        obsm keys whose columns are the features, or what computes them from images.
    target
        `cp10k`: log1p of counts per 10,000; `counts`: log1p of the counts.
    layer
        Layer of the raw counts; None for `.X`.
    total_counts
        obs column of each spot's total count; None for the row sums.
    library_key
        obs column that names the section of each spot.
    table_key
        Table of SpatialData objects.
    """

    features: Sequence[str] | ImageFeatures
    target: str
    layer: str | None
    total_counts: str | None
    library_key: str | None
    table_key: str | None

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return self.features.names if isinstance(self.features, ImageFeatures) else list(self.features)

    def of(self, key: str) -> ReadOptions:
        """Return the same for features under another obsm key."""
        return replace(self, features=[key])


@dataclass(frozen=True)
class Spots:
    """Spots of one or more sections, ready to be regressed.

    Parameters
    ----------
    features
        Features, (n, f) float64; rows with NaN are spots without.
    expression
        The target, such as log1p of counts per 10,000, CSR (n, g), or None where there are no counts.
    measured
        Whether a spot has any counts, (n,) bool.
    genes
        Name of each column, (g,) str.
    groups
        The section of each spot, (n,) intp.
    coords
        Centres, (n, 2), NaN where unknown; comparable within a section only.
    patients
        The patient of each spot, (n,) str; "" where unknown.
    sources
        How many features each block of each source has.
    """

    features: np.ndarray
    expression: sparse.csr_matrix | None
    measured: np.ndarray
    genes: np.ndarray
    groups: np.ndarray
    coords: np.ndarray
    patients: np.ndarray
    sources: Sources

    @property
    def usable(self) -> np.ndarray:
        """Spots with features, (n,) bool."""
        return np.asarray(np.isfinite(self.features).all(axis=1))

    def beside(self, other: Spots | None) -> Spots:
        """Put the features that these spots are found by beside their own; zeros for spots that are not to be found."""
        found_by = np.zeros_like(self.features) if other is None else other.features
        if found_by.shape != self.features.shape:
            found = f"{self.features.shape[1]} and {found_by.shape[1]}"
            hint = "Name image and gene embeddings of one set of weights in `use_rep` and `match`"
            raise ValueError(
                message("Expected features and what `match` names to be of one width", found=found, hint=hint)
            )
        return replace(self, features=np.hstack([self.features, found_by]))

    def columns(self, names: np.ndarray) -> np.ndarray:
        """Find genes: their columns, (m,) intp, with -1 for those that are not there."""
        where = {name: position for position, name in enumerate(self.genes)}
        return np.array([where.get(name, -1) for name in names], dtype=np.intp)

    def values(self, names: np.ndarray) -> np.ndarray | None:
        """Get the expression of genes, (n, m) float64, NaN where not measured; None where there are no counts."""
        if self.expression is None:
            return None
        columns = self.columns(names)
        values = np.full((len(self.measured), len(names)), np.nan)
        values[:, columns >= 0] = self.expression[:, columns[columns >= 0]].toarray()
        values[~self.measured] = np.nan
        return values


def read_spots(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData], how: ReadOptions, patient_key: str | None = None
) -> Spots:
    """Read features and expression.

    Parameters
    ----------
    data
        One object, or several that are taken together.
    how
        How they are read.
    patient_key
        obs column that names the patient of each spot; None for the one column that has such a name.

    Returns
    -------
    The spots of all objects, with the genes that all of them have, in the order of the first.

    Raises
    ------
    KeyError
        If an embedding, layer or column is missing.
    ValueError
        If counts are negative, gene names are not unique, there is no image to make features of, or no object.
    """
    if not isinstance(data, list | tuple):
        return _read(data, how, patient_key)
    parts = [_read(item, how, patient_key) for item in data]
    if not parts:
        raise ValueError(message("Expected at least one reference section", found="an empty list"))
    return _join(parts)


def _read(data: AnnData | SpatialData, how: ReadOptions, patient_key: str | None) -> Spots:
    table = table_of(data, how.table_key)
    section = np.zeros(table.n_obs, dtype=np.intp)
    patients = _patients(table, patient_key)
    coords = np.full((table.n_obs, 2), np.nan)
    sections = open_sections(data, library_key=how.library_key, table_key=how.table_key, image=False)
    for number, one in enumerate(sections):
        section[one.rows] = number
        if Keys.SPATIAL in table.obsm:
            coords[one.rows] = one.positions
    expression, measured = None, np.zeros(table.n_obs, dtype=bool)
    if has_counts(table, how.layer):
        if not table.var_names.is_unique:
            twice = table.var_names[table.var_names.duplicated()].unique()
            hint = "Call `data.var_names_make_unique()`, or add them up"
            raise ValueError(
                message("Expected each gene once", found=f"{len(twice)} twice, such as {twice[0]!r}", hint=hint)
            )
        counts, totals = read_counts(table, layer=how.layer, total_counts=how.total_counts)
        expression = normalise(counts, totals) if how.target == "cp10k" else sparse.csr_matrix(counts).log1p()
        measured = np.asarray(counts.sum(axis=1)).ravel() > 0
    genes = table.var_names.to_numpy().astype(str)
    features, sources = _features(data, table, how)
    return Spots(features, expression, measured, genes, section, coords, patients, sources)


def _patients(table: AnnData, key: str | None) -> np.ndarray:
    """Read the patient of each spot, (n,) str, "" where unknown."""
    if key is None:
        named = [name for name in table.obs if str(name).lower().removesuffix("_id") in DONOR]
        key = named[0] if len(named) == 1 else None
    elif key not in table.obs:
        expected = "Expected `patient_key` to name a column of obs"
        raise KeyError(message(expected, found=repr(key), available=label_columns(table)))
    if key is None:
        return np.full(table.n_obs, "", dtype=object)
    column = table.obs[key].astype(object)
    return np.asarray(column.where(column.notna(), "").astype(str).to_numpy(dtype=object))


def _features(data: AnnData | SpatialData, table: AnnData, how: ReadOptions) -> tuple[np.ndarray, Sources]:
    """Read or compute the features, and how many come from each block of each source."""
    if isinstance(how.features, ImageFeatures):
        computed = how.features.of(data, library_key=how.library_key, table_key=how.table_key)
        return computed, how.features.sources
    for name in how.features:
        check_modality(table, name)
    parts = [features_of(table, name) for name in how.features]
    return np.concatenate(parts, axis=1, dtype=np.float64), (tuple(part.shape[1] for part in parts),)


def _join(parts: list[Spots]) -> Spots:
    """Take several objects together; their sections stay apart, and only genes of all of them are kept."""
    widths = {part.features.shape[1] for part in parts}
    if len(widths) > 1:
        raise ValueError(message("Expected features of one width in all reference sections", found=str(sorted(widths))))
    genes = parts[0].genes
    for part in parts[1:]:
        genes = genes[np.isin(genes, part.genes)]
    matrices = [None if part.expression is None else part.expression[:, part.columns(genes)] for part in parts]
    offsets = np.cumsum([0, *(part.groups.max(initial=0) + 1 for part in parts)])
    return Spots(
        np.concatenate([part.features for part in parts]),
        None if any(matrix is None for matrix in matrices) else sparse.csr_matrix(sparse.vstack(matrices)),
        np.concatenate([part.measured for part in parts]),
        genes,
        np.concatenate([part.groups + offset for part, offset in zip(parts, offsets[:-1], strict=True)]),
        np.concatenate([part.coords for part in parts]),
        np.concatenate([part.patients for part in parts]),
        parts[0].sources,
    )


def most_variable(expression: sparse.csr_matrix, n_genes: int) -> np.ndarray:
    """Find the genes with the largest variance.

    Parameters
    ----------
    expression
        Normalised expression, CSR (n, g).
    n_genes
        How many.

    Returns
    -------
    Their columns, by decreasing variance, (min(n_genes, g),) intp; of equals the first.
    """
    return np.argsort(-variances(expression), kind="stable")[:n_genes]


def variances(expression: sparse.csr_matrix) -> np.ndarray:
    """Compute the variance of each column of CSR (n, g), (g,) float64."""
    mean = np.asarray(expression.mean(axis=0, dtype=np.float64)).ravel()
    square = np.asarray(expression.multiply(expression).mean(axis=0, dtype=np.float64)).ravel()
    return np.asarray(square - mean**2)
