"""The labels that `tl.annotate` learned, from data or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stalign._constants import Keys
from stalign._threads import few_threads
from stalign._validate import message
from stalign.core.annotation_model import AnnotationModel
from stalign.data import table_of

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData


@few_threads
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
