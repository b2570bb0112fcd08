"""Sections of the tables: by name in the data folder, by path, or by the name of a fetcher of `stalign.datasets`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

import stalign
from benchmarks.cells import Missing
from benchmarks.real import IGNORED, SECTIONS, Real
from stalign.core.training_data import DONOR

if TYPE_CHECKING:
    from anndata import AnnData

    from benchmarks.config import Config

LABELS = {"dlpfc": "layer", "her2st": "label", "toy": "domain"}  # of fetchers
STUDIES = {"dlpfc": "Maynard 2021", "her2st": "Andersson 2021"}
HOW = "name an h5ad with --slices PATH@LABELS, or fetch it with --slices FETCHER:ID --download"


@dataclass(frozen=True)
class Section:
    """A section, read when it is first used."""

    name: str
    real: Real
    root: Path
    fetcher: str = ""
    id: str = ""

    def read(self) -> AnnData:
        """The table, one object for the whole run: what tables write to it starts with X_."""
        return _read(self)

    @property
    def truth(self) -> str:
        return self.real.truth

    @property
    def n_domains(self) -> int:
        """The number that was named, or of labels."""
        if self.real.n_domains:
            return self.real.n_domains
        labels = self.read().obs[self.truth].dropna().astype(str)
        return int(labels[~labels.isin(IGNORED)].nunique())

    @property
    def counts(self) -> dict[str, str | None]:
        """Arguments of calls that read counts."""
        return {"total_counts": self.real.total_counts, "gene_key": self.real.gene_key}

    @property
    def own_name(self) -> str:
        """Its name in its study, as cards of weights have it."""
        return self.real.section or self.name.rsplit(" ", 1)[-1]

    @property
    def donor(self) -> str | None:
        if self.real.donor:
            return self.real.donor
        columns = [name for name in self.read().obs if str(name).removesuffix("_id") in DONOR]
        values = self.read().obs[columns[0]].dropna().unique() if columns else []
        return str(values[0]) if len(values) == 1 else None

    @property
    def study(self) -> str | None:
        return self.real.study or STUDIES.get(self.fetcher)

    @property
    def sha256(self) -> str:
        return _sha256(self)


def find(text: str, config: Config) -> Section:
    """Find the section that a text names; raise `Missing` with what to do where it is not there."""
    where, _, labels = text.partition("@")
    labels, _, n = labels.partition(":")
    known = {real.name: real for real in SECTIONS}
    if where in known:
        real = known[where]
        if not (config.data / real.file).is_file():
            raise Missing(f"no {real.file} in the data folder; {HOW}")
        return Section(where, real, config.data)
    fetcher, _, number = where.partition(":")
    if fetcher in stalign.datasets.__all__:
        if number and not config.download:
            raise Missing(f"{where} is fetched, and read from the cache, with --download alone")
        real = Real(number or fetcher, "", labels or LABELS.get(fetcher, ""), int(n or 0))
        return Section(real.name, _labelled(real, text), config.data, fetcher, number)
    path = Path(where).expanduser()
    if path.is_file():
        return Section(path.stem, _labelled(Real(path.stem, str(path.resolve()), labels, int(n or 0)), text), Path("/"))
    raise Missing(f"{where} is not in the data folder; {HOW}")


def _labelled(real: Real, text: str) -> Real:
    if not real.truth:
        raise Missing(f"the column of labels in {text} is not named; write {text}@COLUMN")
    return real


@lru_cache(maxsize=16)
def _read(section: Section) -> AnnData:
    if not section.fetcher:
        return section.real.read(section.root)
    fetch = getattr(stalign.datasets, section.fetcher)
    return fetch(section.id) if section.id else fetch()


@lru_cache(maxsize=64)
def _sha256(section: Section) -> str:
    """Hash counts, positions, names of spots and genes, and the image file where there is one."""
    adata = section.read()
    counts = sparse.csr_matrix(adata.X, copy=True)
    counts.sort_indices()
    digest = hashlib.sha256()
    for values in (counts.indptr.astype(np.int64), counts.indices.astype(np.int64), counts.data.astype(np.float64)):
        digest.update(values.tobytes())
    digest.update(np.asarray(adata.obsm["spatial"], dtype=np.float64).tobytes())
    digest.update("\n".join([*adata.obs_names, *adata.var_names]).encode())
    for name in sorted(adata.uns.get("spatial", {})):
        entry = adata.uns["spatial"][name]
        file = Path(str(entry.get("metadata", {}).get("source_image_path", "")))
        if file.is_file():
            digest.update(file.read_bytes())
        for key in sorted(entry.get("images", {})):
            digest.update(np.ascontiguousarray(entry["images"][key]).tobytes())
    return digest.hexdigest()
