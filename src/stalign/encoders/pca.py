"""Principal components by scanpy's pipeline, as a representation to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from stalign._optional import require
from stalign._validate import message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stalign.encoders.card import Card

_EQUAL = 1e-5  # values of log1p that differ by less are equal up to rounding


class ScanpyPCA:
    """Normalise, log1p, highly variable genes, principal components: fitted to the rows that it is given.

    Parameters
    ----------
    options
        `n_comps`, `n_top_genes`, `target_sum` (counts per spot after normalisation) and `seed`.
    """

    vocabulary = ()
    whole = True  # the rows are encoded together
    normalises = True  # total counts over all genes make a difference

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def encode(
        self, counts: sp.csr_matrix, names: Sequence[str], totals: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Reduce counts to principal components.

        Parameters
        ----------
        counts
            Raw counts, CSR (n, n_genes).
        names
            Names of the rows, (n,).
        totals
            Total counts over all genes, (n,), where `counts` holds only some of the genes.

        Returns
        -------
        (n, n_comps) float32; NaN for rows without a count, zeros beyond the rank of the data.

        Raises
        ------
        ValueError
            If fewer than two rows have counts, or there are fewer than two genes.
        """
        sc: Any = require("scanpy", purpose="The encoder 'pca'")
        filled = np.asarray(counts.sum(axis=1)).ravel() > 0
        if filled.sum() < 2:
            raise ValueError(message("Expected at least two spots with counts", found=int(filled.sum())))
        table = sc.AnnData(counts[filled].astype(np.float32))
        table.obs_names = [name for name, keep in zip(names, filled, strict=True) if keep]
        if totals is None:
            sc.pp.normalize_total(table, target_sum=self.options["target_sum"])
        else:
            scale = self.options["target_sum"] / np.maximum(totals[filled], 1e-12)
            table.X = sp.csr_matrix(sp.diags_array(scale.astype(np.float32)) @ table.X)
        sc.pp.log1p(table)
        if table.n_vars > self.options["n_top_genes"]:
            sc.pp.highly_variable_genes(table, n_top_genes=self.options["n_top_genes"])
            table = table[:, table.var["highly_variable"]].copy()
        if table.n_vars < 2:
            raise ValueError(message("Expected at least two genes", found=table.n_vars))
        out = np.zeros((len(filled), self.options["n_comps"]), dtype=np.float32)
        out[~filled] = np.nan
        spread = table.X.max(axis=0) - table.X.min(axis=0)
        if spread.max() > _EQUAL:  # rows that are equal have no components
            n_comps = min(self.options["n_comps"], min(table.shape) - 1)
            sc.pp.pca(table, n_comps=n_comps, random_state=self.options["seed"])
            out[filled, :n_comps] = table.obsm["X_pca"]
        return out


def load(card: Card, path: Path | None, **unused: object) -> ScanpyPCA:
    """Make the encoder.

    Parameters
    ----------
    card
        The encoder, with its options.
    path
        Always None.
    unused
        Device, precision and seed, which make no difference.

    Returns
    -------
    The encoder.
    """
    del path, unused
    return ScanpyPCA(card.options)
