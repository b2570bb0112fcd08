"""µm per px as image files state them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # classic and BigTIFF
_UM = {"nm": 1e-3, "µm": 1.0, "um": 1.0, "micron": 1.0, "mm": 1e3, "cm": 1e4, "inch": 25400.0}
_PLAUSIBLE = (0.05, 20.0)  # µm per px; resolutions for printing are hundreds


def file_mpp(path: Path) -> tuple[float | None, str]:
    """Read the µm per px of an image file.

    Parameters
    ----------
    path
        The file. Only TIFF files, those of scanners included, state it.

    Returns
    -------
    µm per px, or None, and where it is stated.
    """
    with path.open("rb") as file:
        if file.read(4) not in _TIFF:
            return None, ""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            for value, origin in (_aperio(tiff), _ome(tiff), _tags(tiff)):
                if value is not None and _PLAUSIBLE[0] <= value <= _PLAUSIBLE[1]:
                    return value, origin
    except (tifffile.TiffFileError, IndexError):
        pass  # whoever opens the image says what is wrong with it
    return None, ""


def _aperio(tiff: Any) -> tuple[float | None, str]:
    found = re.search(r"\bMPP\s*=\s*([0-9.]+)", tiff.pages[0].description or "")
    return (float(found[1]) if found else None), "MPP of the scanner"


def _ome(tiff: Any) -> tuple[float | None, str]:
    text = tiff.ome_metadata or ""
    size = re.search(r'\bPhysicalSizeX="([0-9.eE+-]+)"', text)
    unit = re.search(r'\bPhysicalSizeXUnit="([^"]+)"', text)
    factor = _UM.get(unit[1].replace("μ", "µ") if unit else "µm")
    return (float(size[1]) * factor if size and factor else None), "PhysicalSizeX of the OME metadata"


def _tags(tiff: Any) -> tuple[float | None, str]:
    tags = tiff.pages[0].tags
    resolution, unit = tags.get("XResolution"), tags.get("ResolutionUnit")
    factor = {2: _UM["inch"], 3: _UM["cm"]}.get(int(unit.value) if unit is not None else 0)
    if resolution is None or factor is None or not resolution.value[0]:
        return None, ""
    return factor * resolution.value[1] / resolution.value[0], "resolution of the TIFF"
