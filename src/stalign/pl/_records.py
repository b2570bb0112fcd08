"""What the steps of an analysis wrote down, as figures and the report need it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stalign._constants import Keys
from stalign._validate import message
from stalign.core.labels import as_labels
from stalign.core.training_data import DONOR, trained_on
from stalign.data import facts, record

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def rows_of(noted: Any) -> list[dict[str, Any]]:
    """Read a record of rows: a table, a list of mappings or names, or a mapping by section; without empty values."""
    if isinstance(noted, pd.DataFrame):
        rows = noted.to_dict(orient="records")
    elif isinstance(noted, Mapping):
        rows = [{"section": name, **values} for name, values in noted.items() if isinstance(values, Mapping)]
    elif isinstance(noted, Iterable) and not isinstance(noted, str | bytes):
        rows = [dict(entry) if isinstance(entry, Mapping) else {"section": entry} for entry in noted]
    else:
        rows = []
    return [{str(name): value for name, value in row.items() if not _is_missing(value)} for row in rows]


def by_section(noted: Any) -> dict[str, dict[str, Any]]:
    """Read what a step recorded of each section, by its name."""
    return {str(row["section"]): row for row in rows_of(noted) if "section" in row}


def stored_card(table: AnnData, weights: str | Path | None) -> dict[str, Any] | None:
    """Read the card of the weights: of a checkpoint, or of packaged weights of the recorded name; None where it is not.

    Parameters
    ----------
    table
        The table.
    weights
        Folder of a checkpoint, or None.

    Returns
    -------
    The content of `config.json`.

    Raises
    ------
    FileNotFoundError
        If there is no checkpoint at `weights`.
    """
    if weights is not None:
        where = Path(weights) / "config.json" if Path(weights).is_dir() else Path(weights)
        if not where.is_file():
            raise FileNotFoundError(message("Expected the folder of a checkpoint", found=f"nothing at {where}"))
        return dict(json.loads(where.read_text(encoding="utf-8")))
    name = Path(str(facts(table, Keys.UNS, "embed").get("weights", ""))).name or "none"
    packaged = files("stalign").joinpath("weights", name, "config.json")
    return dict(json.loads(packaged.read_text(encoding="utf-8"))) if packaged.is_file() else None


def of_these_weights(table: AnnData, card: Mapping[str, Any]) -> bool:
    """Say whether a card is not known to be of other weights than the embedding's."""
    used = facts(table, Keys.UNS, "embed").get("sha256")
    return not used or card.get("weights", {}).get("sha256") in {None, used}


def seen_in_training(
    table: AnnData, sections: Mapping[str, NDArray[np.intp]], *, card: Mapping[str, Any] | None = None
) -> list[str]:
    """Say which sections the weights of the embedding were trained on.

    Parameters
    ----------
    table
        The table.
    sections
        Rows of each section.
    card
        Card of the weights; None for that of packaged weights of the recorded name.

    Returns
    -------
    A sentence for each section that the record of `tl.embed` or the card lists, by its name or its donor's. Names can
    coincide, so a sentence says what they were compared by.
    """
    noted = facts(table, Keys.UNS, "embed")
    if not noted:
        return []
    training = rows_of(noted.get("training_sections"))
    if "training_sections" not in noted:
        card = stored_card(table, None) if card is None else card
        if card is None or not of_these_weights(table, card):
            return []
        training = rows_of(card.get("meta", {}).get("training_data"))
    weights = str(noted.get("weights", "the weights"))
    columns = [name for name in table.obs if str(name).lower().removesuffix("_id") in DONOR]
    found = []
    for name, rows in sections.items():
        donors = {label for column in columns for label in as_labels(table.obs[column].iloc[rows]) if label is not None}
        same = trained_on(training, [name])
        if same:
            exact = [entry for entry in same if entry.get("spots") == len(rows)]
            entry = (exact or same)[0]
            what = f"{name} was" if exact else f"A section named {name} was"
            size = "" if exact or "spots" not in entry else f"{entry['spots']:,} spots; here {len(rows):,}"
            found.append(f"{what} in the training of {weights}{_source(entry, size)}.")
        elif related := trained_on(training, (), donors):
            who = ", ".join(sorted({str(entry["donor"]) for entry in related}))
            source = _source({"study": related[0].get("study")}, "")
            found.append(f"{name}: other sections of donor {who} were in the training of {weights}{source}.")
    return found


def from_weights(table: AnnData) -> bool:
    """Say whether the domains were found in an embedding of `tl.embed`, as far as that is recorded."""
    params = record(table, Keys.DOMAIN, "params") or record(table, Keys.UNS, "domains")
    return str(params.get("use_rep", Keys.EMBED)).startswith(Keys.EMBED)


def split_of(predicted: AnnData) -> str:
    """Say what a prediction of genes was fitted to, as far as that is recorded."""
    noted = facts(predicted, Keys.UNS, "predict_genes")
    split, key = noted.get("split"), noted.get("split_key")
    held_out = f", each value of obs[{str(key)!r}] held out" if key is not None else ""
    if split == "spot":
        return "Held-out spots of the same section, fitted to their neighbours"
    if split in {"section", "patient"}:
        return f"Fitted to other {split}s{held_out}"
    if split == "column":
        return f"Fitted to the other spots{held_out}"
    if split != "reference":
        return ""
    spots = f"{int(noted['n_reference']):,} spots of " if "n_reference" in noted else ""
    names = [str(name) for name in np.ravel(noted.get("reference_sections", []))]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"Fitted to {spots}{f'the reference {shown}' if names else 'a reference'}"


def within(noted: Mapping[str, Any]) -> str:
    """Say whether the reliability of predicted genes was told across patients, from the record of a prediction."""
    if noted.get("split") == "spot":  # the section itself
        return ""
    known = {
        "patient": " Reliable within the reference's patient only.",
        "unknown": " Perhaps reliable within one patient only.",
    }
    return known.get(str(noted.get("reliable_within")), "")


def _source(entry: Mapping[str, Any], size: str) -> str:
    """Study, donor and size of a training section, in brackets."""
    donor = f"donor {entry['donor']}" if entry.get("donor") is not None else ""
    known = [str(part) for part in (entry.get("study"), donor, size) if part]
    return f" ({', '.join(known)})" if known else ""


def _is_missing(value: Any) -> bool:
    """Say whether an entry of a row holds nothing: files have no None, so text is empty where it is unknown."""
    if isinstance(value, str):
        return not value
    return value is None or value is pd.NA or (isinstance(value, float | np.floating) and bool(np.isnan(value)))
