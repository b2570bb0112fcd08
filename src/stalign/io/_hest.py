"""Reading of samples in the layout of HEST-1k."""

from __future__ import annotations

import json
import warnings
from glob import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.data.pixels import file_levels, read_file
from stalign.data.numbers import number
from stalign.io._files import SMALL_PX, first, folder, listing

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

_PX = (
    "pixel_size_um_estimated",
    "pixel_size_um_embedded",
)  # the first is fitted to the spots, the second the scanner's
_FACTS = ("organ", "oncotree_code", "species", "patient", "st_technology", "dataset_title", "subseries")


def read_hest(path: str | Path, sample: str, *, image: str | None = None) -> AnnData:
    """Read one sample of HEST-1k.

    Parameters
    ----------
    path
        The collection's folder, with `st`, `metadata` and, where they were downloaded, `wsis`.
    sample
        Id of the sample, such as `MISC4`.
    image
        Image that stalign uses by default: `wsi` (full resolution, read when first needed) or `downscaled`; None takes
        the former where it is there.

    Returns
    -------
    AnnData with raw counts in `X`, `obsm["spatial"]` (n, 2) float64, x and y in px of the whole-slide image, and one
    library, named after the sample, in `uns["spatial"]`: `images`, `scalefactors`, and `metadata` with `um_per_px` (µm
    per px of the whole-slide image), `mpp_origin`, `source_image_path` and what the collection says of the sample.

    Raises
    ------
    FileNotFoundError
        If the sample or the image asked for is missing; the message lists what is there.
    ValueError
        If `image` is unknown, or the sample's metadata are no JSON object.
    KeyError
        If the sample has no coordinates.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.io.read_hest("path/to/hest", "MISC4")  # doctest: +SKIP
    """
    import anndata

    if image is not None:
        one_of(image, ["wsi", "downscaled"], name="image")
    root = folder(path)
    file = first(root / "st", [f"{escape(sample)}.h5ad"], what="the counts")
    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        adata = anndata.read_h5ad(file)
    if Keys.SPATIAL not in adata.obsm:
        raise KeyError(message(f"Expected obsm[{Keys.SPATIAL!r}] in sample {sample!r}", available=adata.obsm.keys()))
    adata.obsm[Keys.SPATIAL] = np.asarray(adata.obsm[Keys.SPATIAL], dtype=np.float64)
    adata.var["gene_name"] = adata.var_names.astype(str)
    adata.var_names_make_unique()
    old: dict[str, Any] = next(iter(adata.uns.get(Keys.UNS_SPATIAL, {}).values()), {})
    entry: dict[str, Any] = {
        "images": dict(old.get("images", {})),
        "scalefactors": dict(old.get("scalefactors", {})),
        "metadata": _metadata(root / "metadata" / f"{sample}.json"),
    }
    _scale(entry)
    _image(entry, root / "wsis", sample, image)
    adata.uns[Keys.UNS_SPATIAL] = {sample: entry}
    metadata = entry["metadata"]
    logger.info(
        "Read %d spots and %d genes of %r; image %r; %s µm per px (%s).",
        *adata.shape,
        sample,
        metadata.get("image_key"),
        f"{metadata['um_per_px']:.4g}" if "um_per_px" in metadata else "unknown",
        metadata.get("mpp_origin", "to be derived from the pitch of the spots"),
    )
    return adata


def _metadata(file: Path) -> dict[str, Any]:
    """The scale and the facts of a sample; numbers as floats, the rest as text, missing values left out."""
    if not file.is_file():
        logger.warning("There is no %s: the scale is derived from the pitch of the spots.", file)
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(message(f"Expected a JSON object in {file}", found=str(error))) from error
    if not isinstance(facts, dict):
        raise ValueError(message(f"Expected a JSON object in {file}", found=f"a {type(facts).__name__}"))
    metadata: dict[str, Any] = {name: str(facts[name]) for name in _FACTS if facts.get(name) is not None}
    for name in _PX:
        value = number(facts, name, where="the metadata")
        if value is not None and np.isfinite(value) and value > 0:
            metadata |= {"um_per_px": value, "mpp_origin": f"{name} of HEST"}
            break
    diameter = number(facts, "spot_diameter", where="the metadata")
    if diameter is not None and np.isfinite(diameter):
        metadata["spot_diameter_um"] = diameter
    return metadata


def _scale(entry: dict[str, Any]) -> None:
    metadata, factors = entry["metadata"], entry["scalefactors"]
    if "spot_diameter_fullres" not in factors and {"spot_diameter_um", "um_per_px"} <= set(metadata):
        factors["spot_diameter_fullres"] = metadata["spot_diameter_um"] / metadata["um_per_px"]


def _image(entry: dict[str, Any], wsis: Path, sample: str, image: str | None) -> None:
    metadata, images = entry["metadata"], entry["images"]
    slide = next(iter(sorted(wsis.glob(f"{escape(sample)}.*"))), None)
    if image == "wsi" and slide is None:
        raise FileNotFoundError(
            message(
                f"Expected the whole-slide image {wsis / sample}.tif", found="no such file", available=listing(wsis)
            )
        )
    if slide is not None and image != "downscaled":
        height, width = file_levels(slide)[0]
        entry["scalefactors"]["tissue_fullres_scalef"] = 1.0
        metadata |= {"image_key": "fullres", "source_image_path": str(slide)}
        if height * width <= SMALL_PX:
            images["fullres"] = read_file(slide)
    elif images:
        metadata["image_key"] = next(iter(images))
    elif image == "downscaled":
        raise FileNotFoundError(message(f"Expected a downscaled image in st/{sample}.h5ad", found="none"))
    if slide is None:
        logger.warning("There is no whole-slide image of %r in %s.", sample, wsis)
