from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import stalign as st
from stalign._constants import Keys
from stalign.models.checkpoint import load
from stalign.models.pretrained import LITE0, LITE0_NETWORK, packaged_state
from stalign.train import fit
from stalign.train.run import assemble

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
