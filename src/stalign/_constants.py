"""Every slot name that stalign reads or writes, and every default with its unit."""

from __future__ import annotations

from typing import Final


class Keys:
    """Slot names, grouped by the container slot they live in."""

    # obsm
    SPATIAL: Final = "spatial"  # (n_obs, 2) float, x and y in px of the full-resolution image
    SPOT_WINDOW: Final = "spot_window"  # (n_obs, 4) float, x0 y0 x1 y1 in image px
    NICHE_WINDOW: Final = "niche_window"  # (n_obs, 4) float, x0 y0 x1 y1 in image px
    EMBED: Final = "X_stalign"
    EMBED_FUSED: Final = "X_stalign_fused"
    EMBED_IMAGE: Final = "X_stalign_image"
    EMBED_GENE: Final = "X_stalign_gene"
    PATHWAYS: Final = "pathway_overlap"  # (n_obs, sets) CSR float32; also its record in uns
    # obsp
    NICHE_GRAPH: Final = "niche_connectivities"  # (n_obs, n_obs) CSR, rows sum to 1
    # obs
    VALID: Final = "stalign_valid"  # bool
    DOMAIN: Final = "stalign_domain"  # categorical
    N_BINS: Final = "bins_summed"  # int, smaller bins that were summed into a bin
    HAS_COUNTS: Final = "bin_has_counts"  # bool, whether a bin has counts of its own
    ANNOTATION: Final = "stalign_annotation"  # categorical; also the prefix of its other slots, and its record in uns
    REGION: Final = "stalign_region"  # categorical; also its record in uns
    # uns
    UNS: Final = "stalign"  # {"patches": ..., "embed": ..., "domains": ...}
    UNS_NICHES: Final = "niches"
    UNS_SPATIAL: Final = "spatial"  # {library: {"images", "scalefactors", "metadata"}}


N_NEIGHBORS: Final = 3  # spots beside the spot itself in a niche (ST-Align, section 3.1)
VISIUM_PITCH_UM: Final = 100.0  # µm between the centres of neighbouring Visium spots
VISIUM_SPOT_UM: Final = 55.0  # µm, diameter of a Visium spot
NICHE_WINDOW_UM: Final = 200.0  # µm, about the edge of the windows of Visium niches (142 to 255 µm)
ST_PITCH_UM: Final = 200.0  # µm between the centres of neighbouring spots of the older ST arrays
ST_SPOT_UM: Final = 100.0  # µm, diameter of a spot of the older ST arrays
LIBRARY: Final = "section"  # the library name of a table that names none
