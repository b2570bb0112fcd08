"""The real sections of the benchmarks: where they are, how they are read and what is known about them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import stalign

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Real:
    """A section with labels."""

    name: str
    file: str
    truth: str
    n_domains: int
    section: str | None = None  # its name in a table of several
    total_counts: str | None = None
    gene_key: str | None = None
    donor: str | None = None
    study: str | None = None

    def read(self, root: Path) -> AnnData:
        """Read the section, with its image where there is one."""
        adata = stalign.io.read_h5ad(root / self.file)
        if self.section is not None:
            adata = adata[adata.obs["section"] == self.section].copy()
            spatial = adata.uns["spatial"]
            adata.uns["spatial"] = {self.section: spatial[self.section]} if self.section in spatial else {}
        return adata


_DLPFC = {"truth": "layer", "n_domains": 7, "total_counts": "sum_umi", "gene_key": "gene_name", "study": "Maynard 2021"}
SECTIONS = [
    Real("151673", "dlpfc/151673.h5ad", **_DLPFC, donor="Br8100"),
    Real("151675", "dlpfc/151675.h5ad", **_DLPFC, donor="Br8100"),
    Real("151510", "dlpfc/151510.h5ad", **_DLPFC, donor="Br5292"),
    Real("mob rep1", "mob/rep1.h5ad", "layer", 5, donor="mob-rep1", study="Stahl 2016"),
    Real("mob rep2", "mob/rep2.h5ad", "layer", 5, donor="mob-rep2", study="Stahl 2016"),
    Real("her2st A1", "her2st/her2st.h5ad", "label", 5, section="A1", donor="A", study="Andersson 2021"),
]
IGNORED = ("", "nan", "None", "undetermined")  # labels that count as unlabelled


def data_root() -> Path:
    """Return the folder of the real sections, `STALIGN_TEST_DATA` or `../shared/data` beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("STALIGN_TEST_DATA", default))
    if not root.is_dir():
        msg = f"Expected the real sections in {root}. Name their folder in STALIGN_TEST_DATA."
        raise SystemExit(msg)
    return root
