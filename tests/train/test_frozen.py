from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import stalign as st
from stalign._constants import Keys
from stalign.encoders import Card, register
from stalign.encoders.registry import _CARDS
from stalign.models.checkpoint import load
from stalign.models.pretrained import LITE0, LITE0_NETWORK, lite0_state, packaged_state
from stalign.train import fit
from stalign.train.assemble import assemble
from stalign.train.config import DataConfig, SectionSpec

LITE = {
    "kind": "timm",
    "name": LITE0_NETWORK,
    "features": 16 + 24 + 40,
    "stages": [1, 2, 3],
    "weights": LITE0,
    "tokens": "linear",
}


@pytest.fixture
def config(tiny, tiny_model):
    return tiny(model={**tiny_model, "niche_image": LITE}, run={"epochs": 1})


def test_a_frozen_backbone_runs_once_per_section(config, slides):
    run = assemble(slides, config)
    network = run.module.network
    for stored in run.store.sections:
        reader = stored.reader
        assert set(reader.features) == {"niche_image"}
        assert reader.features["niche_image"].shape == (len(reader), 80)
        batch = replace(reader, features={}).batch(stored.rows[:5])
        assert batch.niche_image.shape[1] == 3
        by_pixels = network.eval()(batch).niche_image
        by_features = network(reader.batch(stored.rows[:5])).niche_image
        torch.testing.assert_close(by_features, by_pixels, rtol=1e-4, atol=1e-4)


def test_training_goes_on_where_it_stopped_and_leaves_the_backbone(config, slides, tmp_path):
    """Features are made again at each start, and are not compared: pixels and weights are."""
    whole = load(fit(slides, config))
    other = replace(config, out=str(tmp_path / "other"))
    fit(slides, other)
    for file in (tmp_path / "other" / "weights").iterdir():
        file.unlink()
    again = load(fit(slides, other, resume=True))
    for name, tensor in whole.network.state_dict().items():
        torch.testing.assert_close(again.network.state_dict()[name], tensor, rtol=0, atol=0)
    for name, tensor in packaged_state(whole.config).items():
        torch.testing.assert_close(whole.network.state_dict()[name], tensor, rtol=0, atol=0)
    toy = st.datasets.toy(n_rows=8)
    st.tl.embed(toy, whole)
    assert np.isfinite(toy.obsm[Keys.EMBED_IMAGE]).all()


def test_resume_refuses_another_backbone(tiny, tiny_model, slides, tmp_path):
    file = tmp_path / "backbone.pt"
    state = {name: tensor for name, tensor in lite0_state().items() if not name.startswith("classifier")}
    torch.save(state, file)
    config = tiny(model={**tiny_model, "niche_image": {**LITE, "weights": str(file)}}, run={"steps": 2})
    fit(slides, config)
    torch.save({**state, "conv_stem.weight": state["conv_stem.weight"] * 1.1}, file)
    with pytest.raises(
        ValueError, match=r"to be of this run. Found: encoders.niche_image was '\w{16}' and is '\w{16}'"
    ):
        fit(slides, config, resume=True)


class Gain:
    """Mean colours, times a number in a file."""

    def __init__(self, card, path, **rest):
        self.gain = float(path.read_text())

    def encode(self, patches):
        return self.gain * patches.mean((1, 2)).astype(np.float32)


@pytest.mark.parametrize("store", ["memory", "disk"])
def test_resume_refuses_other_weights_of_an_encoder(toy2, tiny, tiny_model, tmp_path, monkeypatch, store):
    monkeypatch.setattr("stalign.encoders.registry._CARDS", dict(_CARDS))
    register(Card("gain", "image", Gain, width=3, access="folder", files=("gain.txt",), input_px=8))
    toy2.write_h5ad(tmp_path / "toy.h5ad")
    model = {**tiny_model, "niche_image": {"kind": "features", "dim": 3, "tokens": "linear"}}
    more = {"encoders": {"niche_image": "gain"}, "encoder_weights": {"gain": "gain.txt"}}
    data = DataConfig(root=str(tmp_path), min_spots=20, store=store, **more)
    config = tiny(model=model, data=data, run={"steps": 2})
    (tmp_path / "gain.txt").write_text("1.0")
    slide = SectionSpec("toy.h5ad", library_key="library")
    fit([slide], config)
    (tmp_path / "gain.txt").write_text("2.0")
    with pytest.raises(
        ValueError, match=r"to be of this run. Found: section 'toy_1' has other features; encoders.gain was"
    ):
        fit([slide], config, resume=True)
