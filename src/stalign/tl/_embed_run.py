"""What embedding is made of: whether niches and windows still hold, and batches through the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stalign._constants import Keys
from stalign._settings import logger, progress
from stalign._validate import message, one_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from anndata import AnnData
    from numpy.typing import NDArray

    from stalign.data.sections import SectionView
    from stalign.data.spots import SpotReader
    from stalign.models.checkpoint import Checkpoint
    from stalign.models.config import ModelConfig
    from stalign.models.network import STAlign

    Embedded = tuple[NDArray[np.intp], dict[str, NDArray[np.float32]]]

_KEYS = {"fused": Keys.EMBED, "image": Keys.EMBED_IMAGE, "gene": Keys.EMBED_GENE}
_LEVEL = "niche"


class Embedding:
    """Embeddings of the spots of a table, section by section.

    Parameters
    ----------
    checkpoint
        The weights.
    n_obs
        Spots of the table.
    batch_size
        Spots in the network at once.
    """

    def __init__(self, checkpoint: Checkpoint, n_obs: int, batch_size: int) -> None:
        from stalign.models.fold import folded

        self.network = folded(checkpoint.network)
        self.batch_size = batch_size
        self.valid = np.zeros(n_obs, dtype=bool)
        self._arrays: dict[str, NDArray[np.float32]] = {}

    def add(self, reader: SpotReader) -> None:
        """Embed a section, on the workers of a dask cluster where there is one.

        Parameters
        ----------
        reader
            The section.
        """
        from stalign.tl._embed_cluster import cluster, on_workers

        rows = reader.order()
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        client = cluster()
        done = self._here(reader, batches) if client is None else on_workers(client, self.network, reader, batches)
        for some, found in done:
            where = reader.section.rows[some]
            self.valid[where] = True
            for key, values in found.items():
                if key not in self._arrays:
                    self._arrays[key] = np.full((len(self.valid), values.shape[1]), np.nan, np.float32)
                self._arrays[key][where] = values

    def _here(self, reader: SpotReader, batches: list[NDArray[np.intp]]) -> Iterator[Embedded]:
        for some in progress(batches, desc=f"Embedding {reader.section.library}"):
            yield some, embed_batch(self.network, reader, some)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Get the embeddings by obsm key.

        Returns
        -------
        Arrays (n_obs, width) float32; NaN for spots that could not be embedded.

        Raises
        ------
        ValueError
            If there is none at all.
        """
        if not self.valid.any():
            hint = "Spots need a position, and an image or counts"
            raise ValueError(
                message("Expected a spot that can be embedded", found=f"none of {len(self.valid)}", hint=hint)
            )
        return self._arrays


def embed_batch(network: STAlign, reader: SpotReader, rows: NDArray[np.intp]) -> dict[str, NDArray[np.float32]]:
    """Embed some spots of a section.

    Parameters
    ----------
    network
        The network, in evaluation mode.
    reader
        The section.
    rows
        Positions of the spots in the section, (b,).

    Returns
    -------
    Embeddings, (b, width) float32, by obsm key.
    """
    import torch

    device = next(network.parameters()).device
    with torch.inference_mode():
        batch = reader.batch(rows, levels=(_LEVEL,)).to(device)
        level = network.embed(batch, level=_LEVEL)
    found = {name: getattr(level, name) for name in _KEYS}
    arrays = {_KEYS[name]: value.float().cpu().numpy() for name, value in found.items() if value is not None}
    if batch.gene_valid is not None and Keys.EMBED_GENE in arrays:
        arrays[Keys.EMBED_GENE][~batch.gene_valid.cpu().numpy()] = np.nan
    return arrays


def check_features(config: ModelConfig, features: Mapping[str, str], *, image: bool, genes: bool) -> None:
    """Check that the features that the weights need are given.

    Parameters
    ----------
    config
        The network's configuration.
    features
        The obsm key of each branch's features.
    image, genes
        Whether images and counts are used.

    Raises
    ------
    ValueError
        If a branch is unknown, or one that takes features has none.
    """
    from stalign.models.config import BRANCHES, Features

    for branch in features:
        one_of(branch, BRANCHES, name="features")
    for branch, used in ((f"{_LEVEL}_image", image), (f"{_LEVEL}_gene", genes)):
        if used and isinstance(getattr(config, branch), Features) and branch not in features:
            what = "image" if branch.endswith("image") else "genes"
            hint = (
                f"Write them with `tl.encode(data, ..., level={_LEVEL!r})` and pass their obsm key as "
                f"`features={{{branch!r}: key}}`, or pass `{what}=False`"
            )
            expected = f"Expected features of a frozen encoder for the branch {branch!r} of {config.name!r}"
            raise ValueError(message(expected, found="none", hint=hint))


def niches_hold(graph: Any, views: Iterable[SectionView]) -> bool:
    """Say whether a graph that is there still describes whole niches within these sections.

    Parameters
    ----------
    graph
        Niches, (n_obs, n_obs).
    views
        The sections.

    Returns
    -------
    False, with a line in the log, where niches lost spots or cross sections.
    """
    graph = sp.csr_matrix(graph)
    library = np.full(graph.shape[0], -1)
    whole = np.asarray(graph.sum(axis=1)).ravel()
    for index, view in enumerate(views):
        library[view.rows] = index
        if not np.allclose(whole[view.rows][view.valid], 1, atol=1e-3):
            logger.warning("The niches in obsp[%r] are not whole (were spots removed?): made again.", Keys.NICHE_GRAPH)
            return False
    row = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    if (library[row] != library[graph.indices]).any():
        logger.warning("The niches in obsp[%r] cross sections: made again.", Keys.NICHE_GRAPH)
        return False
    return True


def windows_hold(table: AnnData, views: Iterable[SectionView], *, given_mpp: bool = False) -> bool:
    """Say whether windows that are there were made for these images, positions and niches.

    Parameters
    ----------
    table
        The table.
    views
        Its sections.
    given_mpp
        Whether the scale of the sections was given, and so has to be that of the windows.

    Returns
    -------
    False where they are absent or made for another image, other positions, another scale or other niches.
    """
    if Keys.SPOT_WINDOW not in table.obsm or Keys.NICHE_WINDOW not in table.obsm:
        return False
    record = table.uns.get(Keys.UNS, {}).get("patches", {}).get("sections", {})
    niches = table.uns.get(Keys.UNS_NICHES, {}).get("params", {})
    for view in views:
        if view.image is None:
            continue
        made = record.get(view.library, {})
        if made.get("image_key") != view.image.key or not np.isclose(made.get("scale", 0.0), view.image.scale):
            return False
        if given_mpp and not np.isclose(made.get("coord_mpp", np.nan), view.coord_mpp):
            return False
        if "n_neighbors" in niches and made.get("n_neighbors") != niches["n_neighbors"]:
            return False
        spot = np.asarray(table.obsm[Keys.SPOT_WINDOW], np.float64)[view.rows[view.valid]]
        centres = (spot[:, :2] + spot[:, 2:]) / 2
        if not np.allclose(centres, view.image.to_pixels(view.coords[view.valid]), rtol=1e-6, atol=0.05):
            return False
    return True


def record_of(reader: SpotReader) -> dict[str, Any]:
    """Say what a section was embedded from.

    Parameters
    ----------
    reader
        The section.

    Returns
    -------
    Modality, spots, image and genes, in types that h5ad and zarr hold.
    """
    record: dict[str, Any] = {"modality": reader.modality, "n_valid": int(reader.valid.sum())}
    if reader.section.image is not None:
        record["image_key"] = reader.section.image.key
        record["image_mpp"] = float(reader.section.image.mpp)
    if reader.expression is not None:
        record["gene_coverage"] = float(reader.expression.coverage)
        record["n_genes"] = int(reader.expression.n_matched)
        if np.isfinite(reader.expression.niche_sd_um):
            record["niche_sd_um"] = float(reader.expression.niche_sd_um)
    return record
