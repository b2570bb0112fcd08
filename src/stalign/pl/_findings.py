"""What a report says in words and tables."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign.core.labels import as_labels
from stalign.core.scores import agreement
from stalign.data import facts, record
from stalign.pl._html import flat, part
from stalign.pl._labels import read_labels
from stalign.pl._records import by_section, of_these_weights, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from markupsafe import Markup

    from stalign.data import Section

_PACKAGES = (
    "stalign", "torch", "timm", "numpy", "scipy", "scikit-learn", "anndata", "scanpy", "squidpy", "spatialdata",
    "matplotlib",
)  # fmt: skip
_LOW_COVERAGE = 0.5
_BEST = 20  # genes in the table
_FEW = 8  # entries of a card that are not folded away


def section_table(table: AnnData, views: Sequence[Section]) -> Markup:
    """Describe sections and their physical scale, a row each."""
    rows = []
    for view in views:
        valid = table.obs[Keys.VALID].to_numpy(bool)[view.rows] if Keys.VALID in table.obs else view.valid
        image = view.image
        rows.append(
            {
                "section": view.name,
                "spots": len(view.rows),
                "usable": int(valid.sum()),
                "technology": view.technology,
                "pitch, µm": view.pitch_um,
                "spot, µm": view.spot_diameter_um,
                "image": "none" if image is None else f"{image.key}, {image.shape[1]} x {image.shape[0]} px",
                "µm per image px": float("nan") if image is None else image.mpp,
                "scale from": view.mpp_origin,
            }
        )
    return part("table", pd.DataFrame(rows), "Sections and their scale")


def map_text(table: AnnData, views: Sequence[Section], truth: str | None, *, has_domains: bool) -> str:
    """Describe the map of domains for readers who do not see it."""
    named = [(Keys.DOMAIN, "domains")] if has_domains else []
    named = [(truth, "labels"), *named] if truth is not None else named
    parts = []
    for key, what in named:
        labels = read_labels(table, key)
        sizes = [f"{name} {int((labels.codes == code).sum())}" for code, name in enumerate(labels.names)]
        parts.append(f"{len(sizes)} {what} with these numbers of spots: {', '.join(sizes)}")
    names = ", ".join(view.name for view in views)
    return f"Map of {table.n_obs} spots of {names}, coloured by {'; and by '.join(parts)}."


def size_table(table: AnnData, key: str) -> Markup:
    """Count the spots of each label."""
    labels = read_labels(table, key)
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.names))
    frame = pd.DataFrame({"domain": labels.names, "spots": counts, "share": counts / max(counts.sum(), 1)})
    missing = int((labels.codes < 0).sum())
    note = f"{missing} spots have none." if missing else ""
    return part("table", frame, "Size of the domains", digits=3, note=note)


def score_table(table: AnnData, views: Sequence[Section], truth: str) -> pd.DataFrame:
    """ARI and NMI of each section, and over all where there are several."""
    true, found = as_labels(table.obs[truth]), as_labels(table.obs[Keys.DOMAIN])
    labelled, placed = (np.array([label is not None for label in column], dtype=bool) for column in (true, found))
    parts = [(view.name, view.rows) for view in views]
    parts += [("all", np.arange(table.n_obs))] if len(parts) > 1 else []
    rows = []
    for library, own in parts:
        used = own[(labelled & placed)[own]]
        values = agreement(true[used].astype(str), found[used].astype(str))
        rows.append({"library": library, "n_spots": len(own), "n_unlabelled": int((~labelled[own]).sum()),
                     "n_scored": len(used), "ARI": values["ARI"], "NMI": values["NMI"]})  # fmt: skip
    return pd.DataFrame(rows)


def annotation(table: AnnData, views: Sequence[Section], truth: str | None) -> dict[str, str]:
    """How labels were given, and the share that is right where there is a truth."""
    figures = record(table, Keys.ANNOTATION, "figures")
    given = table.obs.get(f"{Keys.ANNOTATION}_given")
    facts = {"labels learned from": f"{int(figures.get('n_labelled', 0)):,} spots"}
    if given is not None:
        facts["spots that had a label"] = f"{int(given.sum()):,} of {table.n_obs:,}"
    if np.isfinite(figures.get("accuracy", np.nan)):
        facts["right, of labelled spots held out"] = f"{figures['accuracy']:.0%}"
    sure = table.obs.get(f"{Keys.ANNOTATION}_confidence")
    if sure is not None:
        facts["spots with a confidence below .5"] = f"{int((sure < 0.5).sum()):,}"
    if truth is not None and given is not None:
        known, found = as_labels(table.obs[truth]), as_labels(table.obs[Keys.ANNOTATION])
        use = np.array([a is not None and b is not None for a, b in zip(known, found, strict=True)]) & ~given.to_numpy()
        for view in views:
            rows = view.rows[use[view.rows]]
            if len(rows):
                right = (known[rows] == found[rows]).mean()
                facts[f"{view.name}: right, of {len(rows):,} spots without a label"] = f"{right:.0%}"
    return facts


def gene_table(predicted: AnnData) -> Markup:
    """List the predicted genes that can best be relied on, and say how many can't."""
    shown = ("reliability", "reliable", "pearson", "covered", "mse", "mse_mean", "mae", "level", "level_sd", "n")
    frame = predicted.var[[column for column in shown if column in predicted.var]].rename_axis("gene").reset_index()
    order = next((column for column in ("reliability", "pearson") if column in frame), None)
    if order is not None:
        frame = frame.sort_values(order, ascending=False, kind="stable")
    note = ""
    if "reliable" in frame:
        noted = facts(predicted, Keys.UNS, "predict_genes")
        patients = " of one patient" if noted.get("n_patients") == 1 else ""
        frame["reliable"] = np.where(frame["reliable"], "yes", "no")
        failed = int((frame["reliable"] == "no").sum())
        note = (
            f"{failed} of {len(frame)} genes are not reliable. Reliability is the mean Pearson over held-out "
            f"{noted.get('held_out', 'part')}s of the reference{patients}; nothing measured in this section went into "
            f"it.{within(noted)} {noted.get('coverage', 0.9):.0%} intervals; `covered` is the share of spots that"
            " they held."
        )
    return part("table", frame.head(_BEST), f"The {min(_BEST, len(frame))} most reliable genes", digits=3, note=note)


def findings(table: AnnData, views: Sequence[Section], truth: str | None) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    noted = by_section(record(table, Keys.UNS, "embed").get("sections"))
    for view in views:
        invalid = int((~view.valid).sum())
        if invalid:
            found.append(f"{view.name}: {invalid} spots have no position.")
        if view.image is None:
            found.append(f"{view.name} has no image.")
        if not np.isfinite(view.coord_mpp):
            found.append(f"{view.name}: the physical scale is unknown.")
        entry = noted.get(view.name, {})
        modality, coverage = str(entry.get("modality", "")), entry.get("gene_coverage")
        if modality == "gene" and view.image is not None:
            found.append(f"{view.name} was embedded from its genes alone.")
        if coverage is not None and coverage < _LOW_COVERAGE:
            found.append(f"{view.name}: the weights know {coverage:.0%} of its genes.")
    if Keys.VALID in table.obs and not table.obs[Keys.VALID].all():
        found.append(f"{int((~table.obs[Keys.VALID].astype(bool)).sum())} of {table.n_obs} spots could not be used.")
    if Keys.DOMAIN not in table.obs:
        found.append("There are no domains yet: `stalign.tl.domains` was not called.")
    elif truth is None:
        found.append("No labels were given, so the domains are not scored.")
    return found


def parameters(table: AnnData) -> Markup:
    """Write down what each step recorded."""
    shown = {
        name: {
            entry: value for entry, value in facts(table, Keys.UNS, name).items() if entry not in ("model", "params")
        }
        for name, values in record(table, Keys.UNS).items()
        if isinstance(values, Mapping)
    }
    for name, values in table.uns.items():  # what scanpy and others recorded, under the key they wrote
        params = values.get("params") if isinstance(values, Mapping) else None
        if isinstance(params, Mapping) and params:
            shown[str(name)] = dict(params)
    return part("parameters", shown)


def card(table: AnnData, stored: Mapping[str, Any] | None) -> Markup:
    """Name, hash and card of the weights; long entries of the card are folded away under their names."""
    noted = facts(table, Keys.UNS, "embed")
    used = {key: noted[key] for key in ("weights", "sha256", "version") if key in noted}
    if stored is None:
        return part("card", used, None, same=True)
    stated: dict[str, dict[str, Any]] = {"short": {}, "tables": {}, "long": {}}
    of_file = stored.get("weights", {})
    entries = {"parameters": of_file.get("parameters"), "sha256": of_file.get("sha256"), **stored.get("meta", {})}
    for name, value in entries.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            stated["tables"][name] = pd.DataFrame(value)
        elif isinstance(value, Mapping) and len(flat(value)) > _FEW:
            stated["long"][name] = value
        else:
            stated["short"][name] = value
    return part("card", used, stated, same=of_these_weights(table, stored))


def versions() -> dict[str, str]:
    """Name the versions of what was used."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in _PACKAGES:
        found[package] = package_version(package)
    return found


def package_version(package: str) -> str:
    """Name the version of a package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
