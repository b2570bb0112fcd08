from __future__ import annotations

import re
import tomllib
from dataclasses import MISSING, fields, is_dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from stalign.models.config import ST_ALIGN, InputSpec, LossConfig, ModelConfig
from stalign.models.network import n_parameters_of
from stalign.models.schema import build
from stalign.train.config import SectionSpec, TrainConfig, resolve
from stalign.train.network_config import model_config
from stalign.train.recipes import load_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.toml")), ids=lambda p: p.stem)
def test_recipes_are_valid(path):
    config = load_config(path)
    assert config.name == path.stem and model_config(config).name == path.stem


def test_released_weights_never_see_the_donor_they_are_evaluated_on():
    config = load_config(ROOT / "configs" / "stalign-mini.toml")
    assert {"Br8100", "151673", "151674", "151675", "151676"} <= set(config.data.exclude)


def test_later_weights_never_see_the_cortex_they_are_evaluated_on():
    config = load_config(ROOT / "configs" / "stalign-small.toml")
    assert {"Br8100", "Br5292", "Br5595", "1515*", "1516*"} <= set(config.data.exclude)
    assert not any("dlpfc" in section.path or section.study == "Maynard 2021" for section in config.data.sections)


def test_paper_recipe_is_the_paper():
    config = load_config(ROOT / "configs" / "st-align.toml")
    shape = model_config(config)
    assert shape.spot_image == ST_ALIGN.spot_image and shape.niche_gene == ST_ALIGN.niche_gene
    # The authors' parts without UNI have about 92 million parameters; the two heads that they lack add 21 million.
    assert 105e6 < n_parameters_of(shape, config.data.max_genes) < 120e6
    optim = config.optim
    assert (optim.lr, optim.lr_batch, optim.min_lr, optim.warmup_epochs) == (5e-4, 256, 1e-6, 2.0)
    assert (optim.betas, optim.eps, optim.weight_decay, optim.weight_decay_end) == ((0.9, 0.999), 1e-8, 0.04, 0.4)


def test_the_example_in_the_docs_is_valid():
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    config = build(TrainConfig, tomllib.loads(re.search(r"```toml\n(.*?)```", text, re.DOTALL).group(1)))
    assert len(config.data.sections) == 3


def test_the_page_of_keys_is_made_from_the_classes():
    spec = spec_from_file_location("training_keys", ROOT / "docs" / "_ext" / "training_keys.py")
    made = module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.page() == made.PAGE.read_text(encoding="utf-8"), "run python docs/_ext/training_keys.py"


def _documented():
    """Keys of docs/training-keys.md with their defaults: `data.root`, `data.sections.path`, `model.input.rank`."""
    table, found = "", {}
    for line in (ROOT / "docs" / "training-keys.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = re.fullmatch(r"#+ `\[+(.*?)\]+`", line)
            table = heading.group(1) + "." if heading else ""
        elif line.startswith("| `"):
            names, default = (cell.strip() for cell in line.split("|")[1:3])
            found |= {table + name: default.strip("`") for name in re.findall(r"`(.*?)`", names)}
    return found


def _fields(cls, table):
    """Keys of a configuration class with their defaults, nested ones by their table."""
    out = {}
    for f in fields(cls):
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if is_dataclass(default):
            out |= _fields(type(default), f"{table}{f.name}.")
        else:
            out[table + f.name] = default
    return out


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_of_editors_and_shells(tmp_path, encoding):
    (tmp_path / "größe 1.toml").write_bytes('name = "größe"\r\nout = "läufe/日本"\r\n'.encode(encoding))
    config = load_config(tmp_path / "größe 1.toml")
    assert config.name == "größe" and config.out == str(Path("läufe/日本"))


def test_other_encodings_are_named(tmp_path):
    (tmp_path / "a.toml").write_bytes('out = "a"\nname = "größe"\n'.encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"TOML in UTF-8. Found: bytes in line 2 that are not utf-8. Save it as UTF-8\."
    ):
        load_config(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (r'out = "C:\Users\me"', r"to be TOML. Found: .*Write a path with backslashes in single quotes"),
        (r'out = "D:\temp\new"', r"without control characters. Found: 'D:\\temp\\new'. In TOML write"),
        (r"out = 'C:\Users\me'", r"a path on this machine. Found: C:\\Users\\me, a path of Windows"),
    ],
)
def test_backslashes_are_named(tmp_path, line, found):
    (tmp_path / "a.toml").write_text(line)
    with pytest.raises(ValueError, match=found):
        load_config(tmp_path / "a.toml")


def test_backslashes_between_folders(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("out = 'runs\\mine'\n[data]\nroot = 'my slides\\set'\n")
    config = load_config(tmp_path / "a.toml")
    assert Path(config.out) == Path("runs/mine") and Path(config.data.root) == tmp_path / "my slides" / "set"
    assert resolve(config.data.root, "sub\\a.h5ad") == tmp_path / "my slides" / "set" / "sub" / "a.h5ad"
    monkeypatch.chdir(tmp_path)
    Path("a\\b").mkdir()
    assert load_config("a.toml", ["out=a\\b"]).out == "a\\b"  # it is there, and called so


def test_every_key_is_documented_with_its_default():
    documented = _documented()
    wanted = _fields(TrainConfig, "") | _fields(SectionSpec, "data.sections.") | _fields(LossConfig, "loss.")
    shape = {f"model.{f.name}" for f in fields(ModelConfig)} | {f"model.input.{f.name}" for f in fields(InputSpec)}
    chapters = {"model", "loss"}
    assert set(documented) - {"model.input"} == (set(wanted) | shape) - chapters - {
        "model.name", "model.loss", "model.input",
    }  # fmt: skip
    for key, default in wanted.items():
        if key in chapters:
            continue
        said = {"none": None}.get(documented[key], documented[key])
        plain = tomllib.loads(f"x = {said}")["x"] if said else said
        value = list(default) if isinstance(default, tuple) else default
        assert plain == value or (default is MISSING and not said), key
