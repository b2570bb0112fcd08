from __future__ import annotations

import numpy as np
import pytest

from stalign.train.config import SamplerConfig
from stalign.train.sampler import StepSampler

ROWS = [np.arange(0, 300, 2), np.arange(40), np.arange(7, 130), np.arange(55)]


def sampler(batch=32, mix=2, rank=0, world=1, seed=0, strata=None, cap=0):
    config = SamplerConfig(batch_size=batch, sections_per_batch=mix, spots_per_section=cap)
    return StepSampler(ROWS, config, seed=seed, rank=rank, world=world, strata=strata)


def spots(plans):
    return sorted((section, int(row)) for plan in plans for section, rows in plan.pieces for row in rows)


@pytest.mark.parametrize("mix", [1, 2, 4])
def test_an_epoch_holds_every_spot_once(mix):
    s = sampler(mix=mix)
    for epoch in range(2):
        plans = [s.plan(epoch * s.steps_per_epoch + i) for i in range(s.steps_per_epoch)]
        assert spots(plans) == sorted((i, int(r)) for i, rows in enumerate(ROWS) for r in rows)
        assert all(2 <= len(p) <= 32 and len(p.pieces) <= mix for p in plans)
    assert spots([s.plan(0)]) != spots([s.plan(s.steps_per_epoch)])


def test_depends_on_seed_and_step_alone():
    full = sampler()
    full.steps = 50
    resumed = sampler()
    resumed.start, resumed.steps = 23, 50
    assert len(full) == len(resumed) == 50
    tail = list(full)[23:]
    again = list(resumed)
    assert [p.step for p in again] == list(range(23, 50))
    for a, b in zip(tail, again, strict=True):
        for (i, x), (j, y) in zip(a.pieces, b.pieces, strict=True):
            assert i == j
            np.testing.assert_array_equal(x, y)
    assert spots([sampler(seed=1).plan(0)]) != spots([full.plan(0)])


def test_processes_share_one_batch():
    one = sampler(batch=64)
    parts = [sampler(batch=32, rank=rank, world=2) for rank in range(2)]
    assert one.steps_per_epoch == parts[0].steps_per_epoch
    for step in range(one.steps_per_epoch):
        whole, halves = one.plan(step), [p.plan(step) for p in parts]
        assert len(halves[0]) == len(halves[1]) == len(whole) // 2
        assert [h.first for h in halves] == [0, len(halves[0])]
        joined = spots(halves)
        assert len(set(joined)) == len(joined) and set(joined) <= set(spots([whole]))
        assert halves[0].total == halves[1].total == len(joined)


def test_strata_never_mix_and_sections_can_be_capped():
    s = sampler(mix=4, strata=["both", "gene", "gene", "both"], cap=30)
    plans = [s.plan(i) for i in range(s.steps_per_epoch)]
    for plan in plans:
        assert {section for section, _ in plan.pieces} <= {0, 3} or {section for section, _ in plan.pieces} <= {1, 2}
    assert len(spots(plans)) == s.spots_per_epoch == 120


def test_says_what_is_too_small():
    with pytest.raises(ValueError, match=r"at least 4 spots\. Found: 1 with fewer"):
        StepSampler([np.arange(3), np.arange(9)], SamplerConfig(), world=2)
    with pytest.raises(ValueError, match="Found: none"):
        StepSampler([], SamplerConfig())


def test_repeated_sections_come_as_often_and_a_spot_once_a_batch():
    config = SamplerConfig(batch_size=32, sections_per_batch=2)
    s = StepSampler(ROWS, config, repeats=[1, 3, 1, 1])
    plans = [s.plan(i) for i in range(s.steps_per_epoch)]
    for plan in plans:
        assert len(set(spots([plan]))) == len(plan)
    drawn = spots(plans)
    assert {(i, int(r)) for i, rows in enumerate(ROWS) for r in rows} == set(drawn)
    assert sum(section == 0 for section, _ in drawn) == len(ROWS[0])
    assert 1.5 * len(ROWS[1]) < sum(section == 1 for section, _ in drawn) <= 3 * len(ROWS[1])
