"""Write `docs/training-keys.md` from the descriptions that the configuration classes carry.

python docs/_ext/training_keys.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from stalign.models.branches import AEGene, ConvEncoder, Features, GeneTable, TimmEncoder
from stalign.models.config import ST_ALIGN, InputSpec, LossConfig, ModelConfig
from stalign.models.hibio_config import HiBioConfig
from stalign.train.config import SectionSpec, TrainConfig

PAGE = Path(__file__).resolve().parents[1] / "training-keys.md"
INTRODUCTION = """\
# Keys of a training configuration

Every key of the TOML file that `stalign-train` reads, with its default. Any can be replaced on the command line, as in
`optim.lr=1e-3`. *Origin* says who chose the default: *arXiv*, *workshop* and *code* are the papers and the authors'
repository ([what they say, line by line](training.md#what-the-papers-and-the-code-say-and-what-we-took)); *ours* is
neither. A share is between 0 and 1. `docs/_ext/training_keys.py` makes this page from the classes that check the file.
"""
MODEL = """\
`base = "stalign-mini"` or `"st-align"` is the size to start from; the other keys replace what it says. Here are
the values of `st-align`; those of `stalign-mini` are in the `config.json` of its weights, and are our own. A branch
takes a `kind` and its keys, in the lists below. `init = "stalign-mini"` or a folder of weights, from the working
directory, starts from trained weights instead of a `base` ([start from weights](training.md#start-from-weights)).
"""
HIBIO = """\
`base = "hibio-st"` or `"hibio-mini"` is a network of [another kind](hibio.md), with keys of its own under `[model]` and
`[loss]`; the rest of this page holds for it, too, but that counts are not thinned. Defaults are those of the classes;
`hibio-mini` has its own.
"""


def page() -> str:
    """Return the page."""
    parts = [INTRODUCTION, "## Top level\n", _table(TrainConfig)]
    for field in dataclasses.fields(TrainConfig):
        cls = type(_default(field))
        if dataclasses.is_dataclass(cls):
            parts += [f"## `[{field.name}]`\n", _table(cls)]
        if field.name == "data":
            parts += ["### `[[data.sections]]`\n", _table(SectionSpec)]
    parts += ["## `[loss]`\n", _table(LossConfig), "## `[model]`\n", MODEL, _table(ModelConfig, ST_ALIGN)]
    for cls in (ConvEncoder, TimmEncoder, Features, GeneTable, AEGene):
        first = (cls.__doc__ or "").strip().partition("\n")[0]
        parts += [f"### Branch of kind {cls.kind}\n", f"{first}\n", _list(cls)]
    parts += ["## HiBio-ST\n", HIBIO, _list(HiBioConfig)]
    for field in dataclasses.fields(HiBioConfig):
        cls = type(_default(field))
        if dataclasses.is_dataclass(cls):
            name = "loss" if field.name == "loss" else f"model.{field.name}"
            parts += [f"### `{name}` of HiBio-ST\n", _list(cls)]
    return "\n".join(parts)


def _table(cls: Any, values: Any = None) -> str:
    """Tabulate the keys of a class, with their defaults or their values in one of its instances."""
    lines = [
        f"| key | {'default' if values is None else f'`{values.name}`'} | unit | what it is | origin |",
        "|---" * 5 + "|",
    ]
    for name, cells in _rows(cls, values):
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _list(cls: Any) -> str:
    """List the keys of a branch."""
    rows = [(name, cells[0] and f" = {cells[0]}", cells[2]) for name, cells in _rows(cls, None)]
    return "\n".join(f"- `{name}`{default}: {text}" for name, default, text in rows) + "\n"


def _rows(cls: Any, values: Any, prefix: str = "") -> list[tuple[str, list[str]]]:
    rows = []
    for field in dataclasses.fields(cls):
        info = cls.__pydantic_fields__[field.name]
        value = _default(field) if values is None else getattr(values, field.name)
        chapter = values is None and (dataclasses.is_dataclass(value) or field.name in ("model", "loss"))
        if not info.description or chapter or (cls is ModelConfig and field.name in ("name", "loss")):
            continue
        more = info.json_schema_extra
        inside = values is not None and field.name == "input"
        rows.append(
            (prefix + field.name, ["" if inside else _cell(value), more["unit"], info.description, more["origin"]])
        )
        if inside:
            rows += _rows(InputSpec, value, "input.")
    return [(name, [cell.replace("|", "\\|") for cell in cells]) for name, cells in rows]


def _default(field: Any) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if value is dataclasses.MISSING:
        return ""
    if dataclasses.is_dataclass(value):
        inside = [
            f"{f.name} = {json.dumps(getattr(value, f.name))}" for f in dataclasses.fields(value) if _told(value, f)
        ]
        return f"`{{ {', '.join(inside)} }}`"
    return f"`{json.dumps(value)}`"


def _told(value: Any, field: Any) -> bool:
    """Say whether a key is not at its default."""
    return field.name == "kind" or getattr(value, field.name) != _default(field)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
