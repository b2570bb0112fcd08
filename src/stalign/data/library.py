"""One library of an AnnData: its coordinates, what is stated of its scale, and its image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import LIBRARY, Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.data.images import SLACK, SectionImage
from stalign.data.pixels import file_levels
from stalign.data.scale import Stated, number
from stalign.data.table import label_columns

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

FULL = ("fullres", "full", "image")  # keys of images at the resolution of the coordinates
_ORDER = (*FULL, "hires", "downscaled_fullres", "lowres")
_HD_BARCODE = re.compile(r"s_(\d{3})um_\d+_\d+")


def _spatial_uns(table: AnnData) -> Mapping[str, Any]:
    """Get what uns says about each library's images and scale factors.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    uns["spatial"] as far as it is made of mappings, or an empty mapping.
    """
    found = table.uns.get(Keys.UNS_SPATIAL, {})
    if not isinstance(found, Mapping):
        return {}
    return {str(library): entry for library, entry in found.items() if isinstance(entry, Mapping)}


def only_library(table: AnnData) -> str:
    """Name the library of a table that is one section.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The library in uns["spatial"]: the only one, or the one that a column of obs names for all spots, as in a subset of
    a larger table.

    Raises
    ------
    KeyError
        If there are several.
    """
    libraries = [str(name) for name in _spatial_uns(table)]
    if len(libraries) <= 1:
        return libraries[0] if libraries else LIBRARY
    columns = {}
    for name in label_columns(table):
        values = {str(value) for value in table.obs[name].unique()}
        if values <= set(libraries):
            columns[name] = values
    single = {next(iter(values)) for values in columns.values() if len(values) == 1}
    if len(single) == 1:
        return single.pop()
    raise KeyError(
        message(
            "Expected `library_key` to name the column of obs that tells the sections apart",
            found=f"{len(libraries)} libraries in uns['spatial'] and no `library_key`",
            available=columns or label_columns(table),
            hint=f"Pass `library_key={next(iter(columns))!r}`" if columns else "Pass `library_key=`",
        )
    )


def coordinates(table: AnnData, rows: NDArray[np.intp]) -> NDArray[np.float64]:
    """Read the positions of spots.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the spots in the table, (n,).

    Returns
    -------
    A copy of x and y (n, 2) in coordinate px; both are NaN where one is.

    Raises
    ------
    KeyError
        If there are no coordinates.
    ValueError
        If they are not x and y.
    """
    if Keys.SPATIAL not in table.obsm:
        raise KeyError(
            message(
                f"Expected coordinates in obsm[{Keys.SPATIAL!r}]",
                found="none",
                available=table.obsm.keys(),
                hint="Put x and y in px of the full-resolution image there",
            )
        )
    coords = np.asarray(table.obsm[Keys.SPATIAL], dtype=np.float64)
    if coords.ndim != 2 or coords.shape[1] < 2:
        raise ValueError(message(f"Expected x and y in obsm[{Keys.SPATIAL!r}]", found=f"shape {coords.shape}"))
    coords = coords[rows, :2].copy()
    coords[~np.isfinite(coords).all(axis=1)] = np.nan
    return coords


def stated(table: AnnData, rows: NDArray[np.intp], entry: Mapping[str, Any]) -> Stated:
    """Collect what an AnnData says about a library's scale.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the spots in the table, (n,).
    entry
        The library's part of uns["spatial"].

    Returns
    -------
    The statement.
    """
    metadata, factors = _part(entry, "metadata"), factors_of(entry)
    value, origin = number(metadata, "um_per_px"), str(metadata.get("mpp_origin", "um_per_px of the metadata"))
    if value is None:
        value, origin = number(factors, "microns_per_pixel"), "microns_per_pixel of the scale factors"
    bin_um = number(factors, "bin_size_um") or bin_of(table)
    return Stated(value, origin, bin_um, number(factors, "spot_diameter_fullres"), array_of(table, rows))


def _part(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entry.get(name, {})
    return found if isinstance(found, Mapping) else {}


def factors_of(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get the scale factors of a library.

    Parameters
    ----------
    entry
        The library's part of uns["spatial"].

    Returns
    -------
    The scale factors, or an empty mapping.
    """
    return _part(entry, "scalefactors")


def entry_of(table: AnnData, library: str, *, alone: bool, warn: bool = True) -> Mapping[str, Any]:
    """Get a library's part of uns["spatial"].

    Parameters
    ----------
    table
        The table.
    library
        Name of the library.
    alone
        Whether it is the only library of the table; the only entry is then its own, whatever its name.
    warn
        Whether to say so where there is no entry among several.

    Returns
    -------
    The entry, or an empty mapping.
    """
    entries = _spatial_uns(table)
    if library not in entries and alone and len(entries) == 1:
        return next(iter(entries.values()))
    if warn and library not in entries and entries:
        logger.warning(
            "Section %r has no entry in uns['spatial'], which has %s: no image is used for it. Rename one of them.",
            library,
            ", ".join(map(repr, entries)),
        )
    return entries.get(library, {})


def image(
    entry: Mapping[str, Any], library: str, image_key: str | None, *, mpp: float, want_mpp: float | None = None
) -> SectionImage | None:
    """Find the image of a library.

    Parameters
    ----------
    entry
        The library's part of uns["spatial"].
    library
        Name of the library.
    image_key
        Name of the image, or None for the one that the metadata name as `image_key`, or else the finest of those
        embedded, or else the file that the metadata name.
    mpp
        µm per coordinate px.
    want_mpp
        µm per px that will be needed: of a file with smaller copies of itself, the smallest that is fine enough is
        taken.

    Returns
    -------
    The image, or None.

    Raises
    ------
    KeyError
        If `image_key` or the image's scale factor is not there.
    ValueError
        If the image is no array of rows, columns and channels.
    """
    embedded = {key: value for key, value in _part(entry, "images").items() if value is not None}
    path, path_key = image_file(entry)
    there = path is not None and path.is_file()
    sources: dict[str, Any] = {path_key: path, **embedded} if there else embedded
    preferred = _part(entry, "metadata").get("image_key")
    if image_key is None and preferred in sources:
        image_key = str(preferred)
    elif image_key is None:
        if path is not None and not sources:
            logger.warning("Section %r is used without its image, which is not at %s.", library, path)
        image_key = min(embedded or sources, key=_rank, default=None)
    elif image_key not in sources:
        raise KeyError(
            message(f"Expected section {library!r} to have this image", found=repr(image_key), available=sources)
        )
    if image_key is None:
        return None
    factor = number(factors_of(entry), f"tissue_{image_key}_scalef")
    if factor is None and image_key not in FULL:
        raise KeyError(
            message(
                f"Expected 'tissue_{image_key}_scalef' in the scale factors of section {library!r}",
                found="none",
                available=factors_of(entry),
                hint="Put the image px per px of the coordinates there",
            )
        )
    scale = 1.0 if factor is None else factor
    source, frame = sources[image_key], 0
    if isinstance(source, Path):
        sizes = file_levels(source)
        fine = [
            i for i, size in enumerate(sizes) if want_mpp and mpp / scale * sizes[0][0] / size[0] <= SLACK * want_mpp
        ]
        frame = max(fine, default=0)
        shape, scale = sizes[frame], scale * sizes[frame][0] / sizes[0][0]
    else:
        shape = _size(source, image_key, library)
    return SectionImage(image_key, source, scale, (0.0, 0.0), mpp / scale, shape, frame=frame)


def _size(source: Any, key: str, library: str) -> tuple[int, int]:
    """Height and width of an embedded image."""
    shape = tuple(getattr(source, "shape", ()))
    channels_first = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4
    if channels_first or not (len(shape) == 2 or (len(shape) == 3 and shape[2] <= 4)):
        hint = "Turn it with `np.moveaxis(image, 0, -1)`" if channels_first else ""
        raise ValueError(
            message(
                f"Expected image {key!r} of section {library!r} to be an array (height, width, 3)",
                found=f"shape {shape}" if shape else type(source).__name__,
                hint=hint,
            )
        )
    return int(shape[0]), int(shape[1])


def _rank(key: str) -> float:
    return _ORDER.index(key) if key in _ORDER else _ORDER.index("lowres") - 0.5


def image_file(entry: Mapping[str, Any]) -> tuple[Path | None, str]:
    """Find the image file that a library's metadata name.

    Parameters
    ----------
    entry
        The library's part of uns["spatial"].

    Returns
    -------
    The path, or None, and the image key that it stands for.
    """
    metadata = _part(entry, "metadata")
    name = metadata.get("source_image_path") or metadata.get("image_file")
    key = metadata.get("image_key", FULL[0]) if metadata.get("image_file") else FULL[0]
    return (Path(str(name)) if name else None), str(key)


def bin_of(table: AnnData) -> float | None:
    """Read the bin size of Visium HD from the barcodes.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    Bin edge in µm, or None.
    """
    found = _HD_BARCODE.match(str(table.obs_names[0])) if table.n_obs else None
    return float(found.group(1)) if found else None


def array_of(table: AnnData, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Read each spot's row and column on the array.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the spots, (n,).

    Returns
    -------
    Rows and columns (n, 2), or None.
    """
    if not {"array_row", "array_col"} <= set(table.obs):
        return None
    return table.obs[["array_row", "array_col"]].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
