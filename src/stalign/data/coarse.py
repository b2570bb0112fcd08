"""The image of niches encoded at places on a lattice, and interpolated between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from stalign._validate import message, positive
from stalign.core.bilinear import Bilinear
from stalign.core.patches import spot_windows_um

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from stalign.data.images import SectionImage
    from stalign.data.section import Section


@dataclass(frozen=True)
class CoarseImage:
    """Places on a lattice whose windows are encoded in place of those of the spots.

    Parameters
    ----------
    image
        The section's image.
    between
        The places, in µm, and those around each spot.
    windows
        (m, 4) x0 y0 x1 y1 in px of the image, of the places.
    tokens
        (m, s, l) float32, what the image encoder made of them; None before.
    """

    image: SectionImage
    between: Bilinear
    windows: NDArray[np.float64]
    tokens: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, section: Section, width_um: float | None, step_um: float) -> Self:
        """Lay a lattice over a section.

        Parameters
        ----------
        section
            The section, with an image.
        width_um
            Side of the window of a niche in µm; None where each niche has its own.
        step_um
            Distance between places in µm.

        Returns
        -------
        The places; those that lie outside the image see its border repeated, as windows of spots beside it do.

        Raises
        ------
        ValueError
            If niches have windows of their own, or the step is no positive number.
        """
        step_um = positive(step_um, name="image_step", unit="µm")
        if section.image is None or width_um is None:
            found = "windows as wide as the spots of each niche reach"
            hint = "Leave `image_step` out, or pass `niche_window=`"
            expected = f"Expected niches of section {section.name!r} with windows of one size, to interpolate"
            raise ValueError(message(expected, found=found, hint=hint))
        between = Bilinear.around(section.coords_um, step_um)
        boxes = spot_windows_um(between.places, width_um) / section.coord_mpp
        windows = section.image.to_windows(boxes).astype(np.float32).astype(np.float64)  # as those of spots
        return cls(section.image, between, windows)

    def order(self) -> NDArray[np.intp]:
        """Get the order in which the image is best read, a permutation of the places."""
        return self.image.reading_order(self.windows)

    def encoded(self, tokens: NDArray[np.float32]) -> Self:
        """Return the places with their tokens.

        Parameters
        ----------
        tokens
            (m, s, l) float32.
        """
        return replace(self, tokens=tokens)

    def tokens_of(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Interpolate the tokens of spots.

        Parameters
        ----------
        rows
            Positions of the spots in the section, (b,).

        Returns
        -------
        (b, s, l) float32.

        Raises
        ------
        ValueError
            If the places were not encoded.
        """
        if self.tokens is None:
            raise ValueError(message("Expected places that were encoded", found="no tokens"))
        return self.between.between(self.tokens, rows)
