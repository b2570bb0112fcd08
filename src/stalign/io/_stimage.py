"""Reading of slides in the layout of STimage-1K4M."""

from __future__ import annotations

from glob import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message
from stalign.data.numbers import number
from stalign.data.scale import Stated, resolve
from stalign.io._files import AGAIN, absent, first, folder, image_file, put_entry, put_image, read_errors
from stalign.io.tables import empty, numeric, one_row_each, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

_TECHNOLOGIES = ("Visium", "ST", "VisiumHD")
_CHUNK = 500  # spots whose dense counts are in memory at one time
_LABELS = ("V2", "label", "annotation")  # the first in the authors' code
_FACTS = ("species", "tissue", "tech", "pmid", "involve_cancer")


def read_stimage(path: str | Path, slide: str, *, mpp: float | None = None, image: bool = True) -> AnnData:
    """Read one slide of STimage-1K4M.

    Parameters
    ----------
    path
        The collection's folder, with `Visium`, `ST` and `VisiumHD` in it, or one of these three.
    slide
        Name of the slide.
    mpp
        µm per px of the slide's image. None derives it from the pitch of the spots: 100 µm on a hexagonal, 200 µm on a
        square grid. Visium HD slides need it.
    image
        Whether to look for the image.

    Returns
    -------
    AnnData:

    - `X`: raw counts, CSR float32; `var_names` made unique, `var["gene_name"]` as they were.
    - `obs["barcode"]`: the spot's name without that of the slide.
    - `obs["annotation"]`: the pathologist's label, categorical, where the collection's folder `annotation` has a table
      of the slide or of its data set; NaN for spots without.
    - `obsm["spatial"]`: (n, 2) float64, x and y in px of the slide's image; NaN for spots without a position.
    - `uns["spatial"][slide]`: `images["fullres"]` or, for an image of more than 25 million px, its path in `metadata`;
      `scalefactors`; `metadata` with `um_per_px`, `mpp_origin` and what the collection's table says of the slide.

    Raises
    ------
    FileNotFoundError
        If counts or coordinates are missing; the message lists what is there.
    ValueError
        If a file is damaged, a spot has several rows that differ, counts and coordinates share no spot, the columns are
        not those of the collection, or `mpp` is needed.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.io.read_stimage("path/to/STimage-1K4M", "GSE144239_GSM4565823")  # doctest: +SKIP
    """
    root, technology = _technology(folder(path), slide)
    counts_file = first(root / "gene_exp", [f"{escape(slide)}_count.*"], what="the counts")
    coords_file = first(root / "coord", [f"{escape(slide)}_coord.*"], what="the coordinates")
    adata = _counts(counts_file)
    place = _coordinates(coords_file).reindex(adata.obs_names)
    found = place["x"].notna().to_numpy()
    if not found.any():
        raise ValueError(
            message(
                f"Expected the spots of {counts_file.name} in {coords_file}",
                found="none of them",
                hint="Check that both files are of one slide",
            )
        )
    if not found.all():
        logger.warning("%d of %d spots of %r have no position.", int((~found).sum()), adata.n_obs, slide)
    adata.obs["barcode"] = [name.removeprefix(f"{slide}_") for name in adata.obs_names]
    labels = _annotation(root.parent / "annotation", slide)
    if labels is not None:
        adata.obs["annotation"] = pd.Categorical(labels.reindex(adata.obs_names))
    adata.obsm[Keys.SPATIAL] = place[["x", "y"]].to_numpy(np.float64, copy=True)
    radius = number({"r": place["r"].median()}, "r", where=str(coords_file)) or np.nan
    factors = {"spot_diameter_fullres": 2 * radius, "tissue_fullres_scalef": 1.0}
    if technology == "VisiumHD" and mpp is None:
        raise ValueError(
            message(f"Expected `mpp` for the Visium HD slide {slide!r}", hint="Pass the µm per px of its image")
        )
    if technology == "VisiumHD" and mpp is not None:
        factors["bin_size_um"] = float(np.rint(factors["spot_diameter_fullres"] * mpp))
    stated = Stated(bin_um=factors.get("bin_size_um"), spot_px=factors["spot_diameter_fullres"])
    scale = resolve(adata.obsm[Keys.SPATIAL], stated, library=slide, mpp=mpp, spot_diameter=None)
    metadata: dict[str, Any] = {"image_key": "fullres", **_facts(root, slide)}
    if np.isfinite(scale.mpp):
        metadata |= {"um_per_px": scale.mpp, "mpp_origin": scale.origin}
    entry: dict[str, Any] = {"images": {}, "scalefactors": factors, "metadata": metadata}
    if image:
        file = image_file(root / "image", slide)
        if file is None:
            raise absent(root / "image", [f"{slide}.*"], what="the image", hint="Or pass `image=False`")
        put_image(entry, "fullres", file, hint="Copy or fetch it again, or pass `image=False`")
    put_entry(adata, slide, entry)
    logger.info(
        "Read %d spots and %d genes of %r at %.3g µm per px (%s).", *adata.shape, slide, scale.mpp, scale.origin
    )
    return adata


def _technology(root: Path, slide: str) -> tuple[Path, str]:
    if root.name in _TECHNOLOGIES or (root / "gene_exp").is_dir():
        return root, root.name
    for name in _TECHNOLOGIES:
        if any((root / name / "gene_exp").glob(f"{escape(slide)}_count.*")):
            return root / name, name
    files = [file for name in _TECHNOLOGIES for file in (root / name / "gene_exp").glob("[!.]*_count.*")]
    there = sorted(file.name.split("_count.")[0] for file in files)
    raise FileNotFoundError(
        message(
            f"Expected <{'|'.join(_TECHNOLOGIES)}>/gene_exp/{slide}_count.csv in {root}", found="none", available=there
        )
    )


def _counts(file: Path) -> AnnData:
    from anndata import AnnData
    from anndata.utils import make_index_unique

    blocks = []
    names: list[str] = []
    with read_errors("a table of counts", file):
        for chunk in read_table(file, index_col=0, chunksize=_CHUNK):
            names += [str(name) for name in chunk.index]
            blocks.append(sparse.csr_matrix(chunk.to_numpy(dtype=np.float32)))
    if not names:
        raise empty("spots", file)
    counts, spots = sparse.vstack(blocks, format="csr"), pd.Index(names)
    whole = np.isfinite(counts.data)
    if not whole.all():
        row = int(np.searchsorted(counts.indptr, whole.argmin(), side="right")) - 1
        raise ValueError(
            message(f"Expected counts in {file}", found=f"none or infinity for {names[row]!r}", hint=AGAIN)
        )
    header = _header(file, counts.shape[1])
    var = pd.DataFrame({"gene_name": header}, index=make_index_unique(pd.Index(header)))
    adata = AnnData(X=counts, obs=pd.DataFrame(index=spots), var=var)
    return _once(adata, file) if spots.has_duplicates else adata


def _once(adata: AnnData, file: Path) -> AnnData:
    """Drop rows that repeat another, or say which spot has rows that differ."""
    kept = ~adata.obs_names.duplicated()
    first_of = adata.obs_names[kept].get_indexer(adata.obs_names)
    other = np.diff((adata.X != adata.X[kept][first_of]).tocsr().indptr) > 0
    if other.any():
        found = f"{int(other.sum())} spots with repeated names and different counts"
        raise ValueError(
            message(f"Expected one row per spot in {file}", found=found, available=adata.obs_names[other].unique())
        )
    logger.warning("%d rows of %s repeat others and are left out.", int((~kept).sum()), file)
    return adata[kept].copy()


def _header(file: Path, n_genes: int) -> list[str]:
    """Gene names as they are in the file: pandas would number duplicates."""
    line = read_table(file, header=None, nrows=1, dtype=str, keep_default_na=False)
    return [str(name) for name in line.iloc[0, -n_genes:]]


def _coordinates(file: Path) -> pd.DataFrame:
    table = read_table(file, index_col=0)
    table.columns = [str(name).strip().lower() for name in table.columns]
    missing = [name for name in ("yaxis", "xaxis", "r") if list(table.columns).count(name) != 1]
    if missing:
        raise ValueError(
            message(f"Expected columns yaxis, xaxis and r in {file}, each once", found=", ".join(table.columns))
        )
    if table.empty:
        raise empty("spots", file)
    table.index = [str(name) for name in table.index]
    return one_row_each(numeric(table, ["xaxis", "yaxis", "r"], file), file).set_axis(["x", "y", "r"], axis=1)


def _annotation(where: Path, slide: str) -> pd.Series | None:
    """Labels of the spots by name, of the file of the slide or else of its data set; None where there is none."""
    files = (where / f"{name}_anno.csv" for name in (slide, slide.rpartition("_")[0]))
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return None
    table = read_table(file, index_col=0, dtype=str)
    column = next((name for name in _LABELS if name in table), None)
    if column is None:  # the slide can be used without
        expected = f"Expected a column {' or '.join(_LABELS)} in {file}"
        logger.warning("No labels are read. %s", message(expected, available=table.columns))
        return None
    table.index = table.index.astype(str)
    table = table[table.index.str.startswith(f"{slide}_")]
    return one_row_each(table[[column]], file)[column] if len(table) else None


def _facts(root: Path, slide: str) -> dict[str, str]:
    """What the collection's table says of a slide; the newest table that knows it is used."""
    for file in sorted((root.parent / "meta").glob("meta_all_gene*.csv"), reverse=True):
        try:
            table = read_table(file, dtype=str)
        except ValueError as error:  # the slide can be used without
            logger.warning("Nothing is taken over from the collection's table. %s", error)
            continue
        rows = table[table["slide"] == slide] if "slide" in table else table.iloc[:0]
        if len(rows):
            return {name: str(rows.iloc[0][name]) for name in _FACTS if name in table and pd.notna(rows.iloc[0][name])}
    return {}
