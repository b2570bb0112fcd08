"""The card of weights: what they are, what they saw and how they are used, as Markdown for people and for the hub."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stalign.models.checkpoint import Checkpoint

_LICENCES = {  # as the hub names them
    "mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0",
}  # fmt: skip


def card(weights: Checkpoint, where: str) -> str:
    """Write the card of weights.

    Parameters
    ----------
    weights
        The weights.
    where
        What `tl.embed(weights=...)` is given to have them.

    Returns
    -------
    Markdown, with a header that the hub reads.
    """
    meta, read = weights.meta, weights.config.input
    licence = str(meta.get("licence", "not stated"))
    header = {
        "library_name": "stalign",
        "license": licence.lower() if licence.lower() in _LICENCES else "other",
        "license_name": licence,
        "tags": ["spatial-transcriptomics", "histology", "st-align"],
    }
    pixels = f"a patch of {read.spot_px} px of each spot and of {read.niche_px} px of its niche"
    parts = [
        "---\n" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in header.items()) + "\n---",
        f"# {meta.get('name', weights.config.name)}",
        str(meta.get("description") or "Weights for spots and niches of spatial transcriptomics."),
        f"```python\nimport stalign as st\n\nst.tl.embed(adata, weights={where!r})\n```",
        f"They read {pixels} ({read.n_neighbors} neighbours), and the counts of {len(weights.vocabulary):,} genes by "
        f"symbol{' or Ensembl id' if weights.ensembl else ''}. Licence: {licence}.",
    ]
    trained = meta.get("training_data") or []
    if trained:
        spots = sum(int(row.get("spots", 0)) for row in trained)
        names = [name for name in ("section", "donor", "study", "spots", "inputs") if any(r.get(name) for r in trained)]
        parts += [f"## Training data\n\n{len(trained)} sections with {spots:,} spots.", _table(names, trained)]
    if meta.get("metrics"):
        rows = [{"loss": name, "value": f"{value:.4g}"} for name, value in meta["metrics"].items()]
        parts += [
            f"## Losses at the end\n\nAfter {meta.get('steps', 'an unknown number of')} steps.",
            _table(rows[0], rows),
        ]
    if meta.get("finetune"):
        parts += ["## Fine-tuning", _code(meta["finetune"])]
    if meta.get("recipe"):
        parts += [
            "## Recipe\n\nThe configuration of the run; keys as on stalign's page on training.",
            _code(meta["recipe"]),
        ]
    return "\n\n".join(parts) + "\n"


def _table(names: Iterable[str], rows: Sequence[dict[str, Any]]) -> str:
    names = list(names)
    cells = [names, ["---"] * len(names), *([_cell(row.get(name)) for name in names] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _cell(value: Any) -> str:
    return "" if value is None else str(value).replace("|", r"\|").replace("\n", " ")


def _code(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=1, ensure_ascii=False)}\n```"
