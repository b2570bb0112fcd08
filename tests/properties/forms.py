"""Forms in which other writers and readers leave the same section; each changes a plain table and may add options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    Form = Callable[[AnnData], dict[str, Any] | None]


def _matrix(change: Callable[[sparse.csr_matrix], Any]) -> Form:
    def apply(adata: AnnData) -> None:
        adata.X = change(adata.X)

    return apply


def _duplicates(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each entry twice, with the parts of its value."""
    part = matrix.data // 2
    data = np.column_stack([part, matrix.data - part]).ravel()
    return sparse.csr_matrix((data, matrix.indices.repeat(2), 2 * matrix.indptr), shape=matrix.shape)


def _zeros(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    dense = matrix.toarray()
    indices = np.tile(np.arange(dense.shape[1]), len(dense))
    return sparse.csr_matrix((dense.ravel(), indices, dense.shape[1] * np.arange(len(dense) + 1)), shape=dense.shape)


def _unsorted(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix = _zeros(matrix)
    n, g = matrix.shape
    return sparse.csr_matrix(
        (matrix.data.reshape(n, g)[:, ::-1].ravel(), matrix.indices.reshape(n, g)[:, ::-1].ravel(), matrix.indptr),
        shape=matrix.shape,
    )


def _frozen(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    for part in (matrix.data, matrix.indices, matrix.indptr):
        part.flags.writeable = False
    return matrix


def _dask(matrix: Any) -> Any:
    import dask.array as da

    return da.from_array(matrix, chunks=(7, matrix.shape[1]))


def _dask_sparse(matrix: sparse.csr_matrix) -> Any:
    import dask.array as da

    return da.from_array(matrix.toarray(), chunks=(7, matrix.shape[1])).map_blocks(sparse.csr_matrix)


def _in_a_layer(adata: AnnData) -> dict[str, Any]:
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.astype(np.float32).multiply(0.37).tocsr()
    return {"layer": "counts"}


MATRIX: dict[str, Form] = {
    "csr": _matrix(lambda x: x),
    "csc": _matrix(lambda x: x.tocsc()),
    "csr_array": _matrix(sparse.csr_array),
    "csc_array": _matrix(lambda x: sparse.csc_array(x.tocsc())),
    "dense": _matrix(lambda x: x.toarray()),
    "dense by columns": _matrix(lambda x: np.asfortranarray(x.toarray())),
    "dask": _matrix(lambda x: _dask(x.toarray())),
    "dask of sparse": _matrix(_dask_sparse),
    "duplicate entries": _matrix(_duplicates),
    "explicit zeros": _matrix(_zeros),
    "unsorted": _matrix(_unsorted),
    "read-only": _matrix(_frozen),
    "64-bit indices": _matrix(
        lambda x: sparse.csr_matrix((x.data, x.indices.astype(np.int64), x.indptr.astype(np.int64)), shape=x.shape)
    ),
    "layer": _in_a_layer,
    **{
        f"{kind}": _matrix(lambda x, kind=kind: x.astype(kind))
        for kind in ("uint16", "uint32", "int16", "int64", "uint64", "float32", "float64")
    },
    "dense uint16": _matrix(lambda x: x.toarray().astype(np.uint16)),
    "dense float64": _matrix(lambda x: x.toarray().astype(np.float64)),
}


def _obs_names(names: Callable[[int], list[str]]) -> Form:
    def apply(adata: AnnData) -> None:
        adata.obs_names = names(adata.n_obs)

    return apply


def _columns(adata: AnnData) -> None:
    n = adata.n_obs
    obs = adata.obs
    obs["whole"] = pd.array([None, *range(1, n)], dtype="Int64")
    obs["flag"] = pd.array([None, *[True] * (n - 1)], dtype="boolean")
    obs["text"] = pd.array(["ä", *["b"] * (n - 1)], dtype="string")
    obs["some"] = pd.Categorical(["x"] * n, categories=["unused", "x"])
    obs["library_id"], obs["section"], obs["region"], obs["x"], obs["y"] = "one", "two", "three", 0.0, 1.0
    obs["stalign_valid"] = "no"


INDEX: dict[str, Form] = {
    "barcodes": lambda adata: None,
    "numbers": _obs_names(lambda n: [str(i) for i in range(n)]),
    "unicode": _obs_names(lambda n: [f"スポット {i}/ä" for i in range(n)]),
    "long": _obs_names(lambda n: [f"{'x' * 300}{i}" for i in range(n)]),
    "repeated": _obs_names(lambda n: [f"spot {i // 2}" for i in range(n)]),
    "with a name": lambda adata: adata.obs.index.rename("barcode", inplace=True),
    "columns of many kinds": _columns,
    "pandas string": lambda adata: setattr(adata, "obs_names", pd.Index(adata.obs_names, dtype="string")),
}


def _shuffled_genes(adata: AnnData) -> dict[str, Any]:
    order = np.random.default_rng(0).permutation(adata.n_vars)
    adata._inplace_subset_var(order)
    return {}


def _twice(adata: AnnData) -> None:
    """The first gene's counts in two columns of one name; made of the parts of an object, as AnnData has no call."""
    counts = adata.X.toarray()
    part = counts[:, 0] // 2
    names = list(adata.var_names)
    adata.X = sparse.csr_matrix(np.column_stack([counts[:, 0] - part, part + 0 * counts[:, 1], *counts[:, 2:].T]))
    names[1] = names[0]
    adata.var_names = names


def _symbols_in(kind: str) -> Form:
    def apply(adata: AnnData) -> dict[str, Any]:
        adata.var["symbol"] = pd.Series(list(adata.var_names), index=adata.var_names).astype(kind)
        adata.var_names = [f"gene {i}" for i in range(adata.n_vars)]
        return {"gene_key": "symbol"}

    return apply


GENE_NAMES: dict[str, Form] = {
    "symbols": lambda adata: None,
    "shuffled": _shuffled_genes,
    "lower case": lambda adata: setattr(adata, "var_names", [name.lower() for name in adata.var_names]),
    "a column of objects": _symbols_in("object"),
    "a column of categories": _symbols_in("category"),
    "a column of pandas strings": _symbols_in("string"),
    "with a name": lambda adata: adata.var.index.rename("gene", inplace=True),
}


def _pixels(change: Callable[[np.ndarray], Any]) -> Form:
    def apply(adata: AnnData) -> None:
        (part,) = adata.uns[Keys.UNS_SPATIAL].values()
        part["images"] = {key: change(value) for key, value in part["images"].items()}

    return apply


def _rgba(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)


def _strided(pixels: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(pixels[::-1, ::-1])[::-1, ::-1]


def _readonly(pixels: np.ndarray) -> np.ndarray:
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


def _dask_pixels(pixels: np.ndarray) -> Any:
    import dask.array as da

    return da.from_array(pixels, chunks=(33, 41, 3))


def _zarr_pixels(pixels: np.ndarray) -> Any:
    import zarr

    return zarr.array(pixels, chunks=(33, 41, 3))


def _labelled_pixels(pixels: np.ndarray) -> Any:
    import xarray as xr

    return xr.DataArray(pixels, dims=("y", "x", "c"))


IMAGE: dict[str, Form] = {
    "uint8": _pixels(lambda x: x),
    "rgba": _pixels(_rgba),
    "uint16": _pixels(lambda x: x.astype(np.uint16) * 257),
    "uint16 up to 255": _pixels(lambda x: x.astype(np.uint16)),
    "int64": _pixels(lambda x: x.astype(np.int64)),
    "float32": _pixels(lambda x: x.astype(np.float32) / 255),
    "float64": _pixels(lambda x: x / 255),
    "float16": _pixels(lambda x: (x / 255).astype(np.float16)),
    "float32 up to 255": _pixels(lambda x: x.astype(np.float32)),
    "float rgba": _pixels(lambda x: _rgba(x) / 255),
    "big-endian uint16": _pixels(lambda x: (x.astype(np.uint16) * 257).astype(">u2")),
    "big-endian float32": _pixels(lambda x: (x / 255).astype(">f4")),
    "by columns": _pixels(np.asfortranarray),
    "strided": _pixels(_strided),
    "read-only": _pixels(_readonly),
    "dask": _pixels(_dask_pixels),
    "zarr": _pixels(_zarr_pixels),
    "xarray": _pixels(_labelled_pixels),
}


def _image_key(*keys: str) -> Form:
    """The image under other keys; those after the first are smaller copies."""

    def apply(adata: AnnData) -> None:
        (part,) = adata.uns[Keys.UNS_SPATIAL].values()
        pixels, factor = part["images"].pop("hires"), part["scalefactors"].pop("tissue_hires_scalef")
        for step, key in enumerate(keys, 1):
            part["images"][key] = pixels[::step, ::step].copy()
            part["scalefactors"][f"tissue_{key}_scalef"] = factor / step

    return apply


def _absent_lowres(adata: AnnData) -> None:
    (part,) = adata.uns[Keys.UNS_SPATIAL].values()
    part["images"]["lowres"] = None


IMAGE_KEYS: dict[str, Form] = {
    "hires": lambda adata: None,
    "lowres": _image_key("lowres"),
    "hires and lowres": _image_key("hires", "lowres"),
    "fullres and hires": _image_key("fullres", "hires"),
    "a name of its own": _image_key("mine"),
    "an absent one is None": _absent_lowres,
}


def _factors(change: Callable[[float], Any]) -> Form:
    def apply(adata: AnnData) -> None:
        (part,) = adata.uns[Keys.UNS_SPATIAL].values()
        part["scalefactors"] = {key: change(value) for key, value in part["scalefactors"].items()}
        part["metadata"] = {key: change(value) for key, value in part["metadata"].items()}

    return apply


def _spare_factors(adata: AnnData) -> None:
    (part,) = adata.uns[Keys.UNS_SPATIAL].values()
    spare = {"tissue_lowres_scalef": None, "regist_target_img_scalef": "none", "note": "μ"}
    part["scalefactors"] = spare | part["scalefactors"]


FACTORS: dict[str, Form] = {
    "float": lambda adata: None,
    "float64": _factors(np.float64),
    "0-d array": _factors(np.array),
    "array of one": _factors(lambda x: np.array([x])),
    "array of one by one": _factors(lambda x: np.array([[x]])),
    "list of one": _factors(lambda x: [x]),
    "tuple of one": _factors(lambda x: (x,)),
    "text": _factors(str),
    "array of one text": _factors(lambda x: np.array([str(x)], dtype=object)),
    "bytes": _factors(lambda x: str(x).encode()),
    "text with spaces": _factors(lambda x: f" {x} "),
    "spare ones": _spare_factors,
}


def _coords(change: Callable[[np.ndarray], Any]) -> Form:
    def apply(adata: AnnData) -> None:
        adata.obsm[Keys.SPATIAL] = change(np.asarray(adata.obsm[Keys.SPATIAL]))

    return apply


def _frame(*columns: str) -> Form:
    def apply(adata: AnnData) -> None:
        x, y = adata.obsm[Keys.SPATIAL].T
        values = {"x": x, "y": y, "pxl_col_in_fullres": x, "pxl_row_in_fullres": y, "z": np.zeros(len(x))}
        adata.obsm[Keys.SPATIAL] = pd.DataFrame({name: values[name] for name in columns}, index=adata.obs_names)

    return apply


COORDS: dict[str, Form] = {
    "float64": lambda adata: None,
    "float32": _coords(lambda x: x.astype(np.float32)),
    "by columns": _coords(np.asfortranarray),
    "read-only": _coords(_readonly),
    "with a third column": _coords(lambda x: np.column_stack([x, np.zeros(len(x))])),
    "frame of x and y": _frame("x", "y"),
    "frame of Space Ranger's columns": _frame("pxl_col_in_fullres", "pxl_row_in_fullres"),
    "frame of x, y and z": _frame("x", "y", "z"),
}
# forms that may be refused, but never be misread
COORDS_OR_REFUSED: dict[str, Form] = {
    "frame of y and x": _frame("y", "x"),
    "frame of row and column": _frame("pxl_row_in_fullres", "pxl_col_in_fullres"),
    "text": _coords(lambda x: x.astype(str)),
    "objects": _coords(lambda x: x.astype(object)),
    "sparse": _coords(sparse.csr_matrix),
    "masked": _coords(np.ma.masked_invalid),
    "dask": _coords(lambda x: _dask(x)),
}
FORMS = {
    "matrix": MATRIX,
    "index": INDEX,
    "gene names": GENE_NAMES,
    "image": IMAGE,
    "image keys": IMAGE_KEYS,
    "scale factors": FACTORS,
    "coordinates": COORDS,
}
