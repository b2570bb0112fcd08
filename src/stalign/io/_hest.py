"""Reading of samples in the layout of HEST-1k."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.data.numbers import number
from stalign.io._files import absent, first, folder, image_file, put_entry, put_image, read_json, scale_factors
from stalign.io._h5ad import open_h5ad

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray

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
        If `image` is unknown, or a file is damaged, has no spots or a scale that is no positive number.
    KeyError
        If the sample has no coordinates.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.io.read_hest("path/to/hest", "MISC4")  # doctest: +SKIP
    """
    if image is not None:
        one_of(image, ["wsi", "downscaled"], name="image")
    root = folder(path)
    file = first(root / "st", [f"{sample}.h5ad"], what="the counts")
    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        adata = open_h5ad(file)
    adata.obsm[Keys.SPATIAL] = _coordinates(adata, file)
    adata.var["gene_name"] = adata.var_names.astype(str)
    adata.var_names_make_unique()
    old = _mapping(next(iter(_mapping(adata.uns, Keys.UNS_SPATIAL).values()), {}))
    entry: dict[str, Any] = {
        "images": dict(_mapping(old, "images")),
        "scalefactors": scale_factors(_mapping(old, "scalefactors"), str(file)),
        "metadata": _metadata(root / "metadata" / f"{sample}.json"),
    }
    _scale(entry)
    _image(entry, root / "wsis", sample, image)
    put_entry(adata, sample, entry)
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


def _mapping(value: Any, key: str | None = None) -> Mapping[str, Any]:
    """A mapping, or what it holds under a key, as far as that is a mapping."""
    found = value if key is None else value.get(key)
    return found if isinstance(found, Mapping) else {}


def _coordinates(adata: AnnData, file: Path) -> NDArray[np.float64]:
    if Keys.SPATIAL not in adata.obsm:
        raise KeyError(message(f"Expected obsm[{Keys.SPATIAL!r}] in {file}", available=adata.obsm.keys()))
    if not adata.n_obs:
        raise ValueError(message(f"Expected spots in {file}", found="none"))
    found = adata.obsm[Keys.SPATIAL]
    try:
        coords = np.asarray(found.toarray() if hasattr(found, "toarray") else found, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(message(f"Expected numbers in obsm[{Keys.SPATIAL!r}] of {file}", found=str(error))) from error
    if coords.ndim != 2 or coords.shape[1] < 2:
        raise ValueError(
            message(f"Expected x and y in obsm[{Keys.SPATIAL!r}] of {file}", found=f"shape {coords.shape}")
        )
    return coords[:, :2]


def _metadata(file: Path) -> dict[str, Any]:
    """The scale and the facts of a sample; numbers as floats, the rest as text, missing values left out."""
    if not file.is_file():
        logger.warning("There is no %s: the scale is derived from the pitch of the spots.", file)
        return {}
    facts = {name: value for name, value in read_json(file).items() if value is not None and value == value}  # no NaN
    metadata: dict[str, Any] = {name: str(facts[name]) for name in _FACTS if name in facts}
    for name in _PX:
        value = number(facts, name, where=str(file))
        if value is not None:
            metadata |= {"um_per_px": value, "mpp_origin": f"{name} of HEST"}
            break
    diameter = number(facts, "spot_diameter", where=str(file))
    if diameter is not None:
        metadata["spot_diameter_um"] = diameter
    return metadata


def _scale(entry: dict[str, Any]) -> None:
    metadata, factors = entry["metadata"], entry["scalefactors"]
    if "spot_diameter_fullres" not in factors and {"spot_diameter_um", "um_per_px"} <= set(metadata):
        factors["spot_diameter_fullres"] = metadata["spot_diameter_um"] / metadata["um_per_px"]


def _image(entry: dict[str, Any], wsis: Path, sample: str, image: str | None) -> None:
    metadata, images = entry["metadata"], entry["images"]
    slide = image_file(wsis, sample)
    if image == "wsi" and slide is None:
        raise absent(wsis, [f"{sample}.tif"], what="the whole-slide image")
    if slide is not None and image != "downscaled":
        entry["scalefactors"]["tissue_fullres_scalef"] = 1.0
        put_image(entry, "fullres", slide, hint="Copy or fetch it again, or pass `image='downscaled'`")
    elif images:
        metadata["image_key"] = next(iter(images))
    elif image == "downscaled":
        raise FileNotFoundError(message(f"Expected a downscaled image in st/{sample}.h5ad", found="none"))
    if slide is None:
        logger.warning("There is no whole-slide image of %r in %s.", sample, wsis)
