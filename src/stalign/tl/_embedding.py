"""Embeddings of a table: batches of spots through the network, here or on a dask cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stalign._settings import progress
from stalign._threads import in_order, threads_for
from stalign._validate import message
from stalign.tl._batch import embed_batch, encode_places, section_bases
from stalign.tl._cluster import cluster, on_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from stalign.data.coarse import CoarseImage
    from stalign.data.spots import SpotReader
    from stalign.models.checkpoint import Checkpoint


T = TypeVar("T")
_FEWEST = 16  # spots of a batch that a thread is started for


class Embedding:
    """Embeddings of the spots of a table, section by section.

    Parameters
    ----------
    checkpoint
        The weights, perhaps without encoders of images.
    n_obs
        Spots of the table.
    batch_size
        Spots in the network at once, those of all threads together.
    with_images
        Returns the same weights with encoders of images; called at the first section with an image, if at all.
    precision
        `fp32`, or `bf16` for encoders of images.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        n_obs: int,
        batch_size: int,
        with_images: Callable[[], Checkpoint],
        precision: str = "fp32",
    ) -> None:
        from stalign.models.fold import folded

        self.network = folded(checkpoint.network, precision)
        self.batch_size = batch_size
        self.precision = precision
        self._with_images = with_images
        self.valid = np.zeros(n_obs, dtype=bool)
        self._arrays: dict[str, NDArray[np.float32]] = {}

    def add(self, reader: SpotReader, rows: NDArray[np.intp]) -> None:
        """Embed a section, on the workers of a dask cluster where there is one.

        Parameters
        ----------
        reader
            The section.
        rows
            Positions of its spots in the table, (n,).
        """
        from stalign.models.fold import folded

        if reader.windows is not None and not self.network.image_encoders:
            self.network = folded(self._with_images().network, self.precision)
        if reader.coarse is not None:
            with threads_for(len(reader.coarse.order()), images=True, sklearn=False):
                reader.coarse = reader.coarse.encoded(self._tokens(reader, reader.coarse))
        order = reader.order()
        client = cluster()
        with threads_for(len(order), images=reader.windows is not None, sklearn=False):
            if client is None:
                embed = partial(embed_batch, self.network, reader, bases=section_bases(self.network, reader))
                done = self._done(embed, order, f"Embedding {reader.name}")
            else:
                done = on_workers(client, self.network, reader, _batches(order, self.batch_size))
            for some, found in done:
                where = rows[some]
                self.valid[where] = True
                for key, values in found.items():
                    if key not in self._arrays:
                        self._arrays[key] = np.full((len(self.valid), values.shape[1]), np.nan, np.float32)
                    self._arrays[key][where] = values

    def _tokens(self, reader: SpotReader, coarse: CoarseImage) -> NDArray[np.float32]:
        """Image tokens of the places of a section, (m, s, l)."""
        order, tokens = coarse.order(), np.zeros((0, 1, 1), dtype=np.float32)
        encode = partial(encode_places, self.network, reader)
        for some, found in self._done(
            lambda some: encode(coarse.windows[some]), order, f"Encoding the image of {reader.name}"
        ):
            if not len(tokens):
                tokens = np.empty((len(order), *found.shape[1:]), dtype=np.float32)
            tokens[some] = found
        return tokens

    def _done(
        self, function: Callable[[NDArray[np.intp]], T], order: NDArray[np.intp], desc: str
    ) -> Iterator[tuple[NDArray[np.intp], T]]:
        """Call a function for batches, in order: as many at once as torch has threads, with one of them each."""
        import torch

        threads = torch.get_num_threads()
        jobs = 2  # one reads, one computes
        if next(self.network.parameters()).device.type == "cpu":
            jobs = min(threads, max(1, self.batch_size // _FEWEST))
        batches = _batches(order, max(1, self.batch_size // jobs))
        torch.set_num_threads(1)
        try:
            done = progress(in_order(function, batches, jobs), desc=desc, total=len(batches))
            yield from zip(batches, done, strict=True)
        finally:
            torch.set_num_threads(threads)

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


def _batches(order: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [order[start : start + size] for start in range(0, len(order), size)]
