"""Slides of the large public collections, one by one: STimage-1K4M, ST-Net breast, HEST-1k."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stalign._settings import logger
from stalign._validate import message
from stalign.datasets._fetch import fetch, folder, source_of
from stalign.io.tables import read_table

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from anndata import AnnData

_STIMAGE_TABLE = "meta/meta_all_gene02122025.csv"
_HEST_TABLE = "HEST_v1_1_0.csv"
_STNET = "Human_Breast_He_06222020_ST_"
_STEPS = (
    "HEST-1k is gated: (1) sign in at https://huggingface.co/datasets/MahmoodLab/hest and accept its terms "
    "(CC-BY-NC-SA-4.0), (2) make a read token at https://huggingface.co/settings/tokens and run `hf auth login` or set "
    "HF_TOKEN, (3) call again"
)


def stimage_table(*, base_url: str | None = None) -> pd.DataFrame:
    """Fetch the metadata table of STimage-1K4M, a row per slide, and no slide.

    Parameters
    ----------
    base_url
        A mirror with the folder `meta`; None for the hub, or for the mirror that STALIGN_DATASETS_URL names.

    Returns
    -------
    The table, as text, with the columns `slide`, `species`, `tissue`, `pmid`, `title`, `abstract`, `keywords`,
    `involve_cancer`, `tech`, `spot_num` and `gene_num`.

    Raises
    ------
    ConnectionError
        If the host cannot be reached and the table was not fetched before.
    FileNotFoundError
        If the host does not have the table.
    ValueError
        If the table has changed since it was first fetched, or is none.

    Notes
    -----
    `train.curate_stimage(table, files=False)` chooses slides by the table alone. `summary` counts them.

    Examples
    --------
    >>> import stalign as st
    >>> table = st.datasets.stimage_table()  # doctest: +SKIP
    >>> slides = table.loc[(table["species"] == "human") & (table["tech"] == "Visium"), "slide"]  # doctest: +SKIP
    """
    return read_table(_get("stimage", _STIMAGE_TABLE, base_url), dtype=str)


def stimage(slide: str, *, image: bool = True, mpp: float | None = None, base_url: str | None = None) -> AnnData:
    """Fetch one slide of STimage-1K4M.

    Parameters
    ----------
    slide
        Name of the slide, as in `stimage_table()["slide"]`.
    image
        Whether to fetch the image, too.
    mpp
        µm per px of the image; needed for Visium HD, see `io.read_stimage`.
    base_url
        A mirror with the folders `meta`, `Visium`, `ST`, `VisiumHD` and `annotation`; None for the hub, or for the
        mirror that STALIGN_DATASETS_URL names.

    Returns
    -------
    AnnData as `io.read_stimage` gives it, with `obs["annotation"]` where the slide has a pathologist's labels.

    Raises
    ------
    ValueError
        If there is no such slide, or a file has changed since it was first fetched.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.
    FileNotFoundError
        If the host does not have a file.

    Notes
    -----
    Files are kept in `settings.cache_dir / "datasets" / "stimage"`, laid out as the collection, so that
    `train.curate_stimage` and `io.read_stimage` take that folder. Nobody publishes their hashes; those of the first
    download are kept beside them. The hub states MIT; the authors' repository asks for a form to be filled in before
    use.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.stimage("Human_Brain_Maynard_02082021_Visium_151673")  # doctest: +SKIP
    """
    from stalign.io import read_stimage

    table = stimage_table(base_url=base_url)
    row = table[table["slide"] == slide]
    if row.empty:
        raise ValueError(_unknown(slide, table["slide"], "slide", "datasets.stimage_table()"))
    tech = str(row["tech"].iloc[0])
    files = [f"{tech}/gene_exp/{slide}_count.csv", f"{tech}/coord/{slide}_coord.csv"]
    if not (folder("stimage") / files[-1]).is_file():  # what has no labels is asked for them once
        _annotation(slide, base_url)
    for path in [*files, *([f"{tech}/image/{slide}.png"] if image else [])]:
        _get("stimage", path, base_url)
    return read_stimage(folder("stimage"), slide, mpp=mpp, image=image)


def stnet(section: str, *, image: bool = True, base_url: str | None = None) -> AnnData:
    """Fetch a section of ST-Net's breast tumours, as STimage-1K4M holds them.

    68 Spatial Transcriptomics sections of 23 patients (He et al. 2020, Nat Biomed Eng 4:827).

    Parameters
    ----------
    section
        Name of the slide, with or without `Human_Breast_He_06222020_ST_`; a wrong one lists those that there are.
    image
        Whether to fetch the image, too.
    base_url
        A mirror of STimage-1K4M; None for the hub, or for the mirror that STALIGN_DATASETS_URL names.

    Returns
    -------
    AnnData, as `stimage` gives it.

    Raises
    ------
    ValueError
        If there is no such section, or a file has changed since it was first fetched.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.
    FileNotFoundError
        If the host does not have a file.

    Notes
    -----
    Neither the patient nor tumour and normal tissue is told here. HEST-1k has the same sections as SPA51 to SPA118,
    with their patients: `datasets.hest("SPA51")`.

    Examples
    --------
    >>> import stalign as st
    >>> slides = st.datasets.stimage_table()["slide"]  # doctest: +SKIP
    >>> adata = st.datasets.stnet(slides[slides.str.contains("_He_06222020_")].iloc[0])  # doctest: +SKIP
    """
    slide = _STNET + section.removeprefix(_STNET)
    table = stimage_table(base_url=base_url)
    there = [name for name in table["slide"].astype(str) if name.startswith(_STNET)]
    if slide not in there:
        raise ValueError(_unknown(section, there, "section", "datasets.stimage_table()"))
    return stimage(slide, image=image, base_url=base_url)


def hest_table(*, base_url: str | None = None) -> pd.DataFrame:
    """Fetch the metadata table of HEST-1k (version 1.1.0), a row per sample, and no sample.

    Parameters
    ----------
    base_url
        A mirror; None for the hub, which is gated, or for the mirror that STALIGN_DATASETS_URL names.

    Returns
    -------
    The table, as text: `id`, `organ`, `species`, `patient`, `st_technology`, `spots_under_tissue` and others.

    Raises
    ------
    PermissionError
        If the hub asks for access: the message has the three steps.
    ConnectionError
        If the host cannot be reached and the table was not fetched before.
    FileNotFoundError
        If the host does not have the table.
    ValueError
        If the table has changed since it was first fetched, or is none.

    Examples
    --------
    >>> import stalign as st
    >>> st.datasets.hest_table().groupby("organ").size()  # doctest: +SKIP
    """
    return read_table(_get("hest", _HEST_TABLE, base_url), dtype=str)


def hest(sample: str, *, image: bool = False, base_url: str | None = None) -> AnnData:
    """Fetch one sample of HEST-1k.

    Parameters
    ----------
    sample
        Its id, such as `TENX99`, as in `hest_table()["id"]`; MISC1 to MISC12 are the DLPFC, SPA51 to SPA118 ST-Net.
    image
        Whether to fetch the whole-slide image, too, of some GB; without, there is a downscaled one.
    base_url
        A mirror with the folders `st`, `metadata` and `wsis`; None for the hub, which is gated, or for the mirror that
        STALIGN_DATASETS_URL names.

    Returns
    -------
    AnnData, as `io.read_hest` gives it.

    Raises
    ------
    PermissionError
        If the hub asks for access: the message has the three steps.
    ValueError
        If there is no such sample, or a file has changed since it was first fetched.
    ConnectionError
        If the host cannot be reached and the files were not fetched before.
    FileNotFoundError
        If the host does not have a file.

    Notes
    -----
    Files are kept in `settings.cache_dir / "datasets" / "hest"`, laid out as the collection. CC-BY-NC-SA-4.0: weights
    trained on it inherit that. Nobody publishes the hashes; those of the first download are kept beside the files.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.datasets.hest("MISC4")  # doctest: +SKIP
    """
    from stalign.io import read_hest

    table = hest_table(base_url=base_url)
    if sample not in set(table["id"]):
        raise ValueError(_unknown(sample, table["id"], "sample", "datasets.hest_table()"))
    for path in (f"st/{sample}.h5ad", f"metadata/{sample}.json", *([f"wsis/{sample}.tif"] if image else [])):
        _get("hest", path, base_url)
    return read_hest(folder("hest"), sample, image=None if image else "downscaled")


def _annotation(slide: str, base_url: str | None) -> None:
    """Fetch the labels of a slide, in a file of its own or in that of its data set, if there are any."""
    for name in (slide, slide.rpartition("_")[0]):
        try:
            _get("stimage", f"annotation/{name}_anno.csv", base_url)
            return
        except FileNotFoundError:
            logger.debug("There is no annotation/%s_anno.csv.", name)


def _get(dataset: str, path: str, base_url: str | None) -> Path:
    host, headers = source_of(dataset)["url"], {}
    gated = _STEPS if dataset == "hest" else ""
    if gated and base_url is None and (token := _token()):
        headers = {"Authorization": f"Bearer {token}"}
    target = folder(dataset) / path
    return fetch(dataset, path, target, host=host, base_url=base_url, headers=headers, gated=gated)


def _token() -> str | None:
    """Get the token that `hf auth login` or HF_TOKEN left."""
    try:
        from huggingface_hub import get_token
    except ImportError:
        return os.environ.get("HF_TOKEN")
    return get_token()


def _unknown(name: str, there: pd.Series | list[str], what: str, call: str) -> str:
    part = name.casefold()
    near = [one for one in map(str, there) if part in one.casefold()] or list(map(str, there))
    return message(f"Expected the name of a {what}", found=repr(name), available=near, hint=f"`{call}` lists all")
