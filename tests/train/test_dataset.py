from __future__ import annotations

import numpy as np
import pytest
import torch

from stalign.models.config import MINI
from stalign.train.augment import augment
from stalign.train.clusters import with_clusters
from stalign.train.config import AugmentConfig, DataConfig
from stalign.train.dataset import SpotDataset
from stalign.train.sampler import BatchPlan
from stalign.train.store import open_store


@pytest.fixture(scope="module")
def store(toy2):
    from stalign.train.config import SectionSpec
    from stalign.train.slides import Slide

    return open_store([Slide(SectionSpec("toy", library_key="library"), toy2)], DataConfig(), MINI.input)


def plan(store, step=0, n=6):
    pieces = tuple((i, s.rows[:n]) for i, s in enumerate(store.sections))
    return BatchPlan(step, pieces, 0, 2 * n)


def test_batch_is_what_the_readers_give(store):
    step = SpotDataset(store.sections)[plan(store)]
    assert step.draws is None and step.sections == ("toy_1", "toy_2")
    own = store.sections[1].reader.batch(store.sections[1].rows[:6])
    assert torch.equal(step.batch.spot_image[6:], own.spot_image)
    assert torch.equal(step.batch.section, torch.tensor([0] * 6 + [1] * 6))
    torch.testing.assert_close(step.batch.niche_gene[6:, : own.niche_gene.shape[1]], own.niche_gene)


def test_randomness_follows_from_seed_and_step(store):
    first, again = (SpotDataset(store.sections, augment=AugmentConfig(), seed=1) for _ in range(2))
    first[plan(store, step=3)]  # reading another step before changes nothing
    a, b, c = first[plan(store)], again[plan(store)], again[plan(store, step=1)]
    assert torch.equal(a.batch.spot_gene, b.batch.spot_gene)
    assert torch.equal(augment(a.batch, a.draws).spot_image, augment(b.batch, b.draws).spot_image)
    assert not torch.equal(a.batch.spot_gene, c.batch.spot_gene)
    plain = SpotDataset(store.sections)[plan(store)]
    assert not torch.equal(a.batch.spot_gene, plain.batch.spot_gene)  # counts were thinned


def test_members_are_the_niches(store):
    step = SpotDataset(store.sections, members=True)[plan(store)]
    offset = len(store.sections[0].reader)
    for i, (section, row) in enumerate((s, int(r)) for s, rows in plan(store).pieces for r in rows):
        niche = set(store.sections[section].reader.graph[[row]].indices + section * offset)
        assert set(step.members[i].tolist()) == niche | {row + section * offset}


def test_negatives_come_from_five_other_clusters(store):
    sections = [with_clusters(s) for s in store.sections]
    stored = sections[0]
    rows = stored.rows[:40]
    step = SpotDataset(sections, negatives=True)[BatchPlan(0, ((0, rows),), 0, 40)]
    assert len(step.negatives) == 200
    # Which spots were drawn is read off their scores, which are all different.
    scores = stored.reader.expression.scores
    given = step.negatives.spot_gene.numpy()
    drawn = np.array([np.flatnonzero((scores == g).all(axis=1))[0] for g in given]).reshape(40, 5)
    clusters = stored.clusters[drawn]
    assert all(len(set(c)) == 5 for c in clusters)
    assert (clusters != stored.clusters[rows][:, None]).all()
    with pytest.raises(RuntimeError, match="'toy_2' cannot be read any more at step 7.*no clusters"):
        SpotDataset(store.sections, negatives=True)[BatchPlan(7, ((1, rows[:3]),), 0, 3)]


def test_steps_move_and_pin_as_a_whole(store):
    step = SpotDataset(store.sections, augment=AugmentConfig(), members=True)[plan(store)]
    moved = step.to(torch.device("meta"))
    assert moved.batch.spot_image.is_meta and moved.members.is_meta and moved.draws.flip.is_meta
    assert len(moved) == 12
