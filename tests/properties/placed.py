"""The same sections as SpatialData: elements, names, transformations and coordinate systems."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import spatialdata as sd
from spatialdata.models import Image2DModel, Labels2DModel, ShapesModel, TableModel
from spatialdata.transformations import Affine, Identity, Scale, Sequence
from tests.properties.plain import to_anndata

from stalign._constants import Keys

if TYPE_CHECKING:
    from tests.properties.plain import Plain

_AXES = ("x", "y")


@dataclass(frozen=True)
class Form:
    """How sections are laid out in a SpatialData; the defaults are as spatialdata-io leaves Visium."""

    image_name: str = "{}_hires_image"
    region_name: str = "{}"
    system: str = "{}"
    channels: tuple[Any, ...] = ("r", "g", "b")
    dims: str = "cyx"
    levels: tuple[int, ...] = ()
    kind: str = "uint8"
    shapes: str = "circles"
    ids: str = "int64"
    shuffled: bool = False
    spare: bool = False
    table_name: str = "table"
    placement: Any = field(default=None)  # matrix (3, 3) that places spots and image alike


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[:2, 2] = 40.5, -17.25
    return matrix


def linear(a: float, b: float, c: float, d: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return np.array([[a, b, x], [c, d, y], [0, 0, 1.0]])


PLACEMENTS = {
    "none": None,
    "moved": linear(1, 0, 0, 1, 300, -120),
    "smaller": linear(0.3, 0, 0, 0.3, 5, 7),
    "turned by 90": rotation(90),
    "turned by 180": rotation(180),
    "turned by 30": rotation(30),
    "mirrored in y": linear(1, 0, 0, -1, 0, 900),
    "mirrored in x": linear(-1, 0, 0, 1, 900, 0),
    "transposed": linear(0, 1, 1, 0),
    "stretched": linear(1.5, 0, 0, 1, 3, 4),
    "sheared": linear(1, 0.4, 0, 1, 3, 4),
}
_COLOURS = "rgb"
_KINDS = {
    "uint8": lambda pixels: pixels,
    "uint16": lambda pixels: pixels.astype(np.uint16) * 257,
    "float32": lambda pixels: pixels.astype(np.float32) / 255,
}


def _placed(steps: list[Any], placement: np.ndarray | None) -> Any:
    if placement is not None:
        steps = [*steps, Affine(placement, input_axes=_AXES, output_axes=_AXES)]
    return steps[0] if len(steps) == 1 else Sequence(steps)


def image(section: Plain, form: Form, system: str, pixels: np.ndarray | None = None, step: int = 1) -> Any:
    """The image element."""
    pixels = section.pixels[::step, ::step] if pixels is None else pixels
    planes = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1) if pixels.shape[-1] == 3 else pixels
    letters = [str(name)[0].lower() for name in form.channels]
    order = [_COLOURS.index(letter) for letter in letters[:3]] if set(letters) >= set(_COLOURS) else [0, 1, 2]
    array = _KINDS[form.kind](planes[..., [*order, 3][: len(form.channels)]])
    array = array.transpose(["yxc".index(axis) for axis in form.dims])
    grow = step / section.scale
    scale = Scale([grow, grow], axes=_AXES)
    names = None if isinstance(form.channels[0], int) else list(form.channels)
    return Image2DModel.parse(
        array,
        dims=tuple(form.dims),
        c_coords=names,
        scale_factors=list(form.levels) or None,
        transformations={system: _placed([scale], form.placement)},
    )


def region(section: Plain, form: Form, system: str, ids: np.ndarray) -> Any:
    """The spots as an element; the order of the spots and spare ones are the form's."""
    order = np.random.default_rng(0).permutation(len(section)) if form.shuffled else np.arange(len(section))
    coords, index = section.coords[order], ids[order]
    transformations = {system: _placed([Identity()], form.placement)}
    if form.spare:
        spare = 7_000_000 + np.arange(2)
        coords = np.concatenate([coords, coords[:2] + 1.5])
        index = np.concatenate([index, spare.astype(index.dtype)])
    if form.shapes == "labels":
        return _labels(coords, index, transformations)
    if form.shapes == "squares":
        import geopandas as gpd
        from shapely.geometry import box

        half = section.spot_px / 2
        squares = [box(x - half, y - half, x + half, y + half) for x, y in coords]
        return ShapesModel.parse(gpd.GeoDataFrame(geometry=squares, index=index), transformations=transformations)
    return ShapesModel.parse(
        coords, geometry=0, radius=section.spot_px / 2, index=pd.Index(index), transformations=transformations
    )


def _labels(coords: np.ndarray, index: np.ndarray, transformations: dict[str, Any]) -> Any:
    """Squares of an even edge around whole coordinates, so that their centroids are those."""
    width, height = coords.max(axis=0).astype(int) + 20
    labels = np.zeros((height, width), np.int32)
    for (x, y), number in zip(coords.astype(int), index, strict=True):
        labels[y - 2 : y + 2, x - 2 : x + 2] = number
    return Labels2DModel.parse(labels, dims=("y", "x"), transformations=transformations)


def identifiers(section: Plain, form: Form) -> np.ndarray:
    """Instance ids, unlike the positions of rows."""
    numbers = 1 + 3 * np.arange(len(section))
    if form.ids == "text":
        return np.array([f"cell {number}" for number in numbers], dtype=object)
    return numbers.astype(form.ids)


def part(section: Plain, form: Form) -> sd.SpatialData:
    """One section as SpatialData."""
    name, system = form.region_name.format(section.name), form.system.format(section.name)
    ids = identifiers(section, form)
    table = to_anndata(section)
    del table.obsm[Keys.SPATIAL]
    stated = {key: table.uns[Keys.UNS_SPATIAL][section.name][key] for key in ("scalefactors", "metadata")}
    table.uns = {Keys.UNS_SPATIAL: {name: stated}} if section.lattice == "irregular" else {}
    table.obs["region"] = pd.Categorical([name] * len(section))
    table.obs["instance"] = ids
    table = TableModel.parse(table, region=name, region_key="region", instance_key="instance")
    spots = region(section, form, system, ids)
    kind = {"labels": {name: spots}} if form.shapes == "labels" else {"shapes": {name: spots}}
    images = {form.image_name.format(section.name): image(section, form, system)}
    return sd.SpatialData(images=images, tables={form.table_name: table}, **kind)


def together(sections: list[Plain], forms: list[Form]) -> sd.SpatialData:
    """Several sections in one SpatialData with one table."""
    parts = [part(section, form) for section, form in zip(sections, forms, strict=True)]
    tables = [data.tables[form.table_name] for data, form in zip(parts, forms, strict=True)]
    stated = {key: value for table in tables for key, value in table.uns.get(Keys.UNS_SPATIAL, {}).items()}
    names = [form.region_name.format(section.name) for section, form in zip(sections, forms, strict=True)]
    table = anndata.concat(tables)
    table.obs["region"] = pd.Categorical(table.obs["region"].astype(str), categories=names)
    if stated:
        table.uns[Keys.UNS_SPATIAL] = stated
    table = TableModel.parse(table, region=names, region_key="region", instance_key="instance")
    elements: dict[str, dict[str, Any]] = {"images": {}, "shapes": {}, "labels": {}}
    for data in parts:
        for kind, found in elements.items():
            found.update(getattr(data, kind))
    return sd.SpatialData(**elements, tables={"table": table})
