"""One section of a SpatialData: the spots' element, its images, and where both lie."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.lattice import lattice
from stalign.data.choice import Candidate, asked_for, bases, choose, image_name
from stalign.data.image_levels import affine, arrays, channels, open_level, turned_scale
from stalign.data.library import entry_of, stated
from stalign.data.scale import Stated, bin_size
from stalign.data.table import library_column

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray
    from spatialdata import SpatialData

    from stalign.data.images import SectionImage

_UNDER = 0.5  # share of the spots that an image has to lie under
_SAME = 0.1  # px of labels, within which two positions are one
_MOST = 0.9  # share of the bins that have to lie where they are known to be


def region_rows(table: AnnData, library_key: str | None) -> list[tuple[str, NDArray[np.intp]]]:
    """Split a SpatialData's table by the element that each row annotates, or by a column of obs.

    Parameters
    ----------
    table
        The table.
    library_key
        Column of obs with the section of each spot, or None for the elements.

    Returns
    -------
    Name and rows (n,) intp of each section.

    Raises
    ------
    ValueError
        If the table annotates no element.
    """
    region_key, _ = _keys(table)
    names, codes = library_column(table, library_key or region_key)
    return [(name, np.flatnonzero(codes == index)) for index, name in enumerate(names)]


def _keys(table: AnnData) -> tuple[str, str]:
    """Columns of obs that name the element and the instance of each row."""
    attrs = table.uns.get("spatialdata_attrs")
    attrs = attrs if isinstance(attrs, dict) else {}
    region_key, instance_key = attrs.get("region_key"), attrs.get("instance_key")
    if region_key not in table.obs or instance_key not in table.obs:
        raise ValueError(
            message(
                "Expected a table that annotates spots",
                found="a table without region and instance keys",
                hint="Link it with spatialdata.models.TableModel.parse(table, region=, region_key=, instance_key=)",
            )
        )
    return str(region_key), str(instance_key)


class Region:
    """The spots of one section in an element of a SpatialData.

    Positions are those of the element itself. Those in its coordinate system are used where that stretches the element,
    but no image with it, onto a lattice, as for an element in steps of the array.

    Parameters
    ----------
    data
        The SpatialData.
    table
        Its table.
    rows
        Positions of the spots in the table, (n,).
    name
        Name of the section.
    alone
        Whether it is the only section of the table.
    """

    def __init__(self, data: SpatialData, table: AnnData, rows: NDArray[np.intp], name: str, *, alone: bool) -> None:
        self.data, self.table, self.rows, self.name = data, table, rows, name
        self.entry = entry_of(table, name, alone=alone)

    @cached_property
    def element_name(self) -> str:
        """Name of the element that the spots belong to."""
        names = self.table.obs[_keys(self.table)[0]].iloc[self.rows].astype(str).unique()
        if len(names) != 1:
            expected = f"Expected the spots of section {self.name!r} in one element"
            raise ValueError(message(expected, found=", ".join(map(repr, names)) or "none"))
        if names[0] not in self.data:
            available = [*self.data.shapes, *self.data.labels, *self.data.points]
            expected = "Expected the element that the table annotates"
            raise KeyError(message(expected, found=repr(names[0]), available=available))
        return str(names[0])

    @cached_property
    def _systems(self) -> dict[str, NDArray[np.float64]]:
        """Matrix from the element to each of its coordinate systems, those first in which its own positions hold."""
        from spatialdata.transformations import get_transformation

        found = {key: affine(value) for key, value in get_transformation(self._element, get_all=True).items()}
        order = sorted(found, key=lambda key: (not np.allclose(found[key], np.eye(3)), key != "global", key))
        return {key: found[key] for key in order}

    @property
    def _element(self) -> Any:
        return self.data[self.element_name]

    @cached_property
    def _frame(self) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
        """Positions (n, 2), the matrix from the element to their frame, and px of that per px of a stated scale."""
        own = _centres(self._element)
        ids = self.table.obs[_keys(self.table)[1]].iloc[self.rows]
        coords = own.reindex(_matched(own.index, ids, self.element_name)).to_numpy(np.float64, copy=True)
        coords[~np.isfinite(coords).all(axis=1)] = np.nan
        known = self._where_known(coords)
        if known is not None:
            return known
        system = next(iter(self._systems.values()))
        if turned_scale(system, any_angle=True) is None and not self._images_fit():
            placed = coords @ system[:2, :2].T + system[:2, 2]
            if lattice(placed)[0] != "unknown":
                return placed, system, _size(system)
        return coords, np.eye(3), 1.0

    def _where_known(
        self, coords: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
        """Frame of labels of bins that are known to lie in a coordinate system; None for other elements.

        They are known there by the table's own positions, or else by shapes of the same bins. The matrix of labels made
        by `spatialdata.rasterize_bins` takes the index i of a px for its centre, which lies at i + 0.5, and turns them.
        """
        from spatialdata.transformations import get_transformation

        usable = np.isfinite(coords).all(axis=1)
        if self.element_name not in self.data.labels or not usable.any():
            return None
        for system, matrix in self._systems.items():
            known = []
            if Keys.SPATIAL in self.table.obsm:
                known = [(np.asarray(self.table.obsm[Keys.SPATIAL], dtype=np.float64)[self.rows, :2], 1.0)]
            for shapes in () if known else self.data.shapes.values():
                other = get_transformation(shapes, get_all=True).get(system)
                if other is not None and len(shapes) >= len(coords):
                    placed = affine(other)
                    at = _centres(shapes).to_numpy() @ placed[:2, :2].T + placed[:2, 2]
                    known.append((at, _size(placed)))
            for points, size in known:
                tree = cKDTree(points[np.isfinite(points).all(axis=1)])
                tried = [(coords - by) @ matrix[:2, :2].T + matrix[:2, 2] for by in (0.0, 0.5)]
                share = [(tree.query(there[usable])[0] < _SAME * _size(matrix)).mean() for there in tried]
                if max(share) > _MOST > 1 - _MOST > min(share):
                    return tried[int(np.argmax(share))], matrix, size
        return None

    def _images_fit(self) -> bool:
        """Whether an image lies along the axes of the element's own positions."""
        from spatialdata.transformations import get_transformation

        for image in self.data.images.values():
            for key, value in get_transformation(image, get_all=True).items():
                if key in self._systems and turned_scale(np.linalg.inv(affine(value)) @ self._systems[key]) is not None:
                    return True
        return False

    def coordinates(self) -> NDArray[np.float64]:
        """Read the positions of the spots.

        Returns
        -------
        A copy of x and y (n, 2) in coordinate px; both are NaN where one is.
        """
        return self._frame[0].copy()

    def stated(self) -> Stated:
        """Collect what the table and the element say about the scale.

        Returns
        -------
        The statement, in coordinate px.
        """
        said = stated(self.table, self.rows, self.entry, self.name)
        radius = np.median(self._element["radius"]) if "radius" in getattr(self._element, "columns", []) else None
        spot_px = said.spot_px if said.spot_px is not None or radius is None else float(2 * radius)
        bin_um, size = said.bin_um or bin_size(self.element_name), self._frame[2]
        if spot_px is None and bin_um is None and said.array is None and hasattr(self._element, "geometry"):
            spot_px = float(np.median(2 * np.sqrt(self._element.geometry.area / np.pi))) or None  # of cells
        return replace(
            said,
            mpp=None if said.mpp is None else said.mpp / size,
            bin_um=bin_um,
            spot_px=None if spot_px is None else spot_px * size,
        )

    def image(self, key: str | None, *, mpp: float, want_mpp: float | None) -> SectionImage | None:
        """Find the image that lies under the spots.

        Parameters
        ----------
        key
            Name of the image element, or None to choose.
        mpp
            µm per coordinate px.
        want_mpp
            µm per px that will be needed, or None for the finest level.

        Returns
        -------
        The image, or None.

        Raises
        ------
        KeyError
            If there is no image of that name, or none that shares a coordinate system with the spots.
        ValueError
            If several images can be the section's, or the one asked for is not placed along the axes of the spots.

        Warns
        -----
        UserWarning
            If the image seems to be no H&E image.
        """
        if key is not None and key not in self.data.images:
            raise KeyError(
                message("Expected `image_key` to name an image", found=repr(key), available=self.data.images)
            )
        names = [key] if key is not None else list(self.data.images)
        there = [self._candidate(name, mpp, want_mpp) for name in names if self._placements(name)]
        if key is not None and not there:
            self._no_shared_system(key)
        if key is not None:
            return asked_for(there[0], self.name)
        mine = bases(self.element_name)
        own = [one for one in there if one.base in mine]
        if not own:  # images that bear the name of no element, as far as they lie under the spots
            taken = set().union(*map(bases, (*self.data.shapes, *self.data.labels))) - mine
            there = [one for one in there if one.base not in taken]
            there = [one for one in there if len(there) == 1 or self._lies_under(one.name)] or there
        return choose(own or there, self.name)

    def _candidate(self, name: str, mpp: float, want_mpp: float | None) -> Candidate:
        """An image that shares a coordinate system with the spots."""
        rgb, doubt = channels(self.data.images[name])
        base, kind = image_name(name)
        return Candidate(name, partial(self._open, name, rgb, mpp, want_mpp), doubt, kind, base)

    def _placements(self, name: str) -> list[tuple[str, NDArray[np.float64]]]:
        """Matrix from the frame of the positions to px of an image, in each coordinate system that they share."""
        from spatialdata.transformations import get_transformation

        image = get_transformation(self.data.images[name], get_all=True)
        back = np.linalg.inv(self._frame[1])
        return [
            (key, np.linalg.inv(affine(image[key])) @ matrix @ back)
            for key, matrix in self._systems.items()
            if key in image
        ]

    def _lies_under(self, name: str) -> bool:
        """Whether an image lies under most of the spots."""
        coords = self._frame[0]
        coords = coords[np.isfinite(coords).all(axis=1)]
        size = arrays(self.data.images[name])[0].sizes
        for _, matrix in self._placements(name):
            pixels = coords @ matrix[:2, :2].T + matrix[:2, 2]
            if len(pixels) and ((pixels >= 0) & (pixels <= [size["x"], size["y"]])).all(axis=1).mean() > _UNDER:
                return True
        return False

    def _open(self, name: str, rgb: tuple[int, int, int] | None, mpp: float, want_mpp: float | None) -> SectionImage:
        """Open an image by the first coordinate system in which it lies along the axes of the spots."""
        placements = self._placements(name)
        for _, matrix in placements:
            found = turned_scale(matrix)
            if found is not None:
                return open_level(
                    self.data.images[name], name, *found, matrix[:2, 2], mpp=mpp, want_mpp=want_mpp, rgb=rgb
                )
        system, matrix = placements[0]
        angle = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
        turned = turned_scale(matrix, any_angle=True) is not None
        raise ValueError(
            message(
                f"Expected image {name!r} to lie along the axes of the spots of section {self.name!r}",
                found=f"a turn of {angle:.4g}° between them in {system!r}"
                if turned
                else f"the matrix {np.round(matrix[:2], 6).tolist()} from the spots to it in {system!r}",
                hint="Turn or resample the image onto the spots, as spatialdata.transform does, and store the result",
            )
        )

    def _no_shared_system(self, key: str) -> None:
        from spatialdata.transformations import get_transformation

        reach = sorted(get_transformation(self.data.images[key], get_all=True))
        raise KeyError(
            message(
                f"Expected a coordinate system shared by section {self.name!r} and image {key!r}",
                found=f"{sorted(self._systems)} and {reach}",
                hint="Set one with spatialdata.transformations.set_transformation",
            )
        )


def _size(matrix: NDArray[np.float64]) -> float:
    """How many times as long a matrix (3, 3) makes lengths."""
    return float(np.sqrt(abs(np.linalg.det(matrix[:2, :2]))))


def _centres(element: Any) -> pd.DataFrame:
    """Centres of an element's instances, x and y in its own px, by instance."""
    if hasattr(element, "geometry"):
        centroids = element.geometry.centroid
        return pd.DataFrame({"x": centroids.x.to_numpy(), "y": centroids.y.to_numpy()}, index=element.index)
    from spatialdata import get_centroids
    from spatialdata.transformations import get_transformation

    system, transformation = next(iter(get_transformation(element, get_all=True).items()))
    found = get_centroids(element, coordinate_system=system).compute()
    back = np.linalg.inv(affine(transformation))
    own = found[["x", "y"]].to_numpy(dtype=np.float64) @ back[:2, :2].T + back[:2, 2]
    return pd.DataFrame(own, columns=["x", "y"], index=found.index)


def _matched(index: pd.Index, ids: pd.Series, element: str) -> pd.Index:
    """Instance ids as the element's index has them, also where one of the two holds numbers and the other text."""
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise ValueError(message(f"Expected each instance of {element!r} once", found=f"{twice!r} several times"))
    given = pd.Index(ids.to_numpy())
    if not len(given) or given.isin(index).any():
        return given
    by_text = pd.Series(index, index=index.astype(str))
    text = given.astype(str)
    if by_text.index.is_unique and text.isin(by_text.index).any():
        return pd.Index([by_text.get(value) for value in text])
    raise ValueError(
        message(
            f"Expected the instance ids of the table in the index of element {element!r}",
            found=f"ids such as '{given[0]}' ({given.dtype}), and an index such as '{index[0]}' ({index.dtype})"
            if len(index)
            else "an element without instances",
            hint=f"Give obs[{ids.name!r}] the ids of the element",
        )
    )
