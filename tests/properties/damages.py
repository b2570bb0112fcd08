"""Damage that a table may come with, and what may come of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from stalign._constants import Keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

ANY = frozenset({"refused", "warned", "same"})


@dataclass(frozen=True)
class Damage:
    """A change of a plain table, and the outcomes that are right for calls that read what was changed.

    `refused` is a documented error, `warned` a result with a warning or a line of that level in the log, `same` the
    result of the undamaged table, and `said` the same with such a warning. Calls that do not read it give the same
    result, or refuse all the same; those that are `quiet` may also go on without the rows concerned.
    """

    apply: Callable[[AnnData, np.random.Generator], Any]
    allowed: frozenset[str] = ANY
    concerns: tuple[str, ...] = ("image", "counts", "positions")
    quiet: tuple[str, ...] = ()


def _entry(adata: AnnData) -> dict[str, Any]:
    return next(iter(adata.uns[Keys.UNS_SPATIAL].values()))


def _set_entry(part: str, value: Any) -> Callable[..., None]:
    return lambda adata, rng: _entry(adata).__setitem__(part, deepcopy(value))


def _set_factor(key: str, value: Any) -> Callable[..., None]:
    return lambda adata, rng: _entry(adata)["scalefactors"].__setitem__(key, deepcopy(value))


def _set_image(change: Callable[[np.ndarray], Any]) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        images = _entry(adata)["images"]
        images["hires"] = change(images["hires"])

    return apply


def _set_coords(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        adata.obsm[Keys.SPATIAL] = change(adata.obsm[Keys.SPATIAL].copy(), rng)

    return apply


def _set_counts(change: Callable[[np.ndarray, np.random.Generator], Any]) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        adata.X = change(adata.X.toarray().astype(np.float64), rng)

    return apply


def _some(value: float, rows: bool = True) -> Callable[..., Any]:
    def change(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        values = values.astype(float)
        values[rng.integers(0, len(values), 2), ... if rows else rng.integers(0, values.shape[1])] = value
        return values

    return change


def _set_uns(key: str, value: Any) -> Callable[..., None]:
    return lambda adata, rng: adata.uns.__setitem__(key, deepcopy(value))


def _damaged(*allowed: str, concerns: str, quiet: str = "", **kinds: Any) -> dict[str, Damage]:
    where, silent = tuple(concerns.split()), tuple(quiet.split())
    return {name: Damage(apply, frozenset(allowed), where, silent) for name, apply in kinds.items()}


_NOT_MAPPINGS = {
    "array": np.array(["a", "b"]),
    "text": "done",
    "list": ["a"],
    "number": 3,
    "frame": pd.DataFrame({"a": [1]}),
    "none": None,
    "true": True,
}
_FOREIGN = {
    f"uns[{key!r}] is a {name}": _set_uns(key, value)
    for key in (Keys.UNS, Keys.UNS_NICHES)
    for name, value in _NOT_MAPPINGS.items()
}
_WRITTEN = [(Keys.UNS, entry) for entry in ("patches", "embed", "encode", "domains")] + [(Keys.UNS_NICHES, "params")]
_NESTED = {
    f"uns[{key!r}][{entry!r}] is a {name}": _set_uns(key, {entry: value})
    for key, entry in _WRITTEN
    for name, value in _NOT_MAPPINGS.items()
    if name in {"array", "text", "none", "list"}
}
_SPATIAL = {
    f"uns['spatial'] is a {name}": _set_uns(Keys.UNS_SPATIAL, value) for name, value in _NOT_MAPPINGS.items()
} | {
    f"the entry's {part} is a {name}": _set_entry(part, value)
    for part in ("images", "scalefactors", "metadata")
    for name, value in _NOT_MAPPINGS.items()
    if name in {"array", "text", "none", "list"}
}
_FACTORS = {
    f"{key} = {value!r}": _set_factor(key, value)
    for key in ("tissue_hires_scalef", "spot_diameter_fullres")
    for value in (0.0, -1.0, np.nan, np.inf, "many", "", None, [], [1.0, 2.0], np.array([]), {}, np.ones(2), True)
}


def _foreign_graph(kind: str) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        n = adata.n_obs
        graph = sparse.random(n, n, 0.1, format="csr", random_state=0)
        if kind == "dense":
            graph = graph.toarray()
        if kind == "nan":
            graph.data[:] = np.nan
        if kind == "empty":
            graph = sparse.csr_matrix((n, n))
        if kind == "distances":
            params = {"n_neighbors": 3, "method": "umap"}
            adata.uns[Keys.UNS_NICHES] = {"connectivities_key": "connectivities", "params": params}
        adata.obsp[Keys.NICHE_GRAPH] = graph

    return apply


def _foreign_windows(value: Callable[[int], Any]) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        adata.obsm[Keys.SPOT_WINDOW] = value(adata.n_obs)
        adata.obsm[Keys.NICHE_WINDOW] = value(adata.n_obs)

    return apply


def _fluorescence(pixels: np.ndarray) -> np.ndarray:
    return (np.random.default_rng(0).poisson(4, pixels.shape) * 9).clip(0, 255).astype(np.uint8)


def _array_columns(row: Any, column: Any) -> Callable[..., None]:
    def apply(adata: AnnData, rng: np.random.Generator) -> None:
        adata.obs["array_row"], adata.obs["array_col"] = row, column

    return apply


DAMAGES: dict[str, Damage] = {
    **_damaged(
        "refused", concerns="vocabulary",
        **{"no known gene": lambda adata, rng: setattr(adata, "var_names", [f"g{i}" for i in range(adata.n_vars)])},
    ),
    **_damaged(
        "refused", concerns="positions",
        **{
            "no coordinates": lambda adata, rng: adata.obsm.pop(Keys.SPATIAL),
            "coordinates of one column": _set_coords(lambda x, rng: x[:, :1]),
            "coordinates of no column": _set_coords(lambda x, rng: x[:, :0]),
            "coordinates in three dimensions": _set_coords(lambda x, rng: x[:, :, None]),
            "coordinates that are words": _set_coords(lambda x, rng: np.full(x.shape, "here")),
            "coordinates that are nothing": _set_coords(lambda x, rng: np.full(x.shape, None)),
            "coordinates all NaN": _set_coords(lambda x, rng: np.full(x.shape, np.nan)),
            "complex coordinates": _set_coords(lambda x, rng: x + 1j),
            "coordinates that are dates": _set_coords(lambda x, rng: x.astype("datetime64[s]")),
        },
    ),
    **_damaged(
        "warned", "refused", concerns="positions", quiet="domains figure",
        **{
            "some coordinates NaN": _set_coords(_some(np.nan)),
            "some coordinates infinite": _set_coords(_some(np.inf)),
            "all spots in one place": _set_coords(lambda x, rng: np.ones_like(x)),
        },
    ),
    **_damaged(
        "warned", "refused", concerns="image",
        **{
            "coordinates far off": _set_coords(lambda x, rng: x + 1e6),
            "coordinates below zero": _set_coords(lambda x, rng: x - 1e6),
            "coordinates in px of the image": _set_coords(lambda x, rng: x * 0.1),
            "huge coordinates": _set_coords(lambda x, rng: x * 1e30),
        },
    ),
    **_damaged(
        "refused", concerns="counts",
        **{
            "negative counts": _set_counts(_some(-1.0, rows=False)),
            "NaN counts": _set_counts(_some(np.nan, rows=False)),
            "infinite counts": _set_counts(_some(np.inf, rows=False)),
            "complex counts": _set_counts(lambda x, rng: x + 1j),
        },
    ),
    **_damaged(
        "warned", "refused", concerns="counts",
        **{
            "counts that are not whole": _set_counts(lambda x, rng: x * 0.3),
            "no counts at all": lambda adata, rng: setattr(adata, "X", sparse.csr_matrix(adata.shape)),
        },
    ),
    **_damaged(
        "warned", "refused", concerns="counts", quiet="embed pca",
        **{
            "no counts in some spots": _set_counts(_some(0.0)),  # niches have those of their other spots
            "no matrix": lambda adata, rng: setattr(adata, "X", None),  # the image alone, as the log says
            "logical counts": _set_counts(lambda x, rng: x > 3),  # 0 and 1 are whole numbers
        },
    ),
    **_damaged(
        "warned", "refused", concerns="image",
        **{
            "a mask": _set_image(lambda x: x[..., 0] > 200),
            "a mask of labels": _set_image(lambda x: (x[..., 0] // 90).astype(np.int32)),
            "fluorescence": _set_image(_fluorescence),
            "fluorescence of one channel": _set_image(lambda x: _fluorescence(x)[..., 0]),
            "a black image": _set_image(np.zeros_like),
        },
    ),
    **_damaged(
        "refused", concerns="image",
        **{
            "negative pixels": _set_image(lambda x: x.astype(float) - 99),
            "NaN pixels": _set_image(lambda x: np.full(x.shape, np.nan)),
            "complex pixels": _set_image(lambda x: x + 1j),
            "pixels that are text": _set_image(lambda x: x.astype(str)),
            "an image of six channels": _set_image(lambda x: np.concatenate([x, x], axis=-1)),
            "an image without rows": _set_image(lambda x: x[:0]),
            "an image of one number": _set_image(lambda x: np.uint8(3)),
            "an image that is text": _set_image(lambda x: "hires.png"),
            "an image that is a list": _set_image(lambda x: ["hires.png"]),
            "channels first": _set_image(lambda x: np.moveaxis(x, -1, 0)),
            "an image of four dimensions": _set_image(lambda x: x[None]),
            "an image of one px": _set_image(lambda x: x[:1, :1]),
        },
    ),
    **_damaged(
        "refused", "warned", concerns="image", **{"an image of other size": _set_image(lambda x: x[: len(x) // 3])}
    ),
    **_damaged("refused", "warned", "same", concerns="image positions counts", **_SPATIAL, **_FACTORS),
    **_damaged("same", "refused", concerns="none", **_FOREIGN, **_NESTED),
    **_damaged(
        "same", "said", concerns="none",
        **{
            f"a foreign graph, {kind}": _foreign_graph(kind)
            for kind in ("random", "dense", "nan", "empty", "distances")
        },
        **{
            "foreign windows of NaN": _foreign_windows(lambda n: np.full((n, 4), np.nan)),
            "foreign windows of two columns": _foreign_windows(lambda n: np.zeros((n, 2))),
            "foreign windows of text": _foreign_windows(lambda n: np.full((n, 4), "a")),
            "colours of RGBA rows": _set_uns("sample_colors", np.array([[0.1, 0.2, 0.3, 1.0]])),
            "colours of bytes": _set_uns("sample_colors", np.array([b"#112233"])),
            "too many colours": _set_uns("sample_colors", ["#112233"] * 7),
            "no colours": _set_uns("sample_colors", []),
            "colours that are none": _set_uns("sample_colors", ["nothing"]),
            "colours that are a number": _set_uns("sample_colors", 3),
            "array rows of text": _array_columns("3", "x"),
            "array rows of dates": _array_columns(pd.Timestamp("2024-01-01"), 1),
            "array rows that are missing": _array_columns(None, None),
            "array rows of categories": _array_columns(pd.Categorical(["a"]).repeat(1)[0], 2),
            "obs names twice": lambda adata, rng: setattr(adata, "obs_names", ["spot"] * adata.n_obs),
            "a raw of other genes": lambda adata, rng: setattr(adata, "raw", adata[:, :3].copy()),
        },
    ),
}  # fmt: skip
