from __future__ import annotations

import numpy as np
import torch
from timm.layers import BatchNormAct2d

from stalign.encoders import get
from stalign.encoders.loading import locate
from stalign.encoders.vision import load, load_network


def test_lite0_without_batch_norms_computes_the_same():
    card = get("efficientnet-lite0")
    path = locate(card, None)
    encoder, plain = load(card, path), load_network(card, path).eval()
    assert any(isinstance(module, BatchNormAct2d) for module in plain.modules())
    assert not any(isinstance(module, BatchNormAct2d) for module in encoder.network.modules())
    patches = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = plain(encoder.prepare(patches)).numpy()
    found = encoder.encode(patches)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=1e-4)
    np.testing.assert_allclose(encoder.encode(patches[4:]), found[4:], atol=1e-5 * np.abs(expected).max())
    assert encoder.encode(patches[:0]).shape == (0, card.dim)
