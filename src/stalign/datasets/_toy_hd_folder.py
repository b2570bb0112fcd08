"""The simulated Visium HD section as a folder that Space Ranger 4 could have written."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stalign._constants import Keys
from stalign._validate import message
from stalign.datasets._toy_hd import IMAGE_MPP, MPP, NUCLEUS, bin_table, cell_table, checked, outlines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from stalign.datasets._toy_hd import Tissue

_LOWRES = 0.1  # px of the lowres image per px of the full-resolution image


def write_toy_hd(
    path: str | Path,
    *,
    bins: Sequence[int] = (2, 8, 16),
    cells: bool = True,
    side_um: float = 736.0,
    seed: int = 0,
    empty: float = 0.3,
    depth: float = 60.0,
    domain_um: float = 240.0,
) -> Path:
    """Write the section of `toy_hd` as a folder in the layout of Space Ranger 4.

    Parameters
    ----------
    path
        The folder to write, which must not exist or be empty. It becomes the `outs` folder.
    bins
        Edges of the bins in µm.
    cells
        Whether to write segmented cells and nuclei.
    side_um, seed, empty, depth, domain_um
        As in `toy_hd`.

    Returns
    -------
    The folder, with

    - `binned_outputs/square_<size>um/`: `filtered_feature_bc_matrix.h5`, the bins in tissue;
      `spatial/tissue_positions.parquet`, all bins; `spatial/scalefactors_json.json`
    - `segmented_outputs/`: `filtered_feature_cell_matrix.h5`, `cell_segmentations.geojson`,
      `nucleus_segmentations.geojson`, `spatial/`
    - `barcode_mappings.parquet`, `feature_slice.h5`, `spatial/` with the hires and lowres images, and the
      full-resolution image, `microscope_image/toy_hd.tif`, 0.5 µm per px

    Raises
    ------
    FileExistsError
        If there is something already.
    ValueError
        If `bins` is empty, `side_um` is below 200 µm or no multiple of the bins, or `empty` is no share.

    Notes
    -----
    Files have what readers use: clusters, web summaries and the images of the CytAssist are not there, and
    `feature_slice.h5` holds its metadata alone.

    Examples
    --------
    >>> import stalign as st
    >>> folder = st.datasets.write_toy_hd("hd", bins=(16,), side_um=320)
    >>> sorted(file.name for file in (folder / "segmented_outputs").glob("*.geojson"))
    ['cell_segmentations.geojson', 'nucleus_segmentations.geojson']
    """
    path = Path(path).expanduser().resolve()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(message("Expected a folder that does not exist or is empty", found=str(path)))
    if not bins:
        raise ValueError(message("Expected at least one size of bins", found="none"))
    for bin_um in bins:
        tissue = checked(bin_um, side_um, seed, empty=empty, depth=depth, domain_um=domain_um)
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        factors = _images(made, tissue.picture(seed, MPP))
        for bin_um in bins:
            _write_bins(made / "binned_outputs" / f"square_{bin_um:03d}um", tissue, bin_um, factors)
        if cells:
            _write_cells(made / "segmented_outputs", tissue, factors)
        _mappings(tissue, cells=cells).to_parquet(made / "barcode_mappings.parquet", index=False)
        _write_slice(made / "feature_slice.h5", tissue)
        shutil.copytree(made, path, dirs_exist_ok=True)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return path


def _images(root: Path, pixels: np.ndarray) -> dict[str, float]:
    """Write the images; scale factors."""
    from PIL import Image

    factors = {"tissue_hires_scalef": MPP / IMAGE_MPP, "tissue_lowres_scalef": _LOWRES, "microns_per_pixel": MPP}
    full = Image.fromarray(pixels)
    for folder in (root / "microscope_image", root / "spatial"):
        folder.mkdir()
    full.save(root / "microscope_image" / "toy_hd.tif")
    for key in ("hires", "lowres"):
        scale = factors[f"tissue_{key}_scalef"]
        small = full.resize((round(full.width * scale), round(full.height * scale)), Image.Resampling.BOX)
        small.save(root / "spatial" / f"tissue_{key}_image.png")
    return factors


def _spatial(root: Path, folder: Path, factors: dict[str, Any]) -> None:
    """Write the scale factors of bins or cells beside copies of the images."""
    folder.mkdir(parents=True)
    (folder / "scalefactors_json.json").write_text(json.dumps(factors), encoding="utf-8")
    for file in (root / "spatial").glob("*.png"):
        shutil.copy(file, folder)


def _write_bins(folder: Path, tissue: Tissue, bin_um: int, factors: dict[str, float]) -> None:
    import pandas as pd

    adata = bin_table(tissue, bin_um)
    own = adata.uns[Keys.UNS_SPATIAL]["toy_hd"]["scalefactors"]
    _spatial(folder.parents[1], folder / "spatial", {**own, **factors})
    count = int(round(tissue.side / bin_um))
    row, column = (index.ravel() for index in np.mgrid[:count, :count])
    at = tissue.pixels(np.column_stack([column + 0.5, row + 0.5]) * bin_um)
    names = np.array([f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)])
    positions = pd.DataFrame(
        {
            "barcode": names,
            "in_tissue": pd.Index(names).isin(adata.obs_names).astype(np.int64),
            "array_row": row,
            "array_col": column,
            "pxl_row_in_fullres": at[:, 1],
            "pxl_col_in_fullres": at[:, 0],
        }
    )
    positions.to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
    _write_matrix(folder / "filtered_feature_bc_matrix.h5", adata)


def _write_cells(folder: Path, tissue: Tissue, factors: dict[str, float]) -> None:
    _spatial(folder.parent, folder / "spatial", dict(factors))
    _write_matrix(folder / "filtered_feature_cell_matrix.h5", cell_table(tissue))
    for name, share in (("cell", 1.0), ("nucleus", NUCLEUS)):
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [outline.tolist()]},
                "properties": {"cell_id": number + 1},
            }
            for number, outline in enumerate(outlines(tissue, share).round(2))
        ]
        text = json.dumps({"type": "FeatureCollection", "features": features})
        (folder / f"{name}_segmentations.geojson").write_text(text, encoding="utf-8")


def _mappings(tissue: Tissue, *, cells: bool) -> Any:
    """Bins of 8 and 16 µm, and cell, of every bin of 2 µm."""
    import pandas as pd
    from scipy.spatial import KDTree

    count = int(tissue.side // 2)
    row, column = (index.ravel() for index in np.mgrid[:count, :count])
    table = {}
    for size in (2, 8, 16):
        pairs = zip(row * 2 // size, column * 2 // size, strict=True)
        table[f"square_{size:03d}um"] = [f"s_{size:03d}um_{r:05d}_{c:05d}-1" for r, c in pairs]
    if not cells:
        return pd.DataFrame({**table, "cell_id": None, "in_nucleus": False, "in_cell": False})
    distance, nearest = KDTree(tissue.centres).query(np.column_stack([column, row]) * 2.0 + 1)
    radius = tissue.radius[nearest]
    inside = distance < radius
    names = [f"cellid_{number + 1:09d}-1" if own else None for number, own in zip(nearest, inside, strict=True)]
    return pd.DataFrame({**table, "cell_id": names, "in_nucleus": distance < NUCLEUS * radius, "in_cell": inside})


def _write_matrix(file: Path, adata: AnnData) -> None:
    """Write counts as Space Ranger does."""
    import h5py

    counts = adata.X
    with h5py.File(file, "w") as handle:
        handle.attrs["library_ids"] = np.array([b"toy_hd"])
        handle.attrs["software_version"] = "spaceranger-4.0.1"
        handle.attrs["chemistry_description"] = "Visium HD, simulated"
        matrix = handle.create_group("matrix")
        matrix["data"] = counts.data.astype(np.int32)
        matrix["indices"] = counts.indices.astype(np.int64)
        matrix["indptr"] = counts.indptr.astype(np.int64)
        matrix["shape"] = np.array([adata.n_vars, adata.n_obs], dtype=np.int32)
        matrix["barcodes"] = adata.obs_names.to_numpy().astype("S")
        features = matrix.create_group("features")
        features["name"] = adata.var_names.to_numpy().astype("S")
        features["id"] = np.array([f"TOY{number:08d}" for number in range(adata.n_vars)], dtype="S")
        features["feature_type"] = np.array([b"Gene Expression"] * adata.n_vars)
        features["genome"] = np.array([b"GRCh38"] * adata.n_vars)


def _write_slice(file: Path, tissue: Tissue) -> None:
    """Write how the array lies on the image."""
    import h5py

    corners = tissue.pixels(np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    forward = np.column_stack([corners[1] - corners[0], corners[2] - corners[0], corners[0]])
    matrix = np.vstack([forward, [0, 0, 1]])
    pairs = {"spot_colrow_to_microscope_colrow": matrix, "microscope_colrow_to_spot_colrow": np.linalg.inv(matrix)}
    pairs |= {"spot_colrow_to_cytassist_colrow": np.eye(3), "cytassist_colrow_to_spot_colrow": np.eye(3)}
    layout = {"file_format": "1.0", "transform": np.eye(3).tolist()}
    metadata = {
        "hd_layout_json": json.dumps(layout),
        "transform_matrices": {name: value.tolist() for name, value in pairs.items()},
    }
    with h5py.File(file, "w") as handle:
        handle.attrs["metadata_json"] = json.dumps(metadata)
