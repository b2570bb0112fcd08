"""Regions of a QuPath export: read into polygons and points with class names, and made from labelled spots."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_BUFFER = 0.56  # pitches; circles of that radius around neighbouring spots overlap


@dataclass(frozen=True)
class Region:
    """An annotated region.

    Parameters
    ----------
    name
        Name of its class.
    color
        `#RRGGBB`, or None.
    geometry
        A shapely geometry, in px.
    """

    name: str
    color: str | None
    geometry: Any


def read_regions(path: Path) -> tuple[list[Region], int]:
    """Read regions, and count those without a class."""
    from shapely import make_valid
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        content = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(message(f"Expected GeoJSON in {path}", found=str(error), hint="Export it again")) from error
    found, without = [], 0
    for feature in _features(content, path):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        name, color = _class_of(properties)
        if feature.get("geometry") is None:
            continue
        if not name:
            without += 1
            continue
        try:
            geometry = shape(feature["geometry"])
            geometry = geometry if geometry.is_valid else make_valid(geometry)
        except (KeyError, TypeError, ValueError, AttributeError, ShapelyError) as error:
            hint = "Export it again from QuPath"
            expected = f"Expected a geometry of class {name!r} in {path}"
            raise ValueError(message(expected, found=repr(error), hint=hint)) from error
        found.append(Region(name, color, geometry))
    return found, without


def _features(content: Any, path: Path) -> Iterator[dict[str, Any]]:
    """Features of a collection, a list or a single feature."""
    items = content.get("features", [content]) if isinstance(content, dict) else content
    if not isinstance(items, list) or not all(isinstance(item, dict) and "geometry" in item for item in items):
        found = content.get("type", "an object") if isinstance(content, dict) else type(content).__name__
        hint = "Export annotations from QuPath with File > Export objects as GeoJSON"
        raise ValueError(message(f"Expected GeoJSON features in {path}", found=repr(found), hint=hint))
    yield from items


def _class_of(properties: dict[str, Any]) -> tuple[str, str | None]:
    """Name and colour of the class in any of QuPath's spellings; an empty name where there is none."""
    given = properties.get("classification")
    while isinstance(given, dict) and isinstance(given.get("classification"), dict):
        given = given["classification"]
    if isinstance(given, dict):
        names = given.get("names")
        name = given.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
        return str(name).strip(), _color(given.get("color", given.get("colorRGB")))
    return (given.strip() if isinstance(given, str) else ""), _color(properties.get("color"))


def _color(value: Any) -> str | None:
    """`#RRGGBB` of a list of three numbers, or of QuPath's packed number."""
    if isinstance(value, list) and len(value) >= 3 and all(isinstance(part, int | float) for part in value):
        return "#" + "".join(f"{int(part) & 255:02X}" for part in value[:3])
    return f"#{value & 0xFFFFFF:06X}" if isinstance(value, int) else None


def label_spots(coords: np.ndarray, regions: Sequence[Region], radius: float) -> np.ndarray:
    """Give spots the region that their centre lies in: positions of regions, (n,) intp, -1 for none.

    Where regions overlap, the smaller one counts. A point marks the nearest spot within `radius`, above any polygon.
    """
    import shapely
    from scipy.spatial import KDTree

    found = np.full(len(coords), -1, dtype=np.intp)
    valid = np.flatnonzero(np.isfinite(coords).all(axis=1))
    for index in sorted(range(len(regions)), key=lambda i: -regions[i].geometry.area):
        geometry = regions[index].geometry
        if geometry.area > 0:
            shapely.prepare(geometry)
            found[valid[shapely.intersects_xy(geometry, coords[valid, 0], coords[valid, 1])]] = index
    if not len(valid):
        return found
    tree = KDTree(coords[valid])
    for index, region in enumerate(regions):
        points = [part for part in shapely.get_parts(region.geometry) if part.geom_type == "Point"]
        if points:
            distance, nearest = tree.query([[point.x, point.y] for point in points])
            found[valid[nearest[distance <= radius]]] = index
    return found


def spot_regions(coords: np.ndarray, codes: np.ndarray, pitch: float, *, square: bool) -> dict[int, Any]:
    """Outlines of the spots of each label: a shapely geometry by label."""
    import shapely

    outlines = {}
    for code in np.unique(codes[codes >= 0]):
        own = coords[(codes == code) & np.isfinite(coords).all(axis=1)]
        if square:
            half = pitch * 0.501
            cells = shapely.box(own[:, 0] - half, own[:, 1] - half, own[:, 0] + half, own[:, 1] + half)
        else:
            cells = shapely.buffer(shapely.points(own), _BUFFER * pitch, quad_segs=3)
        if len(own):
            outlines[int(code)] = shapely.union_all(cells)
    return outlines


def feature(geometry: Any, name: str, color: str) -> dict[str, Any]:
    """A feature as QuPath writes it."""
    from shapely.geometry import mapping

    rgb = [int(color[start : start + 2], 16) for start in (1, 3, 5)]
    return {
        "type": "Feature",
        "geometry": mapping(geometry),
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": rgb}},
    }
