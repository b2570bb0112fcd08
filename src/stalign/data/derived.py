"""Niches and windows of sections, put into the slots of their table."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from scipy import sparse

from stalign._constants import N_NEIGHBORS, NICHE_WINDOW_UM, VISIUM_SPOT_UM, Keys
from stalign._settings import logger
from stalign.core.niches import Niche
from stalign.data.records import record, result_record, section_table, window_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.section import Section

_LEVELS: Final = {Keys.SPOT_WINDOW: "spot", Keys.NICHE_WINDOW: "niche"}


def niche_slots(sections: Sequence[Section], niche: Niche, library_key: str | None = None) -> dict[str, dict[str, Any]]:
    """Put the niches of all sections of a table into slots.

    Parameters
    ----------
    sections
        All sections of a table.
    niche
        What makes a niche.
    library_key
        Column of obs that tells the sections apart, for the record.

    Returns
    -------
    obsp["niche_connectivities"], CSR (n_obs, n_obs) float32, and uns["niches"].
    """
    n_obs, order = sections[0].table.n_obs, np.concatenate([section.rows for section in sections])
    graph = sparse.block_diag([section.niches(niche) for section in sections], format="csr", dtype=np.float32)
    if not np.array_equal(order, np.arange(n_obs)):
        back = np.empty(n_obs, dtype=np.intp)
        back[order] = np.arange(n_obs)
        graph = graph[back][:, back]
        graph.sort_indices()
    noted = result_record({**asdict(niche), "library_key": library_key}, connectivities_key=Keys.NICHE_GRAPH)
    return {"obsp": {Keys.NICHE_GRAPH: graph}, "uns": {Keys.UNS_NICHES: noted}}


def window_slots(
    sections: Sequence[Section], niche: Niche, *, spot_um: float = VISIUM_SPOT_UM, niche_um: float = NICHE_WINDOW_UM
) -> dict[str, dict[str, Any]]:
    """Put the windows of all sections of a table into slots.

    Parameters
    ----------
    sections
        All sections of a table; those without an image get windows of NaN.
    niche
        What makes a niche.
    spot_um, niche_um
        Sides of the windows of spots and niches that the network was trained on, in µm; bins and cells smaller than
        `spot_um` take them.

    Returns
    -------
    obsm["spot_window"] and obsm["niche_window"], (n_obs, 4) float32, obs["stalign_valid"], (n_obs,) bool, and
    uns["stalign"]["patches"].

    Raises
    ------
    ValueError
        If scale or spot diameter of a section with an image are unknown.
    """
    windows = {key: np.full((sections[0].table.n_obs, 4), np.nan, np.float32) for key in _LEVELS}
    rows = []
    for section in sections:
        if section.image is None:
            continue
        width = {level: section.window_um(level, spot_um=spot_um, niche_um=niche_um) for level in _LEVELS.values()}
        for key, level in _LEVELS.items():
            windows[key][section.rows] = section.windows(level, niche, width_um=width[level])
        rows.append(
            {
                "section": section.name,
                "image_key": section.image.key,
                "mpp": float(section.image.mpp),
                "mpp_origin": section.mpp_origin,
                "coord_mpp": float(section.coord_mpp),
                "scale": float(section.image.scale),
                "spot_diameter_um": float(section.spot_diameter_um),
                "spot_window_um": width["spot"] or float(section.spot_diameter_um),
                "niche_window_um": width["niche"] or _edge(windows[Keys.NICHE_WINDOW][section.rows], section.image.mpp),
                "mpp_given": section.scale.mpp_given,
                "spot_diameter_given": section.scale.spot_given,
                "spot_window_given": section.window_given("spot") is not None,
                "niche_window_given": section.window_given("niche") is not None,
            }
        )
    noted = result_record(asdict(niche), sections=section_table(rows))
    valid = np.isfinite(windows[Keys.SPOT_WINDOW]).all(axis=1)
    return {"obsm": windows, "obs": {Keys.VALID: valid}, "uns": {Keys.UNS: {"patches": noted}}}


def _edge(windows: NDArray[np.float32], mpp: float) -> float:
    """Median edge in µm of windows (n, 4) in px of `mpp` µm, those of NaN left out."""
    windows = windows[np.isfinite(windows).all(axis=1)].astype(np.float64)
    return float(np.median(windows[:, 2:] - windows[:, :2]) * mpp) if len(windows) else float("nan")


def niche_of(table: AnnData, n_neighbors: int | None = None) -> Niche:
    """Tell what makes a niche: what is given, else what `pp.niches` noted, else the default.

    Parameters
    ----------
    table
        The table.
    n_neighbors
        Number of neighbours, or None.

    Returns
    -------
    What makes a niche.
    """
    noted = record(table, Keys.UNS_NICHES, "params")
    found: dict[str, Any] = {
        "n_neighbors": int(noted.get("n_neighbors", N_NEIGHBORS)),
        "include_self": bool(noted.get("include_self", True)),
        "ties": str(noted.get("ties", "position")),
    }
    return Niche(**found | ({} if n_neighbors is None else {"n_neighbors": n_neighbors}))


def log_changes(table: AnnData, slots: Mapping[str, Mapping[str, Any]]) -> None:
    """Log where niches or windows that are there were made for other spots, another scale, image or parameters.

    Parameters
    ----------
    table
        The table.
    slots
        What is about to be written.
    """
    for slot, key in (("obsp", Keys.NICHE_GRAPH), ("obsm", Keys.SPOT_WINDOW), ("obsm", Keys.NICHE_WINDOW)):
        there, new = getattr(table, slot).get(key), slots.get(slot, {}).get(key)
        if there is None or new is None:
            continue
        if slot == "obsp":
            same = there.shape == new.shape and abs(sparse.csr_matrix(there) - new).max() < 1e-3
        else:
            old = window_numbers(there)
            same = old is not None and np.allclose(old, new, rtol=1e-6, atol=0.05, equal_nan=True)
        if not same:
            logger.warning(
                "What is in %s[%r] was made for other spots, another scale or image, or other parameters: made again.",
                *(slot, key),
            )
