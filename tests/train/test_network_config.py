from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stalign.models.checkpoint import load
from stalign.models.config import MINI, ST_ALIGN, ConvEncoder, Features, TimmEncoder
from stalign.train import fit, history
from stalign.train.config import DataConfig, SectionSpec, TrainConfig
from stalign.train.module import parameter_groups
from stalign.train.network_config import model_config


def test_base_and_what_replaces_it():
    shape = model_config(TrainConfig(name="mine", model={"dropout": 0, "head": {"hidden": 5}}))
    assert shape.name == "mine" and shape.dropout == 0.0
    assert shape.head.hidden == 5 and shape.head.out == MINI.head.out
    paper = model_config(TrainConfig(model={"base": "st-align", "niche_image": {"dim": 512}}))
    assert paper.niche_image == Features(dim=512) and paper.spot_image == ST_ALIGN.spot_image
    conv = model_config(TrainConfig(model={"niche_image": {"kind": "conv", "channels": [1, 2, 3, 4]}}))
    assert conv.niche_image == ConvEncoder(channels=(1, 2, 3, 4))
    assert model_config(TrainConfig(loss={"lambda_spot": 0.3})).loss.lambda_spot == 0.3


def test_uni_inside_the_network_as_the_configuration_of_the_paper_shows_it():
    text = (Path(__file__).parents[2] / "configs" / "st-align.toml").read_text(encoding="utf-8")
    start = text.index("# [model.niche_image]")
    block = text[start : text.index("\n\n", start)].replace("# ", "")
    spec = model_config(TrainConfig(model={"base": "st-align", **tomllib.loads(block)["model"]})).niche_image
    assert spec == TimmEncoder(
        "vit_large_patch16_224", 1024, init_values=1e-5, frozen=False, weights="path/to/UNI/pytorch_model.bin"
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model": {"base": "st-alinge"}}, "model.base"),
        ({"model": {"droput": 0.1}}, "Did you mean 'dropout'"),
        ({"model": {"head": {"hiden": 1}}}, "model.head.*Did you mean 'hidden'"),
        ({"model": {"niche_image": {"kind": "vit"}}}, "model.niche_image.kind"),
        ({"model": {"niche_image": {"kind": "timm", "features": 3}}}, "Expected the key `name`"),
        ({"loss": {"temprature": 0.1}}, "Did you mean 'temperature'"),
        ({"loss": {"negatives": "all"}}, "negatives"),
        ({"model": {"fusion": 3}}, "`model.fusion` to be str"),
    ],
)
def test_wrong_keys_are_named(changes, expected):
    with pytest.raises(ValueError, match=expected):
        model_config(TrainConfig(**changes))


def test_biases_norms_and_the_gene_table_are_spared_by_weight_decay():
    from stalign.models.network import STAlign

    network = STAlign(MINI, 40)
    names = {id(p): n for n, p in network.named_parameters()}
    decayed, spared = (
        {names[id(p)] for p in group["params"]} for group in parameter_groups(network, decay_gene_table=False)
    )
    assert decayed | spared == set(names.values()) and not decayed & spared
    assert "gene_table.weight" in spared
    assert all(network.get_parameter(n).ndim > 1 and not n.endswith("bias") for n in decayed)
    assert not any("norm" in n for n in decayed)
    groups = parameter_groups(network, decay_gene_table=True)
    assert "gene_table.weight" in {names[id(p)] for p in groups[0]["params"]}


def test_paper_configuration_trains_on_features_given_as_arrays(toy2, tiny, tmp_path):
    """ST-Align at toy size: frozen niche image and spot gene features, AE-Gene on the expression itself."""
    rng = np.random.default_rng(0)
    (tmp_path / "uni").mkdir()
    for name, width in (("uni/toy", 16), ("scgpt", 8)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(toy2.n_obs, width)).astype(np.float32))
    given = (toy2, SectionSpec("toy", library_key="library", features={"spot_gene": "scgpt.npy"}))
    model = {
        "base": "st-align",
        "spot_image": {"channels": [4, 4, 4, 4], "blocks": [1, 1, 1, 1], "features": 8},
        "niche_image": {"dim": 16},
        "spot_gene": {"dim": 8},
        "niche_gene": {"hidden": [16], "width": 8, "layers": 1, "heads": 2, "head_dim": 4, "mlp": 8, "out_hidden": 8},
        "token_dim": 8,
        "n_heads": 2,
        "head_dim": 4,
        "head": {"hidden": 8, "out": 8},
        "input": {"niche_px": 16, "spot_px": 8},
    }
    features = {"niche_image": "uni/{slide}.npy", "spot_gene": "not/read.npy"}
    data = DataConfig(root=str(tmp_path), min_spots=20, features=features)
    config = tiny(model=model, data=data, run={"steps": 3})
    checkpoint = load(fit([given], config))
    assert checkpoint.config.niche_image == Features(dim=16)
    assert np.isfinite(history(config.out)["loss/total"]).all()

    with pytest.raises(ValueError, match=r"Expected features for `niche_image` in section 'toy_1'. Found: none"):
        fit([given], replace(config, out=str(tmp_path / "a"), data=replace(data, features={})))
    with pytest.raises(ValueError, match=r"width 8 for `niche_image` in section 'toy_1'. Found: width 16"):
        wrong = {**model, "niche_image": {"dim": 8}}
        fit([given], replace(config, out=str(tmp_path / "b"), model=wrong))


def test_weights_that_cannot_be_had_are_said_before_slides_are_opened(toy2, tiny, tmp_path):
    data = DataConfig(encoders={"niche_image": "uni"}, encoder_weights={"uni": str(tmp_path / "uni.bin")})
    config = tiny(data=replace(data, on_error="skip"))
    with pytest.raises(FileNotFoundError, match=r"uni\.bin"):
        fit([toy2], config)
    config = tiny(data=replace(data, encoders={"niche_image": "uno"}))
    with pytest.raises((KeyError, ValueError), match="uno"):
        fit([toy2], config)
    with pytest.raises(ValueError, match=r"Expected `branch` to be one of.*niche_img"):
        fit([toy2], tiny(data=replace(data, encoders={"niche_img": "uni"})))
    for wrong in ({"accelerator": "gpux"}, {"accelerator": "mps"}, {"precision": "bf17"}):
        with pytest.raises(ValueError, match="Expected `run` to fit this machine"):
            fit([tmp_path / "none.h5ad"], tiny(run=wrong))
