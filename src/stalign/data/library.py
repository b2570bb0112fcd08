"""One section of an AnnData: its part of uns["spatial"], its positions and its image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from stalign._constants import LIBRARY, Keys
from stalign._settings import logger
from stalign._validate import message, warn
from stalign.data.choice import Candidate, asked_for, choose
from stalign.data.files import allowed
from stalign.data.image_files import level_sizes
from stalign.data.images import SLACK, SectionImage
from stalign.data.numbers import number
from stalign.data.positions import positions
from stalign.data.scale import Stated
from stalign.data.table import label_columns

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

FULL: Final = ("fullres", "full", "image")  # keys of images at the resolution of the coordinates
_PARTS: Final = {"images", "scalefactors", "metadata"}
_HD_BARCODE = re.compile(r"(?:^|[^A-Za-z])s_(\d{3,})um_\d+_\d+")
_SIZES: Final = 0.02  # relative difference between the sizes of two images and their scale factors that is a mistake


def entries_of(table: AnnData) -> dict[str, Mapping[str, Any]]:
    """Get what uns says about each section's images and scale factors.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The parts of uns["spatial"] that are mappings, by the name of the section: that in its metadata where there is one,
    else its key. A key with a slash, which h5ad turns into nested mappings, is put together again.
    """
    found: dict[str, Mapping[str, Any]] = {}

    def walk(value: object, path: str) -> None:
        if not isinstance(value, Mapping):
            return
        nested = [key for key, item in value.items() if isinstance(item, Mapping)]
        if path and (not nested or _PARTS & {str(key) for key in value}):
            found[str(_part(value, "metadata").get("name", path))] = value
            return
        for key in nested:
            walk(value[key], f"{path}/{key}" if path else str(key))

    walk(table.uns.get(Keys.UNS_SPATIAL, {}), "")
    return found


def only_library(table: AnnData) -> str:
    """Name the section of a table that is one.

    Parameters
    ----------
    table
        The table.

    Returns
    -------
    The section in uns["spatial"]: the only one, or the one that a column of obs names for all spots, as in a subset of
    a larger table.

    Raises
    ------
    KeyError
        If there are several.
    """
    libraries = list(entries_of(table))
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


def entry_of(table: AnnData, name: str, *, alone: bool) -> Mapping[str, Any]:
    """Get a section's part of uns["spatial"].

    Parameters
    ----------
    table
        The table.
    name
        Name of the section.
    alone
        Whether it is the only section of the table; the only entry is then its own, whatever its name.

    Returns
    -------
    The entry, or an empty mapping.
    """
    entries = entries_of(table)
    if name not in entries and alone and len(entries) == 1:
        return next(iter(entries.values()))
    return entries.get(name, {})


def _part(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = entry.get(name, {})
    return found if isinstance(found, Mapping) else {}


def stated(table: AnnData, rows: NDArray[np.intp], entry: Mapping[str, Any], name: str) -> Stated:
    """Collect what a table says about a section's scale.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the spots in the table, (n,).
    entry
        The section's part of uns["spatial"].
    name
        Name of the section, for messages.

    Returns
    -------
    The statement.

    Raises
    ------
    ValueError
        If a stated number is none, or not above 0.
    """
    metadata, factors = _part(entry, "metadata"), _part(entry, "scalefactors")
    where = f"section {name!r}"
    value, origin = (
        number(metadata, "um_per_px", where=where),
        str(metadata.get("mpp_origin", "um_per_px of the metadata")),
    )
    if value is None:
        value, origin = number(factors, "microns_per_pixel", where=where), "microns_per_pixel of the scale factors"
    bin_um = number(factors, "bin_size_um", where=where) or _bin_of(table, rows)
    spot_px = number(factors, "spot_diameter_fullres", where=where)
    return Stated(value, origin, bin_um, spot_px, _array_of(table, rows), _image_scales(metadata, factors))


def _image_scales(metadata: Mapping[str, Any], factors: Mapping[str, Any]) -> tuple[float, ...]:
    """Px of each image for a coordinate px, that of the image which the metadata name first; no unusable ones."""
    named = f"tissue_{metadata.get('image_key')}_scalef"
    keys = sorted((key for key in factors if re.fullmatch(r"tissue_.+_scalef", str(key))), key=lambda key: key != named)
    found = []
    for key in keys:
        with suppress(ValueError):  # whoever opens the image says so
            found.append(number(factors, key, where=""))
    return tuple(scale for scale in found if scale is not None)


def _bin_of(table: AnnData, rows: NDArray[np.intp]) -> float | None:
    """Bin size of Visium HD in µm by the barcode of the section's first spot, or None."""
    found = _HD_BARCODE.search(str(table.obs_names[rows[0]])) if len(rows) else None
    return float(found.group(1)) if found else None


def _array_of(table: AnnData, rows: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Row and column of each spot on the array, (n, 2), or None where they are not stated as numbers."""
    columns = ["array_row", "array_col"]
    if not set(columns) <= set(table.obs):
        return None
    if not all(pd.api.types.is_numeric_dtype(table.obs[column].dtype) for column in columns):
        return None
    return np.asarray(table.obs[columns].to_numpy(dtype=np.float64, na_value=np.nan)[rows])


class Library:
    """One section of an AnnData.

    Parameters
    ----------
    table
        The table.
    rows
        Positions of the section's spots in it, (n,).
    name
        Name of the section.
    alone
        Whether it is the only section of the table.
    """

    def __init__(self, table: AnnData, rows: NDArray[np.intp], name: str, *, alone: bool) -> None:
        self.table, self.rows, self.name = table, rows, name
        self.entry = entry_of(table, name, alone=alone)

    def coordinates(self) -> NDArray[np.float64]:
        """Read the positions of the spots.

        Returns
        -------
        A copy of x and y (n, 2) in coordinate px; both are NaN where one is.
        """
        return positions(self.table, self.rows, self.name)

    def stated(self) -> Stated:
        """Collect what the table says about the scale.

        Returns
        -------
        The statement.
        """
        return stated(self.table, self.rows, self.entry, self.name)

    def image(self, key: str | None, *, mpp: float, want_mpp: float | None) -> SectionImage | None:
        """Find the image of the section.

        Parameters
        ----------
        key
            Name of the image, or None for the one that the metadata name as `image_key`, or else the best of those
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
            If `key` or the image's scale factor is not there.
        ValueError
            If the image is no array of rows, columns and channels, several can be the section's, or a scale factor
            does not fit its image.

        Warns
        -----
        UserWarning
            If the image seems to be no H&E image, or sizes of images do not fit their scale factors.
        """
        sources = self._sources()
        if not sources:
            self._log_missing()
            return None
        if key is not None and key not in sources:
            expected = f"Expected section {self.name!r} to have this image"
            raise KeyError(message(expected, found=repr(key), available=sources))
        embedded = {name: source for name, source in sources.items() if not isinstance(source, Path)}
        preferred = str(_part(self.entry, "metadata").get("image_key"))
        name = key or (preferred if preferred in sources else None)
        some = embedded or sources if name is None else {name: sources[name]}
        there = [
            Candidate(name, partial(self._open, name, source, mpp, want_mpp), _channel_doubt(source), name)
            for name, source in some.items()
        ]
        self._check_sizes(sources, asked=key is not None)
        return choose(there, self.name) if key is None else asked_for(there[0], self.name)

    def _sources(self) -> dict[str, Any]:
        """Images of the section by key: embedded ones, and the file that the metadata name."""
        embedded = {str(key): value for key, value in _part(self.entry, "images").items() if value is not None}
        path, key = self._file()
        return {key: path, **embedded} if path is not None and _is_file(path) and allowed(path) else embedded

    def _file(self) -> tuple[Path | None, str]:
        """Image file that the metadata name, or None, and the key that it stands for."""
        metadata = _part(self.entry, "metadata")
        name = metadata.get("source_image_path") or metadata.get("image_file")
        key = metadata.get("image_key", FULL[0]) if metadata.get("image_file") else FULL[0]
        return (Path(str(name)) if name else None), str(key)

    def _log_missing(self) -> None:
        """Log why a section that names or should have an image has none."""
        spatial = self.table.uns.get(Keys.UNS_SPATIAL, {})
        for what, found in (("uns['spatial']", spatial), ("its images", self.entry.get("images", {}))):
            if not isinstance(found, Mapping):
                no_mapping = "Section %r is used without an image: %s is no mapping but %s."
                logger.warning(no_mapping, self.name, what, type(found).__name__)
        path, _ = self._file()
        if path is not None and _is_file(path):
            logger.warning(
                "The image file %s that section %r names is not opened, as no reader of stalign was pointed to it: "
                "read the section with stalign.io, or set `stalign.settings.image_root` to a folder above the file.",
                *(path, self.name),
            )
        elif path is not None:
            logger.warning("Section %r is used without its image, which is not at %s.", self.name, path)
        others = entries_of(self.table)
        if not self.entry and others and self.name not in others:
            logger.warning(
                "Section %r has no entry in uns['spatial'], which has %s: no image is used for it. Rename one of them.",
                *(self.name, ", ".join(map(repr, others))),
            )

    def _scale(self, key: str) -> float:
        """Px of an image per coordinate px."""
        factors = _part(self.entry, "scalefactors")
        factor = number(factors, f"tissue_{key}_scalef", where=f"section {self.name!r}")
        if factor is None and key not in FULL:
            raise KeyError(
                message(
                    f"Expected 'tissue_{key}_scalef' in the scale factors of section {self.name!r}",
                    found="none",
                    available=factors,
                    hint="Put the image px per px of the coordinates there",
                )
            )
        return 1.0 if factor is None else factor

    def _open(self, key: str, source: Any, mpp: float, want_mpp: float | None) -> SectionImage:
        """Open an image, of a file with smaller copies of itself at the level that is fine enough."""
        scale, frame = self._scale(key), 0
        if isinstance(source, Path):
            sizes = level_sizes(source)
            shrink = [sizes[0][0] / size[0] for size in sizes]
            fine = [i for i, less in enumerate(shrink) if want_mpp and mpp / scale * less <= SLACK * want_mpp]
            frame = max(fine, default=0)
            shape, scale = sizes[frame], scale / shrink[frame]
        else:
            shape = _size(source, key, self.name)
        return SectionImage(key, source, scale, (0.0, 0.0), mpp / scale, shape, frame=frame)

    def _check_sizes(self, sources: Mapping[str, Any], *, asked: bool) -> None:
        """See that the sizes of hires and lowres, which are one picture, are in the ratio of their scale factors."""
        factors = _part(self.entry, "scalefactors")
        if not {"hires", "lowres"} <= set(sources) or not {"tissue_hires_scalef", "tissue_lowres_scalef"} <= set(
            factors
        ):
            return
        sizes = np.array([_size(sources[key], key, self.name) for key in ("hires", "lowres")], dtype=np.float64)
        ratio = self._scale("hires") / self._scale("lowres")
        off = np.abs(sizes[0] / sizes[1] / ratio - 1)
        if (off <= _SIZES + 1.0 / sizes.min(axis=0)).all():
            return
        text = message(
            f"Expected the sizes of the images of section {self.name!r} in the ratio of their scale factors",
            found=f"hires of {sizes[0, 1]:g} x {sizes[0, 0]:g} px, lowres of {sizes[1, 1]:g} x {sizes[1, 0]:g} px, and "
            f"factors of {self._scale('hires'):g} and {self._scale('lowres'):g}",
            hint="Correct the factor that is wrong in uns['spatial'], or pass `image_key=` to use one of them as it is",
        )
        if not asked:
            raise ValueError(text)
        warn(text)


def _is_file(path: Path) -> bool:
    """Whether there is a file; not where the name is longer than names can be."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _size(source: Any, key: str, name: str) -> tuple[int, int]:
    """Height and width of an embedded image."""
    shape = tuple(getattr(source, "shape", ()))
    channels_first = len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4
    if channels_first or not (len(shape) == 2 or (len(shape) == 3 and shape[2] <= 4)):
        raise ValueError(
            message(
                f"Expected image {key!r} of section {name!r} to be an array (height, width, 3)",
                found=f"shape {shape}" if shape else type(source).__name__,
                hint="Turn it with `np.moveaxis(image, 0, -1)`" if channels_first else "",
            )
        )
    return int(shape[0]), int(shape[1])


def _channel_doubt(source: Any) -> str:
    """Why an embedded image can be no H&E image by its channels, or ""."""
    shape = tuple(getattr(source, "shape", ()))
    one = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2))
    return "one channel, not red, green and blue" if one else ""
