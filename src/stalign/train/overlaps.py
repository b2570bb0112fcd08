"""Overlaps of spots with gene sets, kept on disk beside the sections of a run."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from stalign.core.files import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.core.pathways import Pathways


def overlaps(
    pathways: Pathways, genes: NDArray[np.int32], folder: Path, *, above: float, largest: int | None
) -> sparse.csr_matrix:
    """Compute the overlaps of sentences with gene sets, or read them where they were computed before.

    Parameters
    ----------
    pathways
        The sets.
    genes
        Sentences, (n, K) positions in the vocabulary, filled up with -1.
    folder
        Where they are kept, if it is there; the name of the file follows from sentences, sets and threshold.
    above, largest
        As `Pathways.overlaps` takes them.

    Returns
    -------
    CSR (n, P).
    """
    digest = hashlib.sha256(repr((genes.shape, pathways.members.shape, above, largest)).encode())
    for values in (genes, pathways.members.indptr, pathways.members.indices):
        digest.update(np.ascontiguousarray(values, dtype=np.int64).tobytes())
    file = folder / f"overlaps-{digest.hexdigest()[:32]}.npz"
    if file.is_file():
        return sparse.csr_matrix(sparse.load_npz(file))
    found = pathways.overlaps(genes, above=above, largest=largest)
    if folder.is_dir():
        with whole_file(file) as temporary:
            sparse.save_npz(temporary, found, compressed=False)
    return found
