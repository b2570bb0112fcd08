"""Reading of Visium folders as Space Ranger writes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.data.pixels import file_levels, read_file
from stalign.data.numbers import number
from stalign.data.scale import Stated, resolve
from stalign.io._files import SMALL_PX, first, folder, listing

if TYPE_CHECKING:
    from anndata import AnnData

_POSITIONS = (
    "tissue_positions.csv*",
    "tissue_positions_list.csv*",
    "tissue_positions.parquet",
    "tissue_positions*.txt*",
)
_COLUMNS = ["in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]


def read_visium(
    path: str | Path,
    *,
    image: str | Path = "hires",
    mpp: float | None = None,
    library_id: str | None = None,
    counts_file: str = "filtered_feature_bc_matrix.h5",
) -> AnnData:
    """Read a Visium section from the folder that Space Ranger 1, 2 or 3 wrote.

    Parameters
    ----------
    path
        The `outs` folder, or the one above it.
    image
        Image that stalign uses by default: `hires`, `lowres`, or the path of the full-resolution image that Space
        Ranger was run on. Where there is no hires image, lowres is used and the log says so.
    mpp
        µm per px of the full-resolution image. None derives it from the pitch of the spots (100 µm).
    library_id
        Name of the section; None takes it from the counts file, or else from the folder.
    counts_file
        Name of the counts file, or of a folder with matrix, features and barcodes.

    Returns
    -------
    AnnData with the spots in tissue:

    - `X`: raw counts, CSR float32; `var_names` made unique, `var["gene_name"]` as they were, `var["gene_ids"]`.
    - `obs["in_tissue"]`, `obs["array_row"]`, `obs["array_col"]`: int.
    - `obsm["spatial"]`: (n, 2) float64, x and y in px of the full-resolution image.
    - `uns["spatial"][library]`: `images` (the hires and lowres images that there are; a full-resolution image of up to
      25 million px), `scalefactors`, and `metadata` with `um_per_px` (µm per px of the full-resolution image),
      `mpp_origin`, `image_key` and, for a full-resolution image, `source_image_path`.

    Raises
    ------
    FileNotFoundError
        If counts, positions, scale factors or all images are missing; the message lists what is there.
    ValueError
        If the counts can't be read, positions and counts share no barcode, or the full-resolution image is not that of
        the section.
    KeyError
        If the scale factor of the image is missing.

    Notes
    -----
    Counts are read by scanpy.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.io.read_visium("path/to/outs")  # doctest: +SKIP
    >>> st.pp.niches(adata)  # doctest: +SKIP
    """
    root = folder(path)
    if not (root / "spatial").is_dir() and (root / "outs" / "spatial").is_dir():
        root = root / "outs"
    spatial = root / "spatial"
    factors = json.loads(
        first(spatial, ["scalefactors_json.json"], what="the scale factors").read_text(encoding="utf-8")
    )
    positions = read_positions(first(spatial, _POSITIONS, what="the spot positions"))
    adata, library, noted = _counts(root, counts_file, library_id)
    adata = _place(adata, positions)
    images, metadata = _images(spatial, factors, image)
    stated = Stated(
        number(factors, "microns_per_pixel", where="the scale factors"),
        "microns_per_pixel of the scale factors",
        number(factors, "bin_size_um", where="the scale factors"),
        number(factors, "spot_diameter_fullres", where="the scale factors"),
        adata.obs[["array_row", "array_col"]].to_numpy(dtype=np.float64),
    )
    scale = resolve(adata.obsm[Keys.SPATIAL], stated, library=library, mpp=mpp, spot_diameter=None)
    if np.isfinite(scale.mpp):
        metadata |= {"um_per_px": scale.mpp, "mpp_origin": scale.origin}
    adata.uns[Keys.UNS_SPATIAL] = {
        library: {"images": images, "scalefactors": factors, "metadata": {**noted, **metadata}}
    }
    key = metadata["image_key"]
    logger.info(
        "Read %d spots in tissue and %d genes of section %r; image %r at %.3g µm per px (%s).",
        adata.n_obs,
        adata.n_vars,
        library,
        key,
        scale.mpp / factors.get(f"tissue_{key}_scalef", 1.0),
        scale.origin,
    )
    return adata


def _counts(root: Path, counts_file: str, library_id: str | None) -> tuple[AnnData, str, dict[str, str]]:
    """Counts, name of the section, and what else Space Ranger noted."""
    file = first(root, [counts_file, f"*_{counts_file}"], what="the counts", hint="Pass `counts_file=`")
    noted = _attributes(file)
    library = library_id or noted.get("library_ids") or (root.parent.name if root.name == "outs" else root.name)
    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        if file.is_dir():
            import scanpy

            adata = scanpy.read_10x_mtx(file, var_names="gene_symbols", make_unique=False)
        else:
            adata = _read_h5(file)
    adata.var["gene_name"] = adata.var_names.astype(str)
    adata.var_names_make_unique()
    return adata, library, {key: noted[key] for key in ("chemistry_description", "software_version") if key in noted}


def _read_h5(file: Path) -> AnnData:
    import scanpy

    try:
        return scanpy.read_10x_h5(file)
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            message(
                "Expected the counts as Space Ranger writes them, in HDF5",
                found=f"{file.name}, which can't be read ({type(error).__name__}: {error})",
                hint="Check that the file is whole, or name another with `counts_file=`",
            )
        ) from error


def _attributes(file: Path) -> dict[str, str]:
    """Texts that Space Ranger noted in the counts file, the first of each."""
    import h5py

    if file.is_dir() or not h5py.is_hdf5(file):
        return {}
    with h5py.File(file) as handle:
        first_of = {key: np.ravel(value)[:1] for key, value in handle.attrs.items()}
    return {
        key: value[0].decode() if isinstance(value[0], bytes) else str(value[0])
        for key, value in first_of.items()
        if len(value)
    }


def read_positions(file: Path) -> pd.DataFrame:
    """Read the positions file of Space Ranger.

    Parameters
    ----------
    file
        CSV with or without a header, or parquet.

    Returns
    -------
    Columns in_tissue, array_row, array_col, pxl_row_in_fullres (y) and pxl_col_in_fullres (x), indexed by barcode.

    Raises
    ------
    ValueError
        If the columns are others.
    """
    if file.suffix == ".parquet":
        table = pd.read_parquet(file)
        table = table.set_index("barcode") if "barcode" in table else table
    else:
        table = pd.read_csv(file, header=None, index_col=0, dtype=str, encoding="utf-8-sig")
        if str(table.index[0]).lower() == "barcode":
            table.columns = table.iloc[0]
            table = table.iloc[1:]
        elif table.shape[1] == len(_COLUMNS):
            table.columns = pd.Index(_COLUMNS)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        found = ", ".join(map(str, table.columns))
        raise ValueError(message(f"Expected columns {', '.join(_COLUMNS)} in {file.name}", found=found))
    table = table[_COLUMNS].apply(pd.to_numeric)
    table.index = table.index.astype(str)
    return table


def _place(adata: AnnData, positions: pd.DataFrame) -> AnnData:
    known = adata.obs_names.isin(positions.index)
    if not known.any():
        raise ValueError(
            message(
                "Expected the barcodes of the counts among the positions",
                found=f"counts with {adata.obs_names[0]!r}, positions with {positions.index[0]!r}",
                hint="Check that both files are of one section",
            )
        )
    if not known.all():
        logger.warning("%d of %d barcodes have no position and are left out.", int((~known).sum()), adata.n_obs)
    inside = known.copy()
    inside[known] = positions.loc[adata.obs_names[known], "in_tissue"].to_numpy() == 1
    adata = adata[inside].copy()
    placed = positions.loc[adata.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        adata.obs[name] = placed[name].astype(np.int64)
    adata.obsm[Keys.SPATIAL] = placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    return adata


def _images(spatial: Path, factors: dict[str, Any], image: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Images to embed and metadata that name the one to use; scale factors gain that of a full-resolution image."""
    files = {key: next(iter(sorted(spatial.glob(f"tissue_{key}_image.*"))), None) for key in ("hires", "lowres")}
    images = {key: read_file(file) for key, file in files.items() if file is not None}
    full = _full_resolution(image)
    if full is None:
        key = str(image)
        if key == "hires" and key not in images and "lowres" in images:
            logger.warning("There is no hires image in %s; the lowres image is used.", spatial)
            key = "lowres"
        if key not in images:
            raise FileNotFoundError(
                message(
                    f"Expected the {key} image in {spatial} (tissue_{key}_image.png)",
                    found="no such file",
                    available=listing(spatial),
                    hint="Pass the path of an image as `image=`",
                )
            )
        if f"tissue_{key}_scalef" not in factors:
            raise KeyError(message(f"Expected 'tissue_{key}_scalef' in scalefactors_json.json", available=factors))
        return images, {"image_key": key}
    height, width = file_levels(full)[0]
    factors["tissue_fullres_scalef"] = _full_scale(full, (height, width), images, factors)
    if height * width <= SMALL_PX:
        images["fullres"] = read_file(full)
    return images, {"image_key": "fullres", "source_image_path": str(full)}


def _full_resolution(image: str | Path) -> Path | None:
    if isinstance(image, str) and image in {"hires", "lowres"}:
        return None
    file = Path(image).expanduser().resolve()
    if file.is_file():
        return file
    if isinstance(image, str) and file.suffix == "":
        one_of(image, ["hires", "lowres"], name="image", hint="Or pass the path of the full-resolution image")
    raise FileNotFoundError(
        message("Expected an image file", found=f"nothing at {file}", available=listing(file.parent))
    )


def _full_scale(full: Path, shape: tuple[int, int], images: dict[str, Any], factors: dict[str, Any]) -> float:
    """Px of the file per px of the full-resolution image, from the image that Space Ranger made of it."""
    key = next((key for key in ("hires", "lowres") if key in images and f"tissue_{key}_scalef" in factors), None)
    if key is None:
        return 1.0
    expected = np.asarray(images[key].shape[:2]) / factors[f"tissue_{key}_scalef"]
    ratio = np.asarray(shape) / expected
    slack = 1.0 / np.asarray(images[key].shape[:2]) + 0.005  # the small image was rounded to whole px
    if (np.abs(ratio - 1) <= slack).all():
        return 1.0
    if abs(ratio[0] / ratio[1] - 1) > slack.sum():
        found = f"{full.name} of {shape[1]} x {shape[0]} px"
        raise ValueError(
            message(
                f"Expected the image that the {key} image was made of, about {expected[1]:.0f} x {expected[0]:.0f} px",
                found=found,
                hint="Check that it is the image given to Space Ranger, neither cropped nor turned",
            )
        )
    scale = float(ratio.mean())
    logger.warning(
        "%s is %.3g times as large as the image given to Space Ranger; it is used at that scale.", full, scale
    )
    return scale
