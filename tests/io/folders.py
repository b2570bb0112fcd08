"""Small folders in the layouts that the readers expect, with their quirks."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pandas as pd
from PIL import Image

import stalign

if TYPE_CHECKING:
    from pathlib import Path

FACTORS = {
    "tissue_hires_scalef": 0.25,
    "tissue_lowres_scalef": 0.075,
    "spot_diameter_fullres": 130.0,
    "fiducial_diameter_fullres": 210.0,
}


@cache
def _toy():
    return stalign.datasets.toy(n_rows=10)[:, :30].copy()


def toy():
    """A section of 99 spots whose genes hold two of one name."""
    adata = _toy().copy()
    adata.obs_names = [f"{'ACGT' * 3}{i:04d}-1" for i in range(adata.n_obs)]
    names = adata.var_names.to_numpy(dtype=object)
    names[7] = names[3]
    adata.var_names = names
    return adata


def write_10x(path: Path, adata, *, extra=(), library="V1_Toy"):
    """A 10x h5 file; `extra` barcodes outside the tissue have no counts."""
    counts = adata.X.tocsr()
    barcodes = [*adata.obs_names, *extra]
    with h5py.File(path, "w") as handle:
        if library is not None:
            handle.attrs["library_ids"] = np.array([library.encode()])
        handle.attrs["software_version"] = "spaceranger-2.1.0"
        matrix = handle.create_group("matrix")
        matrix["data"] = counts.data.astype(np.int32)
        matrix["indices"] = counts.indices.astype(np.int64)
        matrix["indptr"] = np.concatenate([counts.indptr, [counts.indptr[-1]] * len(extra)]).astype(np.int64)
        matrix["shape"] = np.array([adata.n_vars, len(barcodes)], dtype=np.int32)
        matrix["barcodes"] = np.array([name.encode() for name in barcodes])
        features = matrix.create_group("features")
        features["name"] = np.array([str(name).encode() for name in adata.var_names])
        features["id"] = np.array([f"ENSG{i:011d}".encode() for i in range(adata.n_vars)])
        features["feature_type"] = np.array([b"Gene Expression"] * adata.n_vars)
        features["genome"] = np.array([b"GRCh38"] * adata.n_vars)


def positions(adata, outside=("TTTTTTTTTTTT-1",)):
    """Positions as Space Ranger has them, in another order than the counts, with spots that are not in tissue."""
    table = pd.DataFrame(
        {
            "in_tissue": 1,
            "array_row": adata.obs["array_row"],
            "array_col": adata.obs["array_col"],
            "pxl_row_in_fullres": adata.obsm["spatial"][:, 1],
            "pxl_col_in_fullres": adata.obsm["spatial"][:, 0],
        },
        index=pd.Index(adata.obs_names, name="barcode"),
    )
    rest = pd.DataFrame(
        [[0, 77, 1, 5.0, 9.0]] * len(outside), columns=table.columns, index=pd.Index(outside, name="barcode")
    )
    return pd.concat([rest, table.sample(frac=1, random_state=0)])


def write_visium(root: Path, *, version="2", images=("hires", "lowres"), factors=None, library="V1_Toy"):
    """A Space Ranger folder; version is 1, 2, 3, txt or parquet by its positions file."""
    adata = toy()
    spatial = root / "spatial"
    spatial.mkdir(parents=True)
    write_10x(root / "filtered_feature_bc_matrix.h5", adata, library=library)
    table = positions(adata)
    if version == "1":
        table.to_csv(spatial / "tissue_positions_list.csv", header=False)
    elif version == "txt":
        table.to_csv(spatial / "tissue_positions_list.txt", header=False)
    elif version == "parquet":
        table.reset_index().to_parquet(spatial / "tissue_positions.parquet")
    else:
        table.to_csv(spatial / "tissue_positions.csv")
    (spatial / "scalefactors_json.json").write_text(json.dumps(FACTORS if factors is None else factors))
    full = full_image(adata)
    for key in images:
        scale = FACTORS[f"tissue_{key}_scalef"]
        size = round(full.width * scale), round(full.height * scale)
        full.resize(size, Image.Resampling.BOX).save(spatial / f"tissue_{key}_image.png")
    return adata


def full_image(adata):
    hires = Image.fromarray(adata.uns["spatial"]["toy"]["images"]["hires"])
    return hires.resize((hires.width * 4, hires.height * 4), Image.Resampling.NEAREST)


def write_stimage(root: Path, *, slide="Human_Brain_Toy_01012020_Visium_A1", technology="Visium", tab=False, bom=True):
    """A folder as STimage-1K4M has them: y before x, an unnamed index, a TIFF called png, a byte order mark."""
    adata = toy()
    base = root / technology
    for name in ("image", "coord", "gene_exp"):
        (base / name).mkdir(parents=True)
    (root / "meta").mkdir()
    names = [f"{slide}_{name}" for name in adata.obs_names]
    coords = pd.DataFrame(
        {"yaxis": adata.obsm["spatial"][:, 1] / 4, "xaxis": adata.obsm["spatial"][:, 0] / 4, "r": 16.25}, index=names
    )
    encoding = "utf-8-sig" if bom else "utf-8"
    sep = "\t" if tab else ","
    coords.sample(frac=1, random_state=1).to_csv(base / "coord" / f"{slide}_coord.csv", encoding=encoding, sep=sep)
    counts = pd.DataFrame(adata.X.toarray(), index=names, columns=adata.var_names)
    counts.to_csv(base / "gene_exp" / f"{slide}_count.csv", encoding=encoding, sep=sep)
    pixels = adata.uns["spatial"]["toy"]["images"]["hires"]
    Image.fromarray(pixels).save(base / "image" / f"{slide}.png", format="TIFF")
    old = pd.DataFrame({"slide": [slide], "species": ["wrong"], "tissue": ["brain"], "pmid": [None]})
    old.to_csv(root / "meta" / "meta_all_gene.csv", index=False)
    old.assign(species="human", title="a, b").to_csv(root / "meta" / "meta_all_gene02122025.csv", index=False)
    return adata, slide


def write_hest(root: Path, *, sample="MISC4", wsi=True, facts=None):
    """A folder as HEST-1k has them."""
    for name in ("st", "metadata", "wsis"):
        (root / name).mkdir(parents=True)
    adata = toy()
    entry = adata.uns["spatial"].pop("toy")
    small = entry["images"]["hires"][::4, ::4]
    adata.uns["spatial"] = {
        "ST": {
            "images": {"downscaled_fullres": small},
            "scalefactors": {"tissue_downscaled_fullres_scalef": 0.0625, "spot_diameter_fullres": 110.0},
        }
    }
    adata.obs["pxl_col_in_fullres"] = adata.obsm["spatial"][:, 0]
    adata.write_h5ad(root / "st" / f"{sample}.h5ad")
    facts = facts or {
        "pixel_size_um_estimated": 0.5,
        "pixel_size_um_embedded": 0.25,
        "spot_diameter": 55.0,
        "organ": "Brain",
        "species": "Homo sapiens",
        "patient": None,
        "st_technology": "Visium",
    }
    (root / "metadata" / f"{sample}.json").write_text(json.dumps(facts))
    if wsi:
        big = Image.fromarray(entry["images"]["hires"])
        pages = [big.resize((big.width * 4 // n, big.height * 4 // n)) for n in (1, 2, 4)]
        pages[0].save(root / "wsis" / f"{sample}.tif", save_all=True, append_images=pages[1:])
    return adata, sample


def write_visium_hd(root: Path, *, dataset="toy", edge=30.0, n=14, bins=(8, 16)):
    """A Visium HD folder of square bins, `edge` full-resolution px per 8 µm."""
    rng = np.random.default_rng(0)
    size = int(edge * n)
    (root / "spatial").mkdir(parents=True)
    pixels = rng.integers(0, 255, (size, size, 3), dtype=np.uint8)
    (root / "microscope_image").mkdir()
    Image.fromarray(pixels).save(root / "microscope_image" / "full.tif")
    factors = {"tissue_hires_scalef": 0.5, "tissue_lowres_scalef": 0.1}
    for key in ("hires", "lowres"):
        scale = factors[f"tissue_{key}_scalef"]
        small = Image.fromarray(pixels).resize((round(size * scale), round(size * scale)))
        small.save(root / "spatial" / f"tissue_{key}_image.png")
    identity = np.eye(3).ravel().tolist()
    names = [f"{a}_colrow_to_{b}_colrow" for a, b in (("cytassist", "spot"), ("spot", "cytassist"))]
    names += [f"{a}_colrow_to_{b}_colrow" for a, b in (("microscope", "spot"), ("spot", "microscope"))]
    layout = {"transform": np.eye(3).tolist(), "file_format": "1.0"}
    metadata = {"transform_matrices": dict.fromkeys(names, identity), "hd_layout_json": json.dumps(layout)}
    with h5py.File(root / f"{dataset}_feature_slice.h5", "w") as handle:
        handle.attrs["metadata_json"] = json.dumps(metadata)
    for bin_um in bins:
        count, step = n * 8 // bin_um, edge * bin_um / 8
        folder = root / "binned_outputs" / f"square_{bin_um:03d}um"
        (folder / "spatial").mkdir(parents=True)
        column, row = (index.ravel() for index in np.meshgrid(np.arange(count), np.arange(count)))
        keep = rng.random(count**2) < 0.9
        column, row = column[keep], row[keep]
        names = [f"s_{bin_um:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(row, column, strict=True)]
        table = pd.DataFrame(
            {
                "barcode": names,
                "in_tissue": 1,
                "array_row": row,
                "array_col": column,
                "pxl_row_in_fullres": (row + 0.5) * step,
                "pxl_col_in_fullres": (column + 0.5) * step,
            }
        )
        table.to_parquet(folder / "spatial" / "tissue_positions.parquet", index=False)
        scale = {**factors, "spot_diameter_fullres": step, "bin_size_um": float(bin_um), "microns_per_pixel": 8 / edge}
        (folder / "spatial" / "scalefactors_json.json").write_text(json.dumps(scale))
        from anndata import AnnData
        from scipy import sparse

        counts = AnnData(sparse.csr_matrix(rng.poisson(1.0, (len(names), 5))))
        counts.obs_names = names
        write_10x(folder / "filtered_feature_bc_matrix.h5", counts, library=dataset)
    return pixels
