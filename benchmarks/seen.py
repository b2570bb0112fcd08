"""What weights have seen of a section, told from the training sections that their card lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign.models import REGISTRY
from stalign.models.checkpoint_files import CONFIG_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVELS = ("section", "donor", "study")
UNKNOWN = "unknown"


def training_data(weights: str | Path) -> list[dict[str, Any]] | None:
    """Training sections of weights of stalign, a name or a folder; None where their card lists none."""
    entry = REGISTRY.get(str(weights))
    file = (entry.path if entry else Path(weights)) / CONFIG_FILE
    meta = json.loads(file.read_text(encoding="utf-8")).get("meta", {}) if file.is_file() else {}
    return meta.get("training_data") or None


def seen(
    weights: str | Path | list[dict[str, Any]], section: str, donor: str | None = None, study: str | None = None
) -> str:
    """Say what of a section weights were trained on.

    Parameters
    ----------
    weights
        A name, the folder of weights, or the training sections themselves: mappings with `section`, and `donor` and
        `study` where they are known.
    section, donor, study
        What is known of the section. Names of sections and donors count within their study where both are known, as
        "A1" and "A" are common.

    Returns
    -------
    The closest of `section`, `donor` and `study`; "" for none of them, and `unknown` where the card lists no training
    sections.
    """
    entries = training_data(weights) if isinstance(weights, str | Path) else weights
    if entries is None:
        return UNKNOWN
    own = {"section": section, "donor": donor, "study": study}
    found = {level for entry in entries for level in LEVELS if _matches(entry, own, level)}
    return next((level for level in LEVELS if level in found), "")


def _matches(entry: Mapping[str, Any], own: Mapping[str, str | None], level: str) -> bool:
    studies = entry.get("study"), own["study"]
    if level != "study" and all(studies) and studies[0] != studies[1]:
        return False
    return own[level] is not None and entry.get(level) == own[level]
