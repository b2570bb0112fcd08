"""Patches of spots and niches through an image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import progress
from stalign._validate import message
from stalign.core.patches import spot_windows_um
from stalign.data.sections import sections
from stalign.pp._patches import window_slots
from stalign.tl._encode_run import niche_graph_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data.images import SectionImage
    from stalign.data.sections import SectionView
    from stalign.encoders.card import Card
    from stalign.tl._encode_run import Run

_CHUNK = 256  # spots to a cached file
_LARGEST = 4  # patches are cut at no more than this many times the encoder's input size


def encode_images(
    run: Run,
    data: AnnData | SpatialData,
    table: AnnData,
    *,
    level: str | float,
    image_key: str | Mapping[str, str] | None,
    mpp: float | Mapping[str, float] | None,
    spot_diameter: float | None,
    **where: Any,
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Encode the patches of a table's spots.

    Parameters
    ----------
    run
        The encoder and its cache.
    data
        AnnData or SpatialData.
    table
        Its table; it is not changed.
    level
        `spot`, `niche`, `native` or a width in µm.
    image_key, mpp, spot_diameter
        As for `tl.encode`.
    where
        `library_key` and `table_key`.

    Returns
    -------
    Features, (n_obs, dim) float32, NaN where there is no patch, and a record of the sections.

    Raises
    ------
    ValueError
        If no section has an image.
    """
    card = run.card
    given: dict[str, Any] = {"mpp": mpp, "spot_diameter": spot_diameter, **where}
    plain = sections(data, image=False, **given)
    views = sections(data, image_key=image_key, want_mpp=_wanted(plain, card, level), **given)
    if all(view.image is None for view in views):
        hint = "Put it in `uns['spatial']`, or in the images of a SpatialData; gene encoders need none"
        raise ValueError(message(f"Expected an image for the encoder {card.name!r}", found="none", hint=hint))
    windows = _windows(data, table, views, card, level, where)
    features = np.full((table.n_obs, card.dim), np.nan, dtype=np.float32)
    chunks = []
    for view in views:
        rows = view.rows[np.isfinite(windows[view.rows]).all(axis=1)]
        if view.image is not None and len(rows):
            size = _native_px(windows[rows], card)
            chunks += [(view.image, rows[start : start + _CHUNK], size) for start in range(0, len(rows), _CHUNK)]
    for image, rows, size in progress(chunks, desc=f"Encoding with {card.name}", unit="chunk"):
        features[rows] = _encode_chunk(run, image, windows[rows], size)
    return features, {"sections": {view.library: _section_record(view, windows) for view in views}}


def _encode_chunk(run: Run, image: SectionImage, windows: NDArray[np.floating], size: int) -> NDArray[np.float32]:
    patches = image.patches(windows.astype(np.float64), size)  # (n, size, size, 3)
    key = run.cache.key(patches)
    shape = (len(patches), run.card.dim)
    found = run.cache.get(key, shape)
    if found is not None:
        return found
    steps = range(0, len(patches), run.batch_size)
    found = np.concatenate([run.encoder.encode(patches[start : start + run.batch_size]) for start in steps])
    if found.shape != shape:
        raise ValueError(message(f"Expected {run.card.name!r} to return {shape}", found=found.shape))
    found = np.asarray(found, dtype=np.float32)
    run.cache.put(key, found)
    return found


def _field_um(card: Card, level: str | float) -> float:
    """Width of a patch in µm: as given, or the native one with the rim that is cut off after resizing."""
    if not isinstance(level, str):
        return float(level)
    return card.input_um * (card.resize_px or card.input_px) / card.input_px


def _wanted(views: list[SectionView], card: Card, level: str | float) -> float | None:
    """µm per px at which a patch has the encoder's input size; None for the finest that there is."""
    px = card.resize_px or card.input_px
    diameters = [view.spot_diameter_um for view in views]
    width = min(diameters, default=np.nan) if level in ("spot", "niche") else _field_um(card, level)
    return float(width / px) if np.isfinite(width) else None


def _windows(
    data: AnnData | SpatialData,
    table: AnnData,
    views: list[SectionView],
    card: Card,
    level: str | float,
    where: Mapping[str, Any],
) -> NDArray[np.float32]:
    """Windows in px of each section's image, (n_obs, 4); NaN where there are none."""
    if level in ("spot", "niche"):
        graph = niche_graph_of(data, table, **where)
        spot, niche = window_slots(table, views, graph, into={})
        return spot if level == "spot" else niche
    windows = np.full((table.n_obs, 4), np.nan, dtype=np.float32)
    for view in views:
        if view.image is not None:
            corners = spot_windows_um(view.coords_um, _field_um(card, level)).reshape(-1, 2) / view.coord_mpp
            windows[view.rows] = view.image.to_pixels(corners).reshape(-1, 4)
    return windows


def _native_px(windows: NDArray[np.floating], card: Card) -> int:
    """Size at which the patches of a section are cut: their own, for encoders that resize for themselves."""
    if not card.architecture:
        return card.input_px
    widest = float((windows[:, 2:] - windows[:, :2]).max())
    return int(np.clip(np.ceil(widest - 1e-3), 1, _LARGEST * (card.resize_px or card.input_px)))


def _section_record(view: SectionView, windows: NDArray[np.floating]) -> dict[str, Any]:
    if view.image is None:
        return {"image_key": "none"}
    side = np.nanmedian(windows[view.rows, 2] - windows[view.rows, 0])
    return {
        "image_key": view.image.key,
        "mpp": float(view.image.mpp),
        "mpp_origin": view.mpp_origin,
        "window_um": float(side * view.image.mpp),
        "window_px": float(side),
    }
