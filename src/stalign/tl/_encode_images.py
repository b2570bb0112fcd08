"""Patches of spots and niches through an image encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._settings import progress
from stalign._threads import threads_for
from stalign._validate import message
from stalign.data import niche_of, section_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stalign.data import Section, SectionImage
    from stalign.encoders.card import Card
    from stalign.tl._encoding import Encoding

_CHUNK = 256  # spots to a cached file
_LARGEST = 4  # patches are cut at no more than this many times the encoder's input size


def encode_images(
    encoding: Encoding, sections: Sequence[Section], *, level: str | float
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Encode the patches of a table's spots.

    Parameters
    ----------
    encoding
        The encoder and its cache.
    sections
        All sections of the table.
    level
        `spot`, `niche`, `native` or a width in µm.

    Returns
    -------
    Features, (n_obs, dim) float32, NaN where there is no patch, and a record of the sections.

    Raises
    ------
    ValueError
        If no section has an image.
    """
    card, table = encoding.card, sections[0].table
    if all(section.image is None for section in sections):
        hint = "Put it in `uns['spatial']`, or in the images of a SpatialData; gene encoders need none"
        raise ValueError(message(f"Expected an image for the encoder {card.name!r}", found="none", hint=hint))
    features = np.full((table.n_obs, card.dim), np.nan, dtype=np.float32)
    width_um = None if level in {"spot", "niche"} else _field_um(card, level)
    chunks, facts = [], []
    for section in sections:
        windows = section.windows("niche" if level == "niche" else "spot", niche_of(table), width_um=width_um)
        own = np.flatnonzero(np.isfinite(windows).all(axis=1))
        if section.image is not None and len(own):
            size = _native_px(windows[own], card)
            parts = np.split(own, range(_CHUNK, len(own), _CHUNK))
            chunks += [(section.image, section.rows[part], windows[part], size) for part in parts]
        facts.append(_facts(section, windows))
    with threads_for(table.n_obs, images=True, sklearn=False):
        for image, rows, windows, size in progress(chunks, desc=f"Encoding with {card.name}", unit="chunk"):
            features[rows] = _encode_chunk(encoding, image, windows, size)
    return features, {"sections": section_table(facts)}


def wanted_mpp(card: Card, level: str | float, section: Section) -> float | None:
    """Tell the µm per px at which a patch has the encoder's input size.

    Parameters
    ----------
    card
        The encoder.
    level
        `spot`, `niche`, `native` or a width in µm.
    section
        The section.

    Returns
    -------
    µm per px; None, for the finest that there is, where the size of a spot is unknown.
    """
    width = section.spot_diameter_um if level in {"spot", "niche"} else _field_um(card, level)
    return float(width / (card.resize_px or card.input_px)) if np.isfinite(width) else None


def _encode_chunk(
    encoding: Encoding, image: SectionImage, windows: NDArray[np.floating], size: int
) -> NDArray[np.float32]:
    patches = image.patches(windows.astype(np.float64), size)  # (n, size, size, 3)
    key = encoding.cache.key(patches)
    shape = (len(patches), encoding.card.dim)
    found = encoding.cache.get(key, shape)
    if found is not None:
        return found
    steps = range(0, len(patches), encoding.batch_size)
    found = np.concatenate([encoding.encoder.encode(patches[start : start + encoding.batch_size]) for start in steps])
    if found.shape != shape:
        raise ValueError(message(f"Expected {encoding.card.name!r} to return {shape}", found=found.shape))
    found = np.asarray(found, dtype=np.float32)
    encoding.cache.put(key, found)
    return found


def _field_um(card: Card, level: str | float) -> float:
    """Width of a patch in µm: as given, or the native one with the rim that is cut off after resizing."""
    if not isinstance(level, str):
        return float(level)
    return card.input_um * (card.resize_px or card.input_px) / card.input_px


def _native_px(windows: NDArray[np.floating], card: Card) -> int:
    """Size at which the patches of a section are cut: their own, for encoders that resize for themselves."""
    if not card.architecture:
        return card.input_px
    widest = float((windows[:, 2:] - windows[:, :2]).max())
    return int(np.clip(np.ceil(widest - 1e-3), 1, _LARGEST * (card.resize_px or card.input_px)))


def _facts(section: Section, windows: NDArray[np.floating]) -> dict[str, Any]:
    """What patches of a section were cut from, for a row of the record."""
    image, sides = section.image, windows[np.isfinite(windows).all(axis=1)]
    side = float(np.median(sides[:, 2] - sides[:, 0])) if len(sides) else np.nan
    return {
        "section": section.name,
        "image_key": "" if image is None else image.key,
        "mpp": np.nan if image is None else float(image.mpp),
        "mpp_origin": "" if image is None else section.mpp_origin,
        "window_um": np.nan if image is None else side * float(image.mpp),
        "window_px": side,
    }
