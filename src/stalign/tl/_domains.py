"""Cut sections into domains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger, seed_of
from stalign._threads import few_threads
from stalign._validate import message
from stalign.core.domain_model import DomainModel
from stalign.core.refine import majority_vote, ring_graph
from stalign.data import check_key, check_writable, open_sections, record, result_record, table_of, write
from stalign.tl._clusterers import find_domains, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.tl._clusterers import Clusterer

N_COMPONENTS = 15


@few_threads
def domains(
    data: AnnData | SpatialData | Sequence[AnnData | SpatialData],
    clusterer: Clusterer | int | str | None = None,
    *,
    use_rep: str | None = None,
    n_components: int | None = N_COMPONENTS,
    refine: bool | int = False,
    reference: DomainModel | AnnData | SpatialData | str | Path | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    random_state: int | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | list[AnnData | SpatialData] | None:
    """Cut sections into domains, by clustering an embedding.

    Several sections are clustered together and share names and colours; only the refinement is done section by
    section. Domains are named "1", "2" and so on along the first principal axis of the features, so that neighbouring
    numbers are alike and names do not depend on the arbitrary order in which a clusterer numbers them.

    Parameters
    ----------
    data
        Sections with an embedding, in one object or a list of several.
    clusterer
        A number n for `GMM(n)`, "leiden" for `Leiden()`, or an object: `GMM`, `KMeans`, `Leiden(n_domains=7)`,
        `Leiden(resolution=0.5)`, or anything else with `fit_predict`, such as a clusterer of scikit-learn. Default 7.
    use_rep
        The obsm key of the features; None for `X_stalign`, or for that of `reference`.
    n_components
        Principal components to cluster, fitted to these sections; None for the features as they are.
    refine
        How often each spot takes the label that most of the ring of spots around it and itself hold (six on a
        hexagonal grid, four on a square one); True is once. It uses positions, so report it beside any score.
    reference
        Domains to apply instead of finding new ones: data that `tl.domains` was called on, or a `DomainModel` or the
        path of a saved one. Its number of domains, components and names hold, so `clusterer` is left out.
    library_key
        obs column that names the section of each spot; used only for `refine`.
    table_key
        Table of a SpatialData object.
    random_state
        Seed; None for `settings.seed`.
    key_added
        The obs column to write; None for `stalign_domain`.
    copy
        Return a changed copy instead of writing in place.

    Returns
    -------
    None, or the changed copy; a list of copies for a list.

    Reads
    -----
    - `obsm[use_rep]`, (n_obs, d) float: rows with NaN are left out
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image, only for `refine`

    Writes
    ------
    - `obs["stalign_domain"]`, (n_obs,) categorical of strings: the domains, NaN where the features have NaN
    - `uns["stalign_domain_colors"]`, list of n_domains strings: `#RRGGBB` for each category
    - `uns["stalign_domain"]`: params, and model, which `reference` reads

    With `key_added`, column and entries of uns bear its name instead of `stalign_domain`.

    Raises
    ------
    KeyError
        If the embedding, a column or a table does not exist, or `reference` holds no domains.
    ValueError
        If there are fewer usable spots than domains, the features do not fit `reference`, or an argument makes no
        sense.
    TypeError
        If `clusterer` has no `fit_predict`, or `n_components` or `random_state` is not a whole number.
    FileNotFoundError
        If `reference` is a path to no file.

    Notes
    -----
    Where spots are 200 µm apart, the ring of `refine` is 400 µm across and takes thin layers away.

    With more than 50,000 usable spots, domains are fitted to a seeded sample of that size, and the others get the most
    probable one. New spots get their domain from the mixture itself after `GMM`, from the nearest centre after
    `KMeans`, and from a linear discriminant between the domains after `Leiden` and others.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.domains(adata, 5, refine=True)
    >>> list(adata.obs["stalign_domain"].cat.categories)
    ['1', '2', '3', '4', '5']
    """
    passes = _passes(refine)
    key = Keys.DOMAIN if key_added is None else key_added
    check_key(key, name="key_added")
    seed = seed_of(random_state)
    several = isinstance(data, list | tuple)
    parts: list[AnnData | SpatialData] = list(data) if several else [data]
    tables = [table_of(part, table_key) for part in parts]
    if not tables:
        raise ValueError(message("Expected at least one section", found="an empty list"))
    for table in tables:
        check_writable(table, key)
    if reference is None:
        rep = use_rep or Keys.EMBED
        features = _stacked(tables, rep)
        labels, model, params = find_domains(features, resolve(clusterer), rep, n_components, seed)
    elif clusterer is not None:
        found, hint = "both", "Leave out the clusterer"
        raise ValueError(message("Expected either `clusterer` or `reference`", found=found, hint=hint))
    else:
        model = domain_model(reference, table_key=table_key)
        rep = use_rep or model.use_rep
        features = _stacked(tables, rep)
        labels, params = model.predict(features), {"clusterer": "reference"}
    used = int((labels >= 0).sum())
    pieces = np.split(labels, np.cumsum([table.n_obs for table in tables])[:-1])
    for part, piece in zip(parts, pieces, strict=True) if passes else ():
        for section in open_sections(part, library_key=library_key, table_key=table_key, image=False):
            piece[section.rows] = majority_vote(piece[section.rows], ring_graph(section.positions), passes=passes)
    params |= {"use_rep": rep, "n_domains": len(model.names), "refine": passes, "n_spots": used, "key_added": key}
    params["library_key"] = library_key
    left_out = f"; {len(labels) - used} without features are NaN" if used < len(labels) else ""
    logger.info("Cut %d spots into %d domains: added obs[%r]%s.", used, len(model.names), key, left_out)
    changed = []
    for part, table, piece in zip(parts, tables, pieces, strict=True):
        column = pd.Series(pd.Categorical.from_codes(piece, categories=list(model.names)), index=table.obs_names)
        slots = {
            "obs": {key: column},
            "uns": {f"{key}_colors": list(model.colors), key: result_record(params, model=model.to_dict())},
        }
        changed.append(write(part, slots, copy=copy, table_key=table_key))
    return changed[0] if not several else changed if copy else None


@few_threads
def domain_model(
    source: DomainModel | AnnData | SpatialData | str | Path, *, key: str | None = None, table_key: str | None = None
) -> DomainModel:
    """Get the domains that were found, to save them or to apply them elsewhere.

    Parameters
    ----------
    source
        Data that `tl.domains` was called on, or the path of a saved model; a model is given back as it is.
    key
        The obs column of the domains; None for `stalign_domain`.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    The model, with `save`.

    Reads
    -----
    - `uns["stalign_domain"]["model"]`, or that of another `key`

    Raises
    ------
    KeyError
        If `tl.domains` was not called on the data.
    FileNotFoundError
        If there is no file at the path.
    ValueError
        If the file is not a saved domain model.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.tl.embed(adata)
    >>> stalign.tl.domains(adata, 5)
    >>> path = stalign.tl.domain_model(adata).save("domains.npz")  # doctest: +SKIP
    >>> stalign.tl.domains(adata, reference=path)  # doctest: +SKIP
    """
    if isinstance(source, DomainModel):
        return source
    if isinstance(source, str | Path):
        return DomainModel.load(source)
    table, key = table_of(source, table_key), Keys.DOMAIN if key is None else key
    found = record(table, key, "model") or record(table, Keys.UNS, _entry_before(key), "model")
    if not found:
        there = [name for name in table.uns if record(table, name, "model")]
        hint = "Run `tl.domains` on these data first"
        raise KeyError(message(f"Expected domains in uns[{key!r}]", found="none", available=there, hint=hint))
    return DomainModel.from_dict(found)


def _entry_before(key: str) -> str:
    """Where version 0.1 kept the domains of a column, in uns["stalign"]."""
    return "domains" if key == Keys.DOMAIN else f"domains_{key}"


def features_of(table: AnnData, use_rep: str) -> np.ndarray:
    """Get an embedding.

    Parameters
    ----------
    table
        The table.
    use_rep
        The obsm key.

    Returns
    -------
    (n_obs, d) float array, not copied.

    Raises
    ------
    KeyError
        If there is no such embedding.
    ValueError
        If it is not a matrix of numbers.
    """
    if use_rep not in table.obsm:
        embedded = str(use_rep).startswith(Keys.EMBED)
        hint = "Run `stalign.tl.embed` first, or pass `use_rep=`" if embedded else "Pass `use_rep=`"
        raise KeyError(
            message("Expected an embedding in obsm", found=repr(use_rep), available=table.obsm.keys(), hint=hint)
        )
    values = table.obsm[use_rep]
    values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    if values.ndim != 2 or values.shape[1] == 0 or not np.issubdtype(values.dtype, np.number):
        found = f"shape {values.shape} of {values.dtype}"
        raise ValueError(message(f"Expected numbers (n_obs, d) in obsm[{use_rep!r}]", found=found))
    return values


def _stacked(tables: Sequence[AnnData], use_rep: str) -> np.ndarray:
    features = [features_of(table, use_rep) for table in tables]
    widths = sorted({values.shape[1] for values in features})
    if len(widths) > 1:
        found = f"{' and '.join(map(str, widths))} columns"
        raise ValueError(message(f"Expected the same features in obsm[{use_rep!r}] of all sections", found=found))
    return features[0] if len(features) == 1 else np.concatenate(features)


def _passes(refine: bool | int) -> int:  # noqa: FBT001
    if not isinstance(refine, bool | int | np.integer) or refine < 0:
        raise ValueError(message("Expected `refine` to be True, False or a number of passes", found=repr(refine)))
    return int(refine)
