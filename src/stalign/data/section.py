"""One section of a container, opened once: everything a call asks of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stalign._constants import NICHE_WINDOW_UM, VISIUM_SPOT_UM, Keys
from stalign._validate import message, positive, warn
from stalign.core.niches import Niche, members
from stalign.core.patches import niche_windows_um, spot_windows_um
from stalign.data.bounds import inside, warn_of_mirror, warn_of_overlap
from stalign.data.counts import CountKeys, Counts, match_counts
from stalign.data.records import section_row, window_numbers
from stalign.data.scale import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import scipy.sparse as sp
    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.images import SectionImage
    from stalign.data.scale import Scale, Stated
    from stalign.data.vocabulary import Vocabulary


class Origin(Protocol):
    """Where a section lies in its container: a library of an AnnData, or a region of a SpatialData."""

    entry: Mapping[str, Any]

    def coordinates(self) -> NDArray[np.float64]:
        """Positions of the spots, (n, 2) in coordinate px."""

    def stated(self) -> Stated:
        """What is said about the scale."""

    def image(self, key: str | None, *, mpp: float, want_mpp: float | None) -> SectionImage | None:
        """The image, or None."""


@dataclass(frozen=True)
class Given:
    """What the caller says of a section beside its container.

    Parameters
    ----------
    image
        Whether the image is asked for.
    image_key
        Name of the image, or None to choose it.
    mpp
        µm per coordinate px, or None.
    spot_diameter
        Diameter of a spot in µm, or None.
    want_mpp
        µm per image px that will be needed, or how to tell it from the section; None for the finest.
    as_noted
        Whether what an earlier `pp.patches` was given of `mpp`, `spot_diameter`, `spot_window` and `niche_window`
        holds where these are None.
    spot_window, niche_window
        Side of the window of a spot and of a niche in µm, or None.
    """

    image: bool = True
    image_key: str | None = None
    mpp: float | None = None
    spot_diameter: float | None = None
    want_mpp: float | Callable[[Section], float | None] | None = None
    as_noted: bool = True
    spot_window: float | None = None
    niche_window: float | None = None


@dataclass(eq=False)
class Section:
    """One section of a container.

    What is derived is made when it is first asked for, and kept. Nothing is read of the container before that: who
    needs positions meets no complaint about images.

    Parameters
    ----------
    table
        The table that holds its spots.
    rows
        Positions of its spots in the table, (n,) intp.
    name
        Its name.
    origin
        Its place in the container.
    given
        What the caller says of it.
    """

    table: AnnData = field(repr=False)
    rows: NDArray[np.intp] = field(repr=False)
    name: str
    origin: Origin = field(repr=False)
    given: Given = Given()
    _read: dict[Any, Any] = field(default_factory=dict, repr=False)  # counts, shared by the sections of a table

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Positions of the spots, (n, 2) float64, x and y in coordinate px; NaN rows have none."""
        coords = self.origin.coordinates()
        if len(coords) and not np.isfinite(coords).all(axis=1).any():
            expected = f"Expected coordinates for section {self.name!r}"
            raise ValueError(message(expected, found=f"NaN for all of its {len(self)} spots"))
        if len(coords) > 1 and (coords == coords[0]).all():
            expected = f"Expected the spots of section {self.name!r} at different places"
            warn(message(expected, found=f"all {len(self)} in one place"))
        return coords

    @cached_property
    def coords(self) -> NDArray[np.float64]:
        """Positions of the spots that can be used, (n, 2): NaN too for spots outside the image, if it is asked for."""
        if self.image is None:
            return self.positions
        if self.technology == "hd":
            warn_of_mirror(self.positions, self.origin.stated().array, self.name)
        pitch = self.pitch_um if np.isfinite(self.pitch_um) else self.spot_diameter_um
        factors = self.origin.entry.get("scalefactors", {})
        return inside(self.positions, self.image, self.name, factors, pitch / self.coord_mpp)

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Whether a spot has a position that can be used, (n,)."""
        return np.asarray(np.isfinite(self.coords).all(axis=1))

    @cached_property
    def scale(self) -> Scale:
        """Physical scale: given, else as an earlier `pp.patches` was given it, else stated or derived."""
        stated = self.origin.stated()
        warn_of_overlap(self.positions, stated.array, self.name)
        mpp, spot_diameter = self.given.mpp, self.given.spot_diameter
        noted = self._noted()
        if mpp is None and noted.get("mpp_given"):
            mpp = float(noted["coord_mpp"])
        if spot_diameter is None and noted.get("spot_diameter_given"):
            spot_diameter = float(noted["spot_diameter_um"])
        return resolve(self.positions, stated, library=self.name, mpp=mpp, spot_diameter=spot_diameter)

    def _noted(self) -> Mapping[str, Any]:
        """What `pp.patches` noted of the section, if its windows lie where the spots are now."""
        noted = section_row(self.table, "patches", self.name) if self.given.as_noted else {}
        if not noted or Keys.SPOT_WINDOW not in self.table.obsm:
            return {}
        windows = window_numbers(self.table.obsm[Keys.SPOT_WINDOW])
        if windows is None:
            return {}
        windows = windows[self.rows]
        both = np.isfinite(windows).all(axis=1) & np.isfinite(self.positions).all(axis=1)
        centres = (windows[both, :2] + windows[both, 2:]) / 2
        spread, now = (np.linalg.norm(part - part.mean(axis=0), axis=1) for part in (centres, self.positions[both]))
        return noted if both.any() and np.allclose(spread, now * noted["scale"], rtol=1e-4, atol=0.05) else {}

    @property
    def coord_mpp(self) -> float:
        """µm per coordinate px; NaN where unknown."""
        return self.scale.mpp

    @property
    def mpp_origin(self) -> str:
        """Where `coord_mpp` comes from, in words."""
        return self.scale.origin

    @property
    def pitch_um(self) -> float:
        """Distance between the centres of neighbouring spots in µm; NaN where unknown."""
        return self.scale.pitch_um

    @property
    def spot_diameter_um(self) -> float:
        """Diameter of a spot, or edge of a bin, in µm; NaN where unknown."""
        return self.scale.spot_um

    @property
    def technology(self) -> str:
        """`visium`, `st` (the older Spatial Transcriptomics arrays), `hd` or `unknown`."""
        return self.scale.technology

    @property
    def coords_um(self) -> NDArray[np.float64]:
        """Positions of the spots that can be used, (n, 2), in µm.

        Raises
        ------
        ValueError
            If the scale is unknown.
        """
        if not np.isfinite(self.coord_mpp):
            raise ValueError(
                message(
                    f"Expected section {self.name!r} to have a physical scale",
                    found="spots that lie on no hexagonal or square lattice, and no stated scale",
                    hint="Pass `mpp=`, the µm per coordinate px, and `library_key=` if there are several sections",
                )
            )
        return self.coords * self.coord_mpp

    @cached_property
    def image(self) -> SectionImage | None:
        """The section's image; None where there is none, or it is not asked for."""
        if not self.given.image:
            return None
        want = self.given.want_mpp
        want = want(self) if callable(want) else want
        return self.origin.image(self.given.image_key, mpp=self.coord_mpp, want_mpp=want)

    def niches(self, niche: Niche) -> sp.csr_matrix:
        """Find the niche of each spot.

        Parameters
        ----------
        niche
            What makes a niche.

        Returns
        -------
        Weights of the mean over each niche, CSR (n, n) float32; rows sum to 1, and are empty for spots without a
        position. They are always made of the positions, never taken from a slot.
        """
        if niche not in self._niches:
            self._niches[niche] = niche.graph(self.positions)
        return self._niches[niche]

    @cached_property
    def _niches(self) -> dict[Niche, sp.csr_matrix]:
        return {}

    def window_um(
        self, level: str, *, spot_um: float = VISIUM_SPOT_UM, niche_um: float = NICHE_WINDOW_UM, fixed: bool = False
    ) -> float | None:
        """Tell how wide the image around a spot is that a network should see.

        Parameters
        ----------
        level
            `spot` or `niche`.
        spot_um, niche_um
            Sides of the windows of spots and niches that the network was trained on, in µm.
        fixed
            Whether it was trained on windows of these sides around spots of any size.

        Returns
        -------
        What was given, now or to an earlier `pp.patches`; else the trained size, where it is fixed, or for bins and
        cells smaller than `spot_um`; else None, for windows as wide as the spot, or as the niche's spots reach.

        Raises
        ------
        ValueError
            If what was given is no positive number.
        """
        given = self.window_given(level)
        if given is not None:
            return given
        small = self.smaller_than(spot_um) and np.isfinite(self.spot_diameter_um)
        return {"spot": spot_um, "niche": niche_um}[level] if small or fixed else None

    def smaller_than(self, spot_um: float) -> bool:
        """Tell whether spots are bins or cells smaller than the spots that a network was trained on.

        Parameters
        ----------
        spot_um
            Diameter of these spots in µm.

        Returns
        -------
        True also for spots of unknown size that lie on no known array, as cells do.
        """
        return self.technology not in {"visium", "st"} and not self.spot_diameter_um >= spot_um

    def window_given(self, level: str) -> float | None:
        """Side of the windows of a level in µm as it was given, now or to an earlier `pp.patches`; None if it wasn't.

        Raises
        ------
        ValueError
            If it is no positive number.
        """
        name = f"{level}_window"
        given = getattr(self.given, name)
        if given is None and self._noted().get(f"{name}_given"):
            given = float(self._noted()[f"{name}_um"])
        return None if given is None else positive(given, name=name, unit="µm")

    def windows(self, level: str, niche: Niche | None = None, *, width_um: float | None = None) -> NDArray[np.float32]:
        """Lay a window around each spot or niche.

        Parameters
        ----------
        level
            `spot`: a square around the spot; `niche`: the bounding box of the windows of its spots and of the spot.
        niche
            What makes a niche, for level `niche`.
        width_um
            Side of a square around the spot in µm, at either level; None for the diameter of a spot, or the niche.

        Returns
        -------
        Windows (n, 4) float32, x0 y0 x1 y1 in px of the image; NaN for spots outside it and where there is none.

        Raises
        ------
        ValueError
            If scale or spot diameter are unknown.
        """
        if self.image is None:
            return np.full((len(self), 4), np.nan, dtype=np.float32)
        boxes = spot_windows_um(self.coords_um, self._diameter() if width_um is None else width_um)
        if level == "niche" and width_um is None:
            boxes = niche_windows_um(boxes, members(self.niches(niche or Niche())))
        return self.image.to_windows(boxes / self.coord_mpp).astype(np.float32)

    def _diameter(self) -> float:
        """Diameter of a spot in µm, or an error that asks for it."""
        if np.isfinite(self.spot_diameter_um):
            return self.spot_diameter_um
        expected = f"Expected section {self.name!r} to have a known spot diameter"
        raise ValueError(message(expected, found=f"technology {self.technology}", hint="Pass `spot_diameter=`, in µm"))

    def counts(self, vocabulary: Vocabulary, keys: CountKeys) -> Counts:
        """Get the section's counts in the genes of a vocabulary.

        Parameters
        ----------
        vocabulary
            The genes.
        keys
            Where the table's counts are; the table is read once for all its sections.

        Returns
        -------
        The counts.

        Raises
        ------
        KeyError
            If the layer or a column does not exist.
        ValueError
            If counts are negative, or no gene is known to the vocabulary.
        """
        key = id(vocabulary), id(keys)
        if key not in self._read:
            self._read[key] = vocabulary, keys, match_counts(self.table, vocabulary, keys)  # kept, so ids stay theirs
        counts: Counts = self._read[key][2].of(self.rows)
        return counts
