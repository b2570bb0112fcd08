from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from stalign.train.augment import augment, draw, jitter, thinning
from stalign.train.config import AugmentConfig

OFF = AugmentConfig(flips=False, turns=False, stain=0.0, thinning=(1.0, 1.0))


@dataclass(frozen=True)
class Images:
    spot_image: torch.Tensor | None
    niche_image: torch.Tensor | None
    spot_gene: torch.Tensor | None = None


def images(n=40, size=6, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, 3, size, size), dtype=np.uint8))


def test_flips_and_turns_match_a_loop_and_are_shared():
    spot = images()
    batch = Images(spot, spot.repeat_interleave(2, -1).repeat_interleave(2, -2))
    draws = draw(AugmentConfig(stain=0.0), 40, np.random.default_rng(1))
    out = augment(batch, draws)
    for i in range(40):
        x = spot[i].numpy()
        x = x[..., ::-1] if draws.flip[i] else x
        x = np.rot90(x, int(draws.turns[i]), (-2, -1))
        np.testing.assert_array_equal(out.spot_image[i].numpy(), x)
    assert torch.equal(out.niche_image[..., ::2, ::2], out.spot_image)
    assert set(draws.turns.tolist()) == {0, 1, 2, 3} and 0 < draws.flip.sum() < 40
    assert torch.equal(batch.spot_image, images())  # the input is left alone


def test_switched_off_does_nothing():
    batch = Images(images(), None)
    draws = draw(OFF, 40, np.random.default_rng(0))
    assert draws.flip is None and draws.turns is None and draws.stain is None
    assert torch.equal(augment(batch, draws).spot_image, batch.spot_image)
    assert thinning(OFF, np.random.default_rng(0)) is None


@pytest.mark.parametrize("part", ["flips", "turns", "stain"])
def test_switching_one_part_off_leaves_the_others(part):
    full = draw(AugmentConfig(), 9, np.random.default_rng(3))
    less = draw(AugmentConfig(**{part: 0.0 if part == "stain" else False}), 9, np.random.default_rng(3))
    name = {"flips": "flip"}.get(part, part)
    assert getattr(less, name) is None
    for other in {"flip", "turns"} - {name}:
        assert torch.equal(getattr(less, other), getattr(full, other))


def test_stain_jitter_matches_beer_lambert_and_keeps_identity():
    x = images(5)
    identity = (torch.eye(3).expand(5, 3, 3), torch.zeros(5, 3))
    assert (jitter(x, identity).int() - x.int()).abs().max() <= 1
    matrix, shift = draw(AugmentConfig(stain=0.2), 5, np.random.default_rng(0)).stain
    out = jitter(x, (matrix, shift))
    density = -np.log((x[2, :, 1, 4].numpy().astype(float) + 1) / 256)
    expected = 256 * np.exp(-(density @ matrix[2].numpy() + shift[2].numpy())) - 1
    np.testing.assert_allclose(out[2, :, 1, 4].numpy(), np.clip(expected.round(), 0, 255), atol=1)
    assert 0 < (out.float() - x.float()).abs().mean() < 40


def test_stain_jitter_is_the_same_in_mixed_precision():
    x, stain = images(5), draw(AugmentConfig(stain=0.2), 5, np.random.default_rng(0)).stain
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = jitter(x, stain)
    assert torch.equal(mixed, jitter(x, stain))


def test_parts_of_a_draw_line_up():
    draws = draw(AugmentConfig(), 10, np.random.default_rng(0))
    part = draws.part(4, 3)
    assert torch.equal(part.turns, draws.turns[4:7]) and torch.equal(part.stain[0], draws.stain[0][4:7])


def test_thinning_draws_within_its_range():
    rng = np.random.default_rng(0)
    keeps = [thinning(AugmentConfig(thinning=(0.4, 0.6)), rng) for _ in range(200)]
    assert 0.4 <= min(keeps) < 0.42 and 0.58 < max(keeps) <= 0.6
