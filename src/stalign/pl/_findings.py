"""What a report says in words and tables."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.scores import IGNORE, agreement
from stalign.pl import _html as html
from stalign.pl._labels import read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from stalign.data.sections import SectionView

_PACKAGES = (
    "stalign", "torch", "timm", "numpy", "scipy", "scikit-learn", "anndata", "scanpy", "squidpy", "spatialdata",
    "matplotlib",
)  # fmt: skip
_LOW_COVERAGE = 0.5
_BEST = 20  # genes in the table
_FEW = 8  # entries of a card that are not folded away


def section_table(table: AnnData, views: Sequence[SectionView]) -> pd.DataFrame:
    """Describe sections and their physical scale, a row each."""
    rows = []
    for view in views:
        valid = table.obs[Keys.VALID].to_numpy(bool)[view.rows] if Keys.VALID in table.obs else view.valid
        image = view.image
        rows.append(
            {
                "section": view.library,
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
    return pd.DataFrame(rows)


def map_text(table: AnnData, views: Sequence[SectionView], truth: str | None, *, has_domains: bool) -> str:
    """Describe the map of domains for readers who do not see it."""
    named = [(Keys.DOMAIN, "domains")] if has_domains else []
    named = [(truth, "labels"), *named] if truth is not None else named
    parts = []
    for key, what in named:
        labels = read_labels(table, key)
        sizes = [f"{name} {int((labels.codes == code).sum())}" for code, name in enumerate(labels.names)]
        parts.append(f"{len(sizes)} {what} with these numbers of spots: {', '.join(sizes)}")
    names = ", ".join(view.library for view in views)
    return f"Map of {table.n_obs} spots of {names}, coloured by {'; and by '.join(parts)}."


def size_table(table: AnnData, key: str) -> str:
    """Count the spots of each label, as HTML."""
    labels = read_labels(table, key)
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.names))
    frame = pd.DataFrame({"domain": labels.names, "spots": counts, "share": counts / max(counts.sum(), 1)})
    missing = int((labels.codes < 0).sum())
    note = html.paragraph(f"{missing} spots have none.") if missing else ""
    return html.table(frame, "Size of the domains", digits=3) + note


def score_table(table: AnnData, views: Sequence[SectionView], truth: str) -> pd.DataFrame:
    """ARI and NMI of each section, and over all where there are several."""
    true, found = (
        table.obs[key].astype(object).where(table.obs[key].notna(), "").astype(str).to_numpy()
        for key in (truth, Keys.DOMAIN)
    )
    parts = [(view.library, view.rows) for view in views]
    parts += [("all", np.arange(table.n_obs))] if len(parts) > 1 else []
    rows = []
    for library, own in parts:
        labelled = ~np.isin(true[own], IGNORE)
        used = own[labelled & (found[own] != "")]
        values = agreement(true[used], found[used])
        rows.append({"library": library, "n_spots": len(own), "n_unlabelled": int((~labelled).sum()),
                     "n_scored": len(used), "ARI": values["ARI"], "NMI": values["NMI"]})  # fmt: skip
    return pd.DataFrame(rows)


def gene_table(predicted: AnnData) -> str:
    """List the predicted genes that can best be relied on, and say how many can't, as HTML."""
    shown = ("reliability", "reliable", "pearson", "covered", "mse", "mse_mean", "mae", "level", "level_sd", "n")
    frame = predicted.var[[column for column in shown if column in predicted.var]].rename_axis("gene").reset_index()
    order = next((column for column in ("reliability", "pearson") if column in frame), None)
    if order is not None:
        frame = frame.sort_values(order, ascending=False, kind="stable")
    note = ""
    if "reliable" in frame:
        record = predicted.uns.get(Keys.UNS, {}).get("predict_genes", {})
        frame["reliable"] = np.where(frame["reliable"], "yes", "no")
        failed = int((frame["reliable"] == "no").sum())
        patients = " of one patient, so that another patient may differ" if record.get("n_patients") == 1 else ""
        note = html.paragraph(
            f"{failed} of {len(frame)} genes are not reliable. Reliability is the mean Pearson over held-out "
            f"{record.get('held_out', 'part')}s of the reference{patients}; nothing measured in this section went into "
            f"it. {record.get('coverage', 0.9):.0%} intervals; `covered` is the share of spots that they held."
        )
    return html.table(frame.head(_BEST), f"The {min(_BEST, len(frame))} most reliable genes", digits=3) + note


def findings(table: AnnData, views: Sequence[SectionView], truth: str | None) -> list[str]:
    """What a reader should know before believing the figures."""
    found = []
    noted = table.uns.get(Keys.UNS, {}).get("embed", {}).get("sections", {})
    for view in views:
        invalid = int((~view.valid).sum())
        if invalid:
            found.append(f"{view.library}: {invalid} spots have no position.")
        if view.image is None:
            found.append(f"{view.library} has no image.")
        if not np.isfinite(view.coord_mpp):
            found.append(f"{view.library}: the physical scale is unknown.")
        entry = noted.get(view.library, {})
        modality, coverage = str(entry.get("modality", "")), entry.get("gene_coverage")
        if modality == "gene" and view.image is not None:
            found.append(f"{view.library} was embedded from its genes alone.")
        if coverage is not None and coverage < _LOW_COVERAGE:
            found.append(f"{view.library}: the weights know {coverage:.0%} of its genes.")
    if Keys.VALID in table.obs and not table.obs[Keys.VALID].all():
        found.append(f"{int((~table.obs[Keys.VALID].astype(bool)).sum())} of {table.n_obs} spots could not be used.")
    if Keys.DOMAIN not in table.obs:
        found.append("There are no domains yet: `stalign.tl.domains` was not called.")
    elif truth is None:
        found.append("No labels were given, so the domains are not scored.")
    return found


def parameters(table: AnnData) -> str:
    """Write down what each step recorded, as HTML."""
    record = table.uns.get(Keys.UNS, {})
    shown = {
        step: {name: value for name, value in values.items() if name != "model"}
        for step, values in record.items()
        if isinstance(values, Mapping)
    }
    params = table.uns.get(Keys.UNS_NICHES, {}).get("params", {})
    if isinstance(params, Mapping) and params:
        shown[Keys.UNS_NICHES] = dict(params)
    if not shown:
        return html.paragraph("None are recorded.")
    return "".join(html.facts(values, step) for step, values in shown.items())


def card(table: AnnData, weights: str | Path | None) -> str:
    """Name, hash and card of the weights."""
    used = table.uns.get(Keys.UNS, {}).get("embed", {})
    name = str(used.get("weights", ""))
    if weights is not None:
        where = Path(weights) / "config.json" if Path(weights).is_dir() else Path(weights)
        if not where.is_file():
            raise FileNotFoundError(message("Expected the folder of a checkpoint", found=f"nothing at {where}"))
        stored = json.loads(where.read_text(encoding="utf-8"))
    else:
        packaged = files("stalign").joinpath("weights", Path(name).name or "none", "config.json")
        stored = json.loads(packaged.read_text(encoding="utf-8")) if packaged.is_file() else None
    known = {key: used[key] for key in ("weights", "sha256", "version") if key in used}
    content = html.facts(known, "What embedded these sections") if known else html.paragraph("No weights were used.")
    if stored is None:
        return content + (html.paragraph("Their card is not at hand; pass `weights=`.") if known else "")
    of_file = stored.get("weights", {})
    if used.get("sha256") and of_file.get("sha256") not in {None, used["sha256"]}:
        content += html.paragraph("The card below is of other weights: its hash differs.")
    stated = {"parameters": of_file.get("parameters"), "sha256": of_file.get("sha256"), **stored.get("meta", {})}
    return content + _card_tables(stated)


def _card_tables(stated: Mapping[str, Any]) -> str:
    """Write the short entries of a card as one table, and fold each long one away under its name."""
    short, folded = {}, []
    for name, value in stated.items():
        if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            folded.append(html.fold(f"{name} ({len(value)})", html.table(pd.DataFrame(value), name)))
        elif isinstance(value, Mapping) and len(html.flat(value)) > _FEW:
            folded.append(html.fold(name, html.facts(value, name)))
        else:
            short[name] = value
    return html.facts(short, "Card of the weights") + "".join(folded)


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
