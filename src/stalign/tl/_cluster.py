"""Embedding on the workers of a dask cluster."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._settings import logger, progress
from stalign.data.pixels import full_scale
from stalign.tl._batch import embed_batch, section_bases

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from stalign.data.images import SectionImage
    from stalign.data.spots import SpotReader
    from stalign.models.network import STAlign

_TOGETHER = 8  # batches that a worker embeds in one task
_KEEP = 512 * 1024**2  # bytes of pixels that a worker keeps


def cluster() -> Any:
    """Find the client of a dask cluster, without importing dask.

    Returns
    -------
    The current client of `dask.distributed`; None where there is none, or within a task of a worker.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        distributed.get_worker()
    except ValueError:
        try:
            client = distributed.get_client()
        except ValueError:
            return None
        return None if client.asynchronous else client
    return None


def on_workers(
    client: Any, network: STAlign, reader: SpotReader, batches: list[NDArray[np.intp]]
) -> Iterator[tuple[NDArray[np.intp], dict[str, NDArray[np.float32]]]]:
    """Embed batches on the workers of a cluster, which read the image as well.

    Parameters
    ----------
    client
        The cluster.
    network
        The network. Workers use a device of the same name.
    reader
        The section.
    batches
        Positions of spots in the section, (b,) each.

    Yields
    ------
    A batch, and its embeddings (b, width) float32 by obsm key; in the order in which they are done.
    """
    from distributed import as_completed

    n_workers, address = len(client.nthreads()), client.scheduler.address
    logger.info("Embedding %s on %d workers of the dask cluster at %s.", reader.name, n_workers, address)
    device = str(next(network.parameters()).device)
    network = network if device == "cpu" else copy.deepcopy(network).cpu()
    shared = client.scatter([network, portable(reader)], broadcast=True, hash=False)
    groups = [batches[start : start + _TOGETHER] for start in range(0, len(batches), _TOGETHER)]
    futures = {client.submit(_embed, *shared, group, device, pure=False): group for group in groups}
    done = as_completed(list(futures))
    for future in progress(done, desc=f"Embedding {reader.name}", total=len(groups), unit="task"):
        group = futures.pop(future)
        yield from zip(group, future.result(), strict=True)
        future.release()  # the worker need not keep it


def portable(reader: SpotReader) -> SpotReader:
    """Make a reader that can be sent to another process: without what it does not need, with an image to be read there.

    Parameters
    ----------
    reader
        The reader.

    Returns
    -------
    One that gives the same batches for embedding. A lazy image is read where the reader is; one in memory goes along.
    """
    light = reader.without_counts()
    if reader.image is not None:
        light.image = _portable_image(reader.image)
    return light


def _portable_image(image: SectionImage) -> SectionImage:
    if hasattr(image.source, "compute"):
        white = full_scale(image.source) if image.white is None else image.white
        return replace(image, source=_ThreadedArray(image.source), white=white, keep=_KEEP)
    if isinstance(image.source, Path) and image.lazy:
        return replace(image, keep=_KEEP)  # workers read the file, as they do a lazy array
    return image.in_memory()


class _ThreadedArray:
    """A dask array that is computed by the threads of the process that slices it, and never by the cluster again."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim, self.chunks = array.shape, array.dtype, array.ndim, array.chunks

    def __getitem__(self, where: Any) -> NDArray[Any]:
        part: NDArray[Any] = self.array[where].compute(scheduler="threads")
        return part


def _embed(
    network: STAlign, reader: SpotReader, batches: list[NDArray[np.intp]], device: str
) -> list[dict[str, NDArray[np.float32]]]:
    network.to(device)
    bases = section_bases(network, reader)
    return [embed_batch(network, reader, rows, bases) for rows in batches]
