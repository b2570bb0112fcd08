from __future__ import annotations

import numpy as np

from stalign.train.schedules import Schedule


def test_warmup_is_linear_and_cosine_ends_at_its_end():
    steps, warmup = 101, 20
    rate = Schedule(start=5e-4, end=1e-6, steps=steps, warmup=warmup)
    values = np.array([rate(s) for s in range(steps)])
    np.testing.assert_allclose(values[:warmup], 5e-4 * np.arange(warmup) / warmup)
    t = np.linspace(0, 1, steps - warmup)
    np.testing.assert_allclose(values[warmup:], 1e-6 + (5e-4 - 1e-6) * (1 + np.cos(np.pi * t)) / 2)
    assert rate(10 * steps) == 1e-6


def test_weight_decay_rises():
    decay = Schedule(start=0.04, end=0.4, steps=11)
    assert abs(decay(0) - 0.04) < 1e-12 and abs(decay(5) - 0.22) < 1e-12 and abs(decay(10) - 0.4) < 1e-12


def test_a_run_shorter_than_its_warmup():
    assert Schedule(1.0, 0.0, steps=2, warmup=4)(1) == 0.25
    assert Schedule(1.0, 0.0, steps=1)(0) == 1.0
