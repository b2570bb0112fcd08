"""Labels from QuPath and Loupe Browser, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.core.files import write_whole
from stalign.core.palette import palette
from stalign.data import open_sections, table_of, write
from stalign.data.numbers import number
from stalign.io._barcode_table import barcodes_of, table_labels
from stalign.io._geojson import feature, label_spots, read_regions, spot_regions

if TYPE_CHECKING:
    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.data import Section

_JSON = (".geojson", ".json")
_TABLE = (".csv", ".tsv", ".txt")


def read_annotations(
    data: AnnData | SpatialData,
    path: str | Path,
    *,
    key: str | None = None,
    image_key: str | None = None,
    library: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
    copy: bool = False,
) -> AnnData | SpatialData | None:
    """Read a pathologist's labels from a QuPath GeoJSON export or a CSV of Loupe Browser.

    Of a GeoJSON file, the class of the polygon that holds a spot's centre becomes its label. Holes count as outside;
    of polygons that overlap the smaller one counts; a point marks the nearest spot, up to half a pitch away. Objects
    without a class are left out and counted in the log.

    Parameters
    ----------
    data
        The section that was annotated.
    path
        `.geojson` or `.json` with objects as QuPath exports them, or `.csv` (or `.tsv`) with a column of barcodes and
        one of labels. Barcodes match whole or without the suffix, such as `-1`.
    key
        The obs column to write; None for the name of the column of a CSV, or `annotation` for a GeoJSON file.
    image_key
        Image that the regions were drawn on, such as `hires`, whose px they are in; None for px of the full-resolution
        image.
    library
        Name of the section where the table holds several; spots of the others keep the labels they have.
    library_key
        obs column that names the section of each spot.
    table_key
        Table of a SpatialData object.
    copy
        Return a changed copy instead of writing in place.

    Returns
    -------
    None, or the changed copy.

    Reads
    -----
    - `obsm["spatial"]`, (n_obs, 2) float: x and y in px of the full-resolution image, for regions
    - names of obs, or `obs["barcode"]`: barcodes

    Writes
    ------
    - `obs[key]`, (n_obs,) categorical of strings, NaN where there is no label
    - `uns[f"{key}_colors"]`, list of strings: `#RRGGBB`, the colours of QuPath's classes where the file has them

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file is neither, can't be read, labels no spot, or names a barcode twice.
    KeyError
        If the image or the section does not exist, or the table holds several sections and none is named.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> path = stalign.io.write_annotations(adata, "layers.csv", key="domain")
    >>> stalign.io.read_annotations(adata, path, key="layer")
    >>> bool((adata.obs["layer"].astype(str) == adata.obs["domain"].astype(str)).all())
    True
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(message("Expected a file of annotations", found=f"nothing at {path}"))
    table = table_of(data, table_key)
    kind = path.suffix.lower()
    if kind not in _JSON + _TABLE:
        raise ValueError(message("Expected a GeoJSON file or a CSV", found=path.name, available=_JSON + _TABLE))
    view = _section(data, library, library_key, table_key)
    if kind in _JSON:
        key = key or "annotation"
        labels, colors = _from_regions(path, table, view, image_key)
    else:
        labels, name = table_labels(path, table, view)
        key, colors = key or name, {}
    values = np.full(table.n_obs, None, dtype=object)
    if key in table.obs and len(view.rows) < table.n_obs:
        values[:] = table.obs[key].astype(object).where(table.obs[key].notna(), None)
    values[view.rows] = labels
    names = [name for name in dict.fromkeys([*_old_names(table, key), *_order(labels)]) if name in set(values)]
    known = _old_colors(table, key) | colors
    spare = (color for color in palette(len(names) + len(known)) if color not in known.values())
    column = pd.Series(pd.Categorical(values, categories=names), index=table.obs_names)
    shades = [known[name] if name in known else next(spare) for name in names]
    logger.info("Read labels of %d spots from %s: added obs[%r].", sum(v is not None for v in labels), path.name, key)
    return write(data, {"obs": {key: column}, "uns": {f"{key}_colors": shades}}, copy=copy, table_key=table_key)


def write_annotations(
    data: AnnData | SpatialData,
    path: str | Path,
    *,
    key: str | None = None,
    image_key: str | None = None,
    library: str | None = None,
    library_key: str | None = None,
    table_key: str | None = None,
) -> Path:
    """Write labels as regions that QuPath opens, or as a CSV that Loupe Browser imports.

    Parameters
    ----------
    data
        The section.
    path
        `.geojson` for an annotation per label, the outline of its spots with its colour; `.csv` for `Barcode,<key>`,
        a line per spot with a label.
    key
        The obs column of labels; None for `stalign_annotation`.
    image_key
        Image that the regions will be opened on, such as `hires`; None for px of the full-resolution image.
    library
        Name of the section where the table holds several.
    library_key
        obs column that names the section of each spot.
    table_key
        Table of a SpatialData object.

    Returns
    -------
    The path.

    Raises
    ------
    ValueError
        If the suffix is neither.
    KeyError
        If the column, image or section does not exist, or the table holds several sections and none is named.

    Examples
    --------
    >>> import stalign
    >>> adata = stalign.datasets.toy(16)
    >>> stalign.io.write_annotations(adata, "layers.geojson", key="domain").name
    'layers.geojson'
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (*_JSON, ".csv"):
        raise ValueError(message("Expected a path that ends in .geojson or .csv", found=path.name))
    table = table_of(data, table_key)
    key = Keys.ANNOTATION if key is None else key
    if key not in table.obs:
        hint = "Call `stalign.tl.annotate` first, or pass `key=`"
        raise KeyError(message("Expected labels in obs", found=repr(key), available=table.obs.columns, hint=hint))
    view = _section(data, library, library_key, table_key)
    column = table.obs[key].iloc[view.rows]
    labels = np.array([None if pd.isna(value) else str(value) for value in column], dtype=object)
    if kind == ".csv":
        known = np.array([label is not None for label in labels], dtype=bool)
        frame = pd.DataFrame({"Barcode": barcodes_of(table)[view.rows][known], key: labels[known]})
        return _replace(path, frame.to_csv(index=False, lineterminator="\n"))
    names = [name for name in dict.fromkeys([*_old_names(table, key), *_order(labels)]) if name in set(labels)]
    colors = dict(zip(names, palette(len(names)), strict=True)) | _old_colors(table, key)
    codes = pd.Index(names).get_indexer(labels) if names else np.full(len(labels), -1)
    outlines = spot_regions(
        view.coords * _scale(view, image_key), codes, _pitch(view) * _scale(view, image_key),
        square=view.technology == "hd",
    )  # fmt: skip
    features = [feature(outline, names[code], colors[names[code]][:7]) for code, outline in outlines.items()]
    return _replace(path, json.dumps({"type": "FeatureCollection", "features": features}))


def _section(
    data: AnnData | SpatialData, library: str | None, library_key: str | None, table_key: str | None
) -> Section:
    views = open_sections(data, library_key=library_key, table_key=table_key, image=False)
    if library is None and len(views) == 1:
        return views[0]
    for view in views:
        if view.name == library:
            return view
    raise KeyError(
        message("Expected `library` to name the section that was annotated", found=repr(library),
                available=[view.name for view in views])
    )  # fmt: skip


def _pitch(view: Section) -> float:
    """Distance between neighbouring spots in coordinate px."""
    from scipy.spatial import KDTree

    valid = view.coords[view.valid]
    return float(np.median(KDTree(valid).query(valid, k=2)[0][:, 1])) if len(valid) > 1 else 1.0


def _scale(view: Section, image_key: str | None) -> float:
    """Px of the image per px of the coordinates."""
    if image_key is None:
        return 1.0
    factors = view.origin.entry.get("scalefactors", {})
    name = f"tissue_{image_key}_scalef"
    factor = number(factors, name, where=f"section {view.name!r}")
    if factor is None:
        hint = "Leave out `image_key` if regions are in px of the full-resolution image"
        raise KeyError(message("Expected a scale factor of the image", found=repr(name), available=factors, hint=hint))
    return factor


def _from_regions(
    path: Path, table: AnnData, view: Section, image_key: str | None
) -> tuple[np.ndarray, dict[str, str]]:
    """Labels of the section's spots by region, and colours by label."""
    regions, without = read_regions(path)
    if without:
        logger.warning("%d objects of %s have no class and are left out.", without, path.name)
    scale = _scale(view, image_key)
    codes = label_spots(view.coords * scale, regions, 0.5 * _pitch(view) * scale)
    if not (codes >= 0).any():
        low, high = np.nanmin(view.coords * scale, axis=0), np.nanmax(view.coords * scale, axis=0)
        if not regions:
            hint = "Give the objects a class in QuPath (Set class) and export them again"
            raise ValueError(message(f"Expected regions with a class in {path}", found=f"{without} without", hint=hint))
        boxes = np.array([region.geometry.bounds for region in regions]).reshape(-1, 4)
        ends = (*np.nanmin(boxes[:, :2], axis=0), *np.nanmax(boxes[:, 2:], axis=0))
        raise ValueError(
            message(
                f"Expected regions of {path.name} around spots, which lie at x {low[0]:.0f} to {high[0]:.0f} and "
                f"y {low[1]:.0f} to {high[1]:.0f}",
                found=f"{len(regions)} regions with a class at x {ends[0]:.0f} to {ends[2]:.0f} and "
                f"y {ends[1]:.0f} to {ends[3]:.0f}",
                hint="Pass `image_key=`, the image that they were drawn on",
            )
        )
    empty = len(regions) - len(np.unique(codes[codes >= 0]))
    if empty:
        logger.info("%d of %d objects of %s mark no spot.", empty, len(regions), path.name)
    names = np.array([*(region.name for region in regions), None], dtype=object)
    return names[codes], {region.name: region.color for region in regions if region.color is not None}


def _order(labels: np.ndarray) -> list[str]:
    return sorted({label for label in labels if label is not None})


def _old_names(table: AnnData, key: str) -> list[str]:
    """Labels that the column holds already, in their order."""
    if key in table.obs and isinstance(table.obs[key].dtype, pd.CategoricalDtype):
        return [str(name) for name in table.obs[key].cat.categories]
    return []


def _old_colors(table: AnnData, key: str) -> dict[str, str]:
    colors = table.uns.get(f"{key}_colors")
    names = _old_names(table, key)
    if colors is None or len(colors) != len(names):
        return {}
    return {name: str(color) for name, color in zip(names, colors, strict=True) if str(color).startswith("#")}


def _replace(path: Path, text: str) -> Path:
    """Write the annotations as a whole or not at all."""
    write_whole(path, text.encode("utf-8"))
    logger.info("Wrote annotations to %s.", path)
    return path
