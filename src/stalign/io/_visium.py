"""Reading of Visium folders as Space Ranger writes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import LIBRARY, Keys
from stalign._settings import logger
from stalign._validate import message, one_of
from stalign.data.scale import Stated, resolve
from stalign.io._files import (
    absent,
    first,
    folder,
    image_file,
    image_size,
    listing,
    put_entry,
    put_image,
    read_errors,
    read_image,
    read_json,
    scale_factors,
)
from stalign.io._positions import FILES, read_positions

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


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
        If a file is damaged, several hold counts, positions and counts share no barcode, no spot is in tissue, a scale
        factor is no positive number, or the full-resolution image is not that of the section.
    KeyError
        If the scale factor of the image is missing.

    Notes
    -----
    Counts are read by scanpy. Positions may be separated by commas, tabs or semicolons, with or without a header in any
    order, byte order mark and gzip. A `library_id` that h5ad and zarr can't hold as a key, such as one with a slash, is
    in `metadata["name"]`, and the key is a short form of it.

    Examples
    --------
    >>> import stalign as st
    >>> adata = st.io.read_visium("path/to/outs")  # doctest: +SKIP
    >>> st.pp.niches(adata)  # doctest: +SKIP
    """
    root = _outs(folder(path))
    spatial = root / "spatial"
    hint = "`stalign.io.read_visium_hd` reads the bins and cells of Visium HD" if _of_hd(root) else ""
    factors_file = first(
        spatial, ["scalefactors_json.json", "scalefactors_json.json.gz"], what="the scale factors", hint=hint
    )
    factors = scale_factors(read_json(factors_file), str(factors_file))
    positions_file = first(spatial, FILES, what="the spot positions", hint=hint)
    adata, library, noted = _counts(root, counts_file, library_id, hint=hint)
    adata = _place(adata, read_positions(positions_file), positions_file)
    entry = {"images": {}, "scalefactors": factors, "metadata": noted}
    _images(entry, spatial, image)
    metadata = entry["metadata"]
    stated = Stated(
        factors.get("microns_per_pixel"),
        "microns_per_pixel of the scale factors",
        factors.get("bin_size_um"),
        factors.get("spot_diameter_fullres"),
        adata.obs[["array_row", "array_col"]].to_numpy(dtype=np.float64),
    )
    scale = resolve(adata.obsm[Keys.SPATIAL], stated, library=library, mpp=mpp, spot_diameter=None)
    if np.isfinite(scale.mpp):
        metadata |= {"um_per_px": scale.mpp, "mpp_origin": scale.origin}
    put_entry(adata, library, entry)
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


def _of_hd(root: Path) -> bool:
    """Whether a folder is of Visium HD, and not one of its folders of bins."""
    names = ("binned_outputs", "segmented_outputs")
    return root.name in names or any(p.is_dir() for name in (*names, "square_*um") for p in root.glob(name))


def _outs(root: Path) -> Path:
    """Find the folder that holds `spatial`: this one, the one above, or the only one below."""
    if root.name == "spatial" and any(root.glob("scalefactors_json.json*")):
        return root.parent
    for known in (root, root / "outs"):
        if (known / "spatial").is_dir():
            return known
    found = sorted(path.parent for pattern in ("*/spatial", "*/outs/spatial") for path in root.glob(pattern))
    if len(found) > 1:
        raise ValueError(
            message(
                f"Expected one section in {root}",
                found=f"{len(found)} folders with `spatial`",
                available=[path.relative_to(root) for path in found],
                hint="Pass one of them, or Visium HD to `stalign.io.read_visium_hd`"
                if _of_hd(root)
                else "Pass one of them",
            )
        )
    return found[0] if found else root


def _counts(root: Path, counts_file: str, library_id: str | None, *, hint: str) -> tuple[AnnData, str, dict[str, Any]]:
    """Counts, name of the section, and what else Space Ranger noted."""
    names = [counts_file, f"*_{Path(counts_file).name}"]
    file = first(root, names, what="the counts", hint=hint or "Pass `counts_file=`")
    with warnings.catch_warnings():  # repeated symbols are dealt with below
        warnings.filterwarnings("ignore", "Variable names are not unique", UserWarning)
        adata, noted = _read_counts(file)
    if adata.obs_names.has_duplicates:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(message(f"Expected each barcode once in {file}", found="repeated ones", available=twice))
    above = (path.name for path in (root, *root.parents) if path.name not in {"outs", ""})
    library = library_id or noted.get("library_ids") or next(above, LIBRARY)
    adata.var["gene_name"] = adata.var_names.astype(str)
    adata.var_names_make_unique()
    return adata, library, {key: noted[key] for key in ("chemistry_description", "software_version") if key in noted}


def _read_counts(file: Path) -> tuple[AnnData, dict[str, str]]:
    """Counts as CSR float32, and texts that Space Ranger noted in the file, the first of each."""
    import h5py
    import scanpy
    from scipy import sparse

    hint = "Check that the file is whole, or name another with `counts_file=`"
    if file.is_dir():
        with read_errors("the counts as Space Ranger writes them, in matrix, features and barcodes", file, hint=hint):
            adata = scanpy.read_10x_mtx(file, var_names="gene_symbols", make_unique=False)
        noted = {}
    else:
        with read_errors("the counts as Space Ranger writes them, in HDF5", file, hint=hint):
            adata = scanpy.read_10x_h5(file)
            with h5py.File(file) as handle:
                noted = {key: np.ravel(value)[:1] for key, value in handle.attrs.items()}
    adata.X = sparse.csr_matrix(adata.X, dtype=np.float32)
    texts = {key: value[0] for key, value in noted.items() if len(value)}
    return adata, {
        key: value.decode(errors="replace") if isinstance(value, bytes) else str(value) for key, value in texts.items()
    }


def _place(adata: AnnData, positions: pd.DataFrame, file: Path) -> AnnData:
    known = adata.obs_names.isin(positions.index)
    if not known.any():
        raise ValueError(
            message(
                f"Expected the barcodes of the counts among the positions in {file}",
                found=f"counts with {adata.obs_names[0]!r}, positions with {positions.index[0]!r}",
                hint="Check that both files are of one section",
            )
        )
    if not known.all():
        logger.warning("%d of %d barcodes have no position and are left out.", int((~known).sum()), adata.n_obs)
    inside = known.copy()
    inside[known] = positions.loc[adata.obs_names[known], "in_tissue"].to_numpy()
    if not inside.any():
        raise ValueError(
            message(
                f"Expected spots in tissue in {file}",
                found=f"in_tissue 0 for all {int(known.sum())} barcodes of the counts",
                hint="Write 1 for the spots to read",
            )
        )
    adata = adata[inside].copy()
    placed = positions.loc[adata.obs_names]
    for name in ("in_tissue", "array_row", "array_col"):
        adata.obs[name] = placed[name].astype(np.int64)
    adata.obsm[Keys.SPATIAL] = placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(np.float64, copy=True)
    return adata


def _images(entry: dict[str, Any], spatial: Path, image: str | Path) -> None:
    """Put images into an entry, and the name of the one to use; scale factors gain that of a full-resolution image."""
    images, factors, full = entry["images"], entry["scalefactors"], _full_resolution(image)
    stems = {key: image_file(spatial, f"tissue_{key}_image") for key in ("hires", "lowres")}
    files = {key: file for key, file in stems.items() if file is not None}
    use = "fullres" if full is not None else str(image)
    if use == "hires" and use not in files and "lowres" in files:
        logger.warning("There is no hires image in %s; the lowres image is used.", spatial)
        use = "lowres"
    if full is None and use not in files:
        hint = "Pass the path of an image as `image=`"
        raise absent(spatial, [f"tissue_{use}_image.*"], what=f"the {use} image", hint=hint)
    if full is None and f"tissue_{use}_scalef" not in factors:
        raise KeyError(
            message(f"Expected 'tissue_{use}_scalef' in {spatial / 'scalefactors_json.json'}", available=factors)
        )
    for key, file in files.items():
        other = next((f"`image={name!r}`, or " for name in files if name != key), "")
        try:
            images[key] = read_image(file, hint=f"Copy or fetch it again, or pass {other}another image as `image=`")
        except ValueError as error:
            if key == use:
                raise
            logger.warning("The %s image is left out. %s", key, error)
    entry["metadata"]["image_key"] = use
    if full is not None:
        factors["tissue_fullres_scalef"] = full_scale(full, images, factors)
        put_image(entry, "fullres", full, hint="Pass another image as `image=`")


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


def full_scale(full: Path, images: dict[str, Any], factors: dict[str, Any]) -> float:
    """Px of the file per px of the full-resolution image, from the image that Space Ranger made of it."""
    shape = image_size(full, hint="Pass another image as `image=`")
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
