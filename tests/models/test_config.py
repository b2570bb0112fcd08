import json
from dataclasses import replace

import pytest

from stalign.models import CONFIGS, MINI, ST_ALIGN, AEGene, Features, Head, LossConfig, ModelConfig, TimmEncoder


@pytest.mark.parametrize("name", CONFIGS)
def test_json_round_trip(name):
    config = CONFIGS[name]
    assert config.name == name
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_round_trip_of_variants():
    config = replace(
        ST_ALIGN, niche_image=TimmEncoder("vit_tiny_patch16_224", features=192), niche_gene=AEGene(hidden=(3,))
    )
    again = ModelConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert isinstance(again.niche_image, TimmEncoder)


def test_left_out_keys_take_defaults():
    data = MINI.to_dict()
    del data["loss"], data["input"]["stain"], data["spot_gene"]["layers"]
    assert ModelConfig.from_dict(data) == MINI


@pytest.mark.parametrize("where", [(), ("input",), ("loss",), ("head",), ("spot_image",), ("niche_gene",)])
def test_unknown_keys_are_named(where):
    data = MINI.to_dict()
    part = data
    for key in where:
        part = part[key]
    part["temprature"] = 1
    with pytest.raises(ValueError, match="temprature") as caught:
        ModelConfig.from_dict(data)
    assert (where[0] if where else "config") in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("n_tokens",), "8", "config.n_tokens"),
        (("n_tokens",), True, "config.n_tokens"),
        (("residual",), 1, "config.residual"),
        (("input", "mean"), [0.5, "x", 0.5], "input.mean"),
        (("input", "spot_px"), 28.5, "input.spot_px"),
        (("input", "stain"), "macenko", "stain"),
        (("spot_image", "kind"), "vgg", "spot_image.kind"),
        (("spot_image", "channels"), [8, 8], "four stages"),
        (("spot_gene", "width"), 100, "spot_gene.width"),
        (("head", "out"), 100, "head.out"),
        (("loss", "temperature"), 0.0, "temperature"),
        (("loss", "lambda_spot"), 0.9, "lambda_spot"),
        (("fusion",), "sum", "fusion"),
        (("dropout",), 1.0, "dropout"),
        (("token_dim",), 63, "token_dim"),
        (("input",), None, "input"),
    ],
)
def test_impossible_values_are_named(path, value, named):
    data = MINI.to_dict()
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=named):
        ModelConfig.from_dict(data)


def test_missing_key_is_named():
    data = MINI.to_dict()
    del data["head"]
    with pytest.raises(ValueError, match="head"):
        ModelConfig.from_dict(data)


def test_loss_weights_sum_to_one():
    assert LossConfig().lambda_cross == pytest.approx(0.3)
    assert LossConfig(lambda_spot=0.3, lambda_niche=0.3).lambda_cross == pytest.approx(0.4)
    assert LossConfig(lambda_spot=0.6, lambda_niche=0.4).lambda_cross == pytest.approx(0.0)


def test_paper_sizes():
    assert ST_ALIGN.flat == 8 * 512
    assert ST_ALIGN.head == Head(hidden=2048, out=1024)
    assert ST_ALIGN.niche_image == Features(dim=1024)
    assert ST_ALIGN.niche_gene.width * ST_ALIGN.n_tokens == 4384
    assert MINI.flat == MINI.head.out == 512


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("input", "spot_pxx"), 3, "Expected a known key in `config.input`. Found: 'spot_pxx'.*Did you mean 'spot_px'"),
        (("spot_image", "chanels"), 3, "Expected a known key in `config.spot_image`.*Did you mean 'channels'"),
        (("spot_image", "kind"), "convv", "`config.spot_image.kind` to be one of.*'convv'.*'conv', 'timm', 'features'"),
        (("spot_image", "kind"), "features", "`config.spot_image`"),
        (
            ("spot_gene", "width"),
            4.5,
            r"`config.spot_gene.width` to be int. Found: 4.5 \(float\). width: length of a gene",
        ),
        (("input", "niche_um"), -1, r"`config.input.niche_um` to be above 0. Found: -1. niche_um: side.*\[µm\]"),
        (("input", "mean"), [0.1, "x", 0.1], r"`config.input.mean\[1\]` to be float. Found: 'x'"),
        (("dropout",), float("nan"), "`config.dropout` to be finite"),
        (("head",), 3, "`config.head` to be a table of keys and values. Found: 3"),
        (("spot_image",), None, "`config.spot_image` to be a table of keys and values. Found: None"),
        (("kind",), "hibio", "`config.kind` to be one of those available. Found: 'hibio'. Available: 'st-align'"),
    ],
)
def test_says_where_what_was_expected_and_what_was_found(path, value, said):
    data = MINI.to_dict()
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    with pytest.raises(ValueError, match=said):
        ModelConfig.from_dict(data)


def test_classes_say_what_is_wrong_and_what_their_keys_are():
    with pytest.raises(ValueError, match="Expected `temperature` to be above 0. Found: -1"):
        LossConfig(temperature=-1)
    with pytest.raises(ValueError, match="Expected the key `out` in the configuration"):
        Head(3)
    with pytest.raises(ValueError, match="Expected `hidden` to be int. Found: 'x'"):
        Head("x", 3)
    with pytest.raises(AttributeError):
        LossConfig().temperature = 3
    assert "\n    temperature\n        τ of eq. 10" in LossConfig.__doc__


def test_a_file_of_before_kinds_of_networks_is_read():
    data = MINI.to_dict()
    del data["kind"]
    assert ModelConfig.from_dict(data) == MINI
