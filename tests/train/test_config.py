from __future__ import annotations

import json

import pytest

from stalign.models.schema import build, update
from stalign.train.config import AugmentConfig, SectionSpec, TrainConfig
from stalign.train.recipes import load_config, override


def test_reads_toml_with_overrides(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(
        'name = "mine"\n[data]\nroot = "slides"\n[[data.sections]]\npath = "a.h5ad"\ninclude = ["A1"]\n'
        "[optim]\nlr = 1\n[model]\nwidth = 3\n"
    )
    config = load_config(file, ["optim.min_lr=1e-7", "run.devices=2", "name=other", "augment.thinning=[0.3, 1]"])
    assert config.name == "other"
    assert config.optim.lr == 1.0 and isinstance(config.optim.lr, float)
    assert config.optim.min_lr == 1e-7
    assert config.run.devices == 2
    assert config.augment.thinning == (0.3, 1.0)
    assert config.data.root == str(tmp_path / "slides")
    assert config.data.sections == (SectionSpec("a.h5ad", include=("A1",)),)
    assert config.model == {"width": 3}
    assert build(TrainConfig, config.to_dict()) == config  # survives JSON
    json.dumps(config.to_dict())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[optim]\nlearning_rate = 1.0\n", "'learning_rate'"),
        ("[optimm]\nlr = 1.0\n", "Did you mean 'optim'"),
        ("[augment]\nstian = 1.0\n", "Did you mean 'stain'"),
        ("[augment]\nflips = 1\n", "`augment.flips` to be bool"),
        ('[optim]\nlr = "high"\n', "Expected `optim.lr` to be float. Found: 'high'"),
        ("[run]\nsteps = -3\n", "Expected `run.steps` to be at least 0. Found: -3"),
        ("[data]\nworkers = -1\n", "data.workers"),
        ("[augment]\nthinning = [0.9, 0.1]\n", "augment.thinning"),
        ("[augment]\nthinning = [0.9]\n", "thinning"),
        ("[[data.sections]]\nlayer = 'counts'\n", "Expected the key `path`"),
        ("[[data.sections]]\npath = 'a'\nformat = 'vsium'\n", "Did you mean 'visium'"),
        ("[data]\nstore = 'disc'\n", "store.*Did you mean 'disk'"),
        ("seed = 1.5\n", "`seed` to be int"),
        ("[sampler]\nbatch_size = 1\n", "sampler.batch_size"),
        ("seed 1\n", "to be TOML"),
    ],
)
def test_names_what_is_wrong(tmp_path, text, expected):
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=expected):
        load_config(file)


def test_missing_file_and_bad_override(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.toml"):
        load_config(tmp_path / "no.toml")
    with pytest.raises(ValueError, match="key.sub=value"):
        override({}, ["seed"])
    with pytest.raises(ValueError, match="to be a table"):
        override({"seed": 1}, ["seed.x=2"])


def test_override_leaves_its_input_alone():
    values = {"optim": {"lr": 1.0}}
    assert override(values, ["optim.lr=2"]) == {"optim": {"lr": 2}}
    assert values == {"optim": {"lr": 1.0}}


def test_update_replaces_nested_fields():
    config = TrainConfig()
    changed = update(config, {"augment": {"stain": 0}, "seed": 3}, where="test")
    assert changed.augment == AugmentConfig(stain=0.0) and changed.seed == 3
    assert config.augment.stain > 0
    with pytest.raises(ValueError, match="Did you mean 'stain'"):
        update(config, {"augment": {"stains": 0}}, where="test")
