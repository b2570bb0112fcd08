"""Neighbourhoods of a section that training holds out, with what lies between them and the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stalign.train.store import StoredSection

_SPOTS = 100  # of a neighbourhood, before there is a second one
_MOST = 4  # neighbourhoods of a section
_TRIES = 20  # draws of a neighbourhood, of which the first is taken that leaves half of the section to train on


@dataclass(frozen=True)
class HeldOut:
    """The spots of a section: trained on, held out, and neither.

    Parameters
    ----------
    train, held
        Positions in the section, (n,) each, in order.
    rim
        Positions of the spots that are neither, (n,).
    centres
        Middle spots of the neighbourhoods, x and y in coordinate px, (m, 2).
    """

    train: NDArray[np.intp]
    held: NDArray[np.intp]
    rim: NDArray[np.intp]
    centres: NDArray[np.float64]

    def record(self, section: str) -> dict[str, Any]:
        """Say what was held out, as plain values.

        Parameters
        ----------
        section
            Name of the section.

        Returns
        -------
        Numbers of spots and the middles of the neighbourhoods.
        """
        numbers = {"trained": len(self.train), "held_out": len(self.held), "left_out": len(self.rim)}
        return {"section": section, **numbers, "centres": self.centres.tolist()}


def hold_out(stored: StoredSection, share: float, rng: np.random.Generator) -> HeldOut:
    """Hold out whole neighbourhoods of a section.

    Parameters
    ----------
    stored
        The section.
    share
        Share of its usable spots that is held out.
    rng
        Source of randomness.

    Returns
    -------
    The spots. Each neighbourhood is a spot and those nearest to it. Spots whose niche shares a spot with the niche of
    one that is held out, or whose weighted expression takes one in or goes into it, are in neither part.
    """
    n = max(2, round(share * len(stored.rows)))
    best = _drawn(stored, n, rng)
    for _ in range(_TRIES - 1):
        if 2 * len(best.train) >= len(stored.rows):
            break
        found = _drawn(stored, n, rng)
        if len(found.train) > len(best.train):
            best = found
    return best


def _drawn(stored: StoredSection, n: int, rng: np.random.Generator) -> HeldOut:
    rows, coords = stored.rows, stored.reader.coords
    order = rng.permutation(rows)
    held = np.zeros(len(stored.reader), bool)
    centres = []
    for size in np.diff(np.linspace(0, n, min(_MOST, -(-n // _SPOTS)) + 1).round().astype(int)):
        free = rows[~held[rows]]
        centre = next(spot for spot in order if not held[spot])
        distance = ((coords[free] - coords[centre]) ** 2).sum(axis=1)
        held[free[np.lexsort([*coords[free].T, distance])[:size]]] = True
        centres.append(coords[centre])
    rim = _near(stored, held) & ~held
    usable = np.zeros(len(held), bool)
    usable[rows] = True
    train = np.flatnonzero(usable & ~held & ~rim)
    return HeldOut(train, np.flatnonzero(held), np.flatnonzero(usable & rim), np.array(centres))


def _near(stored: StoredSection, held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Spots whose niche, or weighted expression, has to do with spots that are held out, (n,)."""
    reader = stored.reader
    niche = _members(reader.graph)
    near = niche @ (niche.T @ held) > 0  # their niches have a spot in common
    if reader.expression is not None:
        wide = reader.expression.graph  # by a Gaussian, further than the niche
        if sp.issparse(wide):
            members = _members(wide)
            near |= (members @ held > 0) | (members.T @ held > 0)
        else:
            near |= np.asarray(wide @ held[:, None].astype(np.float32))[:, 0] > 0
    return np.asarray(near)


def _members(graph: sp.csr_matrix) -> sp.csr_matrix:
    """The graph with ones in the place of weights, each spot in its own niche, CSR (n, n)."""
    n = graph.shape[0]
    ones = sp.csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr), shape=(n, n))
    return sp.csr_matrix(ones + sp.identity(n, format="csr"))
