"""Pages and tables that are made from the code and from the files at the root, so that they never go stale."""

from __future__ import annotations

import inspect
import shutil
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

MODULES = {
    "io": "Readers",
    "datasets": "Datasets",
    "pp": "Preparation",
    "tl": "Tools",
    "pl": "Plots",
    "encoders": "Encoders",
    "models": "Network and weights",
    "train": "Training",
}
ROOT_PAGES = {"CHANGELOG.md": "changelog", "CONTRIBUTING.md": "contributing", "CODE_OF_CONDUCT.md": "code-of-conduct"}
_YES = {True: "yes", False: "no", None: "unclear"}


def generate(docs: Path) -> None:
    """Write everything that is generated below `docs/generated` and copy the tutorials to `docs/tutorials`."""
    root, made = docs.parent, docs / "generated"
    include = made / "include"
    include.mkdir(parents=True, exist_ok=True)
    for name, title in MODULES.items():
        _write(made / f"api-{name}.md", api_page(name, title))
    _write(include / "encoders.md", encoder_table())
    _write(include / "weights.md", weights_table())
    _write(include / "model-card.md", model_card(root))
    _write(include / "benchmarks.md", benchmarks(root))
    for file, name in ROOT_PAGES.items():
        _write(made / f"{name}.md", root_page(root / file))
    (docs / "tutorials").mkdir(exist_ok=True)
    kept = {file.name for file in (root / "tutorials").glob("*.ipynb")}
    for old in (docs / "tutorials").glob("*.ipynb"):
        if old.name not in kept:
            old.unlink()
    for file in sorted((root / "tutorials").glob("*.ipynb")):
        shutil.copy2(file, docs / "tutorials" / file.name)


def api_page(name: str, title: str) -> str:
    """List the public functions and classes of a subpackage for autosummary."""
    module = import_module(f"stalign.{name}")
    members = {member: getattr(module, member) for member in module.__all__}
    functions = sorted(m for m, value in members.items() if inspect.isroutine(value))
    classes = sorted(m for m, value in members.items() if inspect.isclass(value))
    values = sorted(set(members) - set(functions) - set(classes))
    text = [f"# {title}: `stalign.{name}`", "", (module.__doc__ or "").strip(), ""]
    for members_of, heading in ((functions, "Functions"), (classes, "Classes")):
        if members_of:
            text += [f"## {heading}", "", "```{eval-rst}", f".. currentmodule:: stalign.{name}", ""]
            text += [".. autosummary::", "   :toctree: api", "   :nosignatures:", ""]
            text += [f"   {member}" for member in members_of] + ["```", ""]
    if values:
        text += ["## Values", "", ", ".join(f"`{value}`" for value in values), ""]
    return "\n".join(text)


def encoder_table() -> str:
    """Tabulate the registered encoders with what decides whether one may use them."""
    from stalign import encoders

    blocks = []
    for modality, title in (("image", "Image encoders"), ("gene", "Gene encoders")):
        table = encoders.list(modality)
        rows = [
            {
                "name": f"`{name}`",
                "width": row["dim"],
                "input": f"{row['input_px']} px, {row['input_um']:g} µm" if modality == "image" else "counts",
                "parameters": _count(row["n_parameters"]),
                "licence": row["licence"],
                "commercial use": _YES[row["commercial"]],
                "gated": _YES[row["gated"]],
                "how to get it": _access(row),
            }
            for name, row in table.iterrows()
        ]
        notes = [f"- `{name}`: {row['note']} ({row['citation']})" for name, row in table.iterrows() if row["note"]]
        blocks += [f"### {title}", "", _markdown(rows), "", *notes, ""]
    return "\n".join(blocks)


def _access(row: pd.Series) -> str:
    if row["access"] == "none":
        return "in the package"
    if row["access"] == "hub":
        return f"[{row['repo']}](https://huggingface.co/{row['repo']})"
    return f"[from its authors]({row['url']}), as a path"


def weights_table() -> str:
    """Tabulate the weights that have a name."""
    from stalign.models import REGISTRY

    rows = []
    for entry in REGISTRY.values():
        spec = entry.input
        patches = f"spots at {spec.spot_px} px and niches at {spec.niche_px} px" if entry.kind == "st-align" else ""
        patches = patches or f"windows of {spec.um:g} µm at {spec.px} px and gene sentences"
        reads = f"{patches}, images up to {spec.max_mpp:g} µm per px"
        rows.append(
            {"name": f"`{entry.name}`", "reads": reads, "licence": entry.licence, "what it is": entry.description}
        )
    return _markdown(rows)


def model_card(root: Path) -> str:
    """Take over MODEL_CARD.md."""
    card = root / "MODEL_CARD.md"
    return card.read_text(encoding="utf-8") if card.is_file() else "This checkout has no `MODEL_CARD.md`."


def benchmarks(root: Path) -> str:
    """Put the tables that the benchmark scripts have written, and the model card does not show, below one another."""
    card = model_card(root)
    files = sorted((root / "benchmarks" / "results").glob("*.md"))
    if not files:
        return "This checkout has no tables in `benchmarks/results`. The scripts in `benchmarks/` write them."
    texts = {file.stem.replace("-", " ").capitalize(): file.read_text(encoding="utf-8").strip() for file in files}
    texts = {name: text for name, text in texts.items() if text not in card}
    blocks = [text if text.startswith("#") else f"# {name}\n\n{text}" for name, text in texts.items()]
    return "\n\n".join(blocks) + "\n" if blocks else "All of them are in the model card above.\n"


def root_page(file: Path) -> str:
    """Take over a page from the root of the repository, with its links bent towards the pages made of their targets."""
    text = file.read_text(encoding="utf-8")
    moved = {f"]({target})": f"]({name}.md)" for target, name in ROOT_PAGES.items()}
    moved |= {"](docs/": "](../", "](tutorials/": "](../tutorials/", "](MODEL_CARD.md)": "](../results.md)"}
    for old, new in moved.items():
        text = text.replace(old, new)
    return text


def _count(n: int) -> str:
    return "none" if n == 0 else f"{n / 1e6:,.0f} M"


def _markdown(rows: list[dict[str, object]]) -> str:
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(row[key]) for key in head) + " |" for row in rows])


def _write(path: Path, text: str) -> None:
    """Write only what has changed, so that Sphinx does not read the page again."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
