"""The public calls that every property is held against, and what they write."""

from __future__ import annotations

import inspect
import re
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import sparse
from tests.properties.plain import FEATURES, STANDARD, to_anndata

import stalign
from stalign._constants import Keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.properties.plain import Plain


@dataclass(frozen=True)
class Weights:
    """Weights whose text is short, as hypothesis prints what a test was given."""

    checkpoint: Any = field(repr=False)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # as hypothesis calls it
        printer.text("weights")


@dataclass(frozen=True)
class Call:
    """A public function with its arguments, and the slots that it writes."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    writes: dict[str, tuple[str, ...]]
    reads_image: bool = True
    reads_counts: bool = True

    def __call__(self, data: Any, weights: Any, **options: Any) -> Any:
        taken = inspect.signature(self.function).parameters
        given = {name: value for name, value in {**self.arguments, **options}.items() if name in taken}
        if "weights" in taken and "encoder" not in taken:
            given["weights"] = weights.checkpoint
        found = self.function(data, **given)
        plt.close("all")
        return found

    def takes(self, option: str) -> bool:
        return option in inspect.signature(self.function).parameters


CALLS = {
    "niches": Call(stalign.pp.niches, {}, {"obsp": (Keys.NICHE_GRAPH,)}, reads_image=False, reads_counts=False),
    "patches": Call(
        stalign.pp.patches,
        {},
        {"obsm": (Keys.SPOT_WINDOW, Keys.NICHE_WINDOW), "obs": (Keys.VALID,), "obsp": (Keys.NICHE_GRAPH,)},
        reads_counts=False,
    ),
    "embed": Call(
        stalign.tl.embed,
        {},
        {
            "obsm": (Keys.EMBED, Keys.EMBED_IMAGE, Keys.EMBED_GENE, Keys.SPOT_WINDOW, Keys.NICHE_WINDOW),
            "obs": (Keys.VALID,),
            "obsp": (Keys.NICHE_GRAPH,),
        },
    ),
    "colour": Call(
        stalign.tl.encode,
        {"encoder": "colour", "level": "niche", "cache": False},
        {"obsm": ("X_colour_niche",)},
        reads_counts=False,
    ),
    "pca": Call(
        stalign.tl.encode,
        {"encoder": "pca", "level": "niche", "cache": False},
        {"obsm": ("X_pca_niche",)},
        reads_image=False,
    ),
    "domains": Call(
        stalign.tl.domains,
        {"clusterer": stalign.tl.KMeans(3), "use_rep": FEATURES, "n_components": None, "refine": True},
        {"obs": (Keys.DOMAIN,)},
        reads_image=False,
        reads_counts=False,
    ),
    "figure": Call(stalign.pl.domains, {"key": "sample", "show": False, "return_fig": True}, {}, reads_counts=False),
}
PUBLIC = {
    f"{package.__name__.removeprefix('stalign.')}.{name}": getattr(package, name)
    for package in (stalign.pp, stalign.tl, stalign.pl)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
}
ARGUMENTS = {name for function in PUBLIC.values() for name in inspect.signature(function).parameters}


def table_of(data: Any) -> Any:
    """The table of either container."""
    if not hasattr(data, "tables"):
        return data
    return data.tables["table"] if "table" in data.tables else next(iter(data.tables.values()))


def results(call: Call, data: Any) -> dict[str, np.ndarray]:
    """What a call wrote, as arrays with a row per spot."""
    table, found = table_of(data), {}
    for slot, keys in call.writes.items():
        for key in keys:
            values = getattr(table, slot).get(key) if slot != "obs" else table.obs.get(key)
            if values is None:
                continue
            if sparse.issparse(values):
                values = values.toarray()
            elif isinstance(values, pd.Series):
                values = values.to_numpy() if values.dtype == bool else values.astype(float).to_numpy()
            found[key] = np.asarray(values)
    if "X_pca_niche" in found:  # the sign of a component is free, and so are the axes where two are equally long
        values = np.nan_to_num(found["X_pca_niche"].astype(np.float64))
        found["X_pca_niche"] = values @ values.T
    return found


def run(call: Call, data: Any, weights: Any, **options: Any) -> dict[str, np.ndarray]:
    """Call, and collect what was written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        call(data, weights, **options)
    return results(call, data)


_CLEAN: dict[tuple[str, str], dict[str, np.ndarray]] = {}


def clean(name: str, section: Plain, weights: Weights) -> dict[str, np.ndarray]:
    """The results of a call on a section in its plainest form; those of the standard sections are kept."""
    if section not in STANDARD:
        return run(CALLS[name], to_anndata(section), weights)
    if (name, section.origin) not in _CLEAN:
        _CLEAN[name, section.origin] = run(CALLS[name], to_anndata(section), weights)
    return _CLEAN[name, section.origin]


def for_each(names: Iterable[str], check: Callable[[str], None]) -> None:
    """Check several calls, and fail with what all of them have to say."""
    problems = []
    for name in names:
        try:
            check(name)
        except Exception as error:  # noqa: BLE001  # told below, with those of the other calls
            text = " ".join(str(error).split("\nassert ")[0].split())
            problems.append(f"{name}: {type(error).__name__}: {text[:400]}")
    if problems:
        raise AssertionError("\n".join(problems))


def taken(found: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """The results of some rows, in their order."""
    square = {Keys.NICHE_GRAPH, "X_pca_niche"}
    return {key: values[rows][:, rows] if key in square else values[rows] for key, values in found.items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], note: str = "") -> None:
    """Compare results up to rounding; NaN are in the same places."""
    assert set(found) == set(expected), f"{note}: {sorted(found)} written instead of {sorted(expected)}"
    for key, values in expected.items():
        loose = {Keys.SPOT_WINDOW: 0.02, Keys.NICHE_WINDOW: 0.02, "X_pca_niche": 0.02 * max(1.0, np.abs(values).max())}
        np.testing.assert_allclose(
            found[key].astype(float), values.astype(float), rtol=0, atol=loose.get(key, 5e-3), err_msg=f"{note} {key}"
        )


_ASSIGNED = re.compile(r"`(\w+)=")
_BARE = re.compile(r"`(\w+)`")


def assigned_in(text: str) -> set[str]:
    """Arguments that a message names with a value, as in `layer=`."""
    return set(_ASSIGNED.findall(text))


def arguments_in(text: str) -> set[str]:
    """Arguments that a message names, with a value or alone; names that also are values of `level` are left out."""
    return assigned_in(text) | (set(_BARE.findall(text)) & ARGUMENTS) - {"spot", "niche", "native"}


def foreign_arguments(text: str, function: Callable[..., Any]) -> set[str]:
    """Arguments that a message names and that the function does not take."""
    return arguments_in(text) - set(inspect.signature(function).parameters)
