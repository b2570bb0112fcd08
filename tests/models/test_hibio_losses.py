from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stalign.encoders.clip_pair import ClipPair
from stalign.models.branches import Features
from stalign.models.gene_tokens import GeneTokens
from stalign.models.hibio import HiBioST, PairOutputs, SentenceBatch
from stalign.models.hibio_config import HIBIO_MINI, HiBioLossConfig, PathwayLoss, SentenceSpec, TextTower
from stalign.models.hibio_losses import HiBioLoss, pathway_terms, region_loss
from stalign.models.losses import info_nce

GENES = tuple(f"G{i}" for i in range(20))
B, J, P = 8, 6, 5
SMALL = replace(
    HIBIO_MINI,
    image=Features(dim=6),
    text=TextTower(width=16, layers=1, heads=2, context=12),
    dim=8,
    head_hidden=10,
    sentence=SentenceSpec(length=8),
    pathways=PathwayLoss(),
)
PATHWAYS = (torch.arange(4, 24).repeat(2)[:25], torch.arange(0, 25, 5))
SPEC = PathwayLoss()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return HiBioST(SMALL, len(GeneTokens(GENES))).double()


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    genes = np.stack([rng.permutation(20)[:8] for _ in range(B)])
    tokens, mask = GeneTokens(GENES).encode(genes)
    overlap = torch.from_numpy(rng.random((B, J)) * (rng.random((B, J)) < 0.4))
    overlap[3] = 0
    ids = torch.from_numpy(rng.integers(0, P, (B, J)))
    ids[:, -1] = -1
    overlap[:, -1] = 0
    region = torch.tensor([0, 0, 1, 1, 7, 7, 8, -1])
    image_valid = torch.arange(B) != 2
    gene_valid = torch.arange(B) != 5
    features = torch.from_numpy(rng.normal(size=(B, 6)))
    return SentenceBatch(features, tokens, mask, image_valid, gene_valid, ids, overlap, region, ("a",))


def terms(network, batch, config=SMALL, **more):
    return HiBioLoss(config, PATHWAYS)(network, batch, network(batch), **more)


def literal_pathway(w, cosine, *, tau=0.07, t=1.0, alpha=0.5):
    q = np.exp(w / t) / np.exp(w / t).sum()
    guess = np.exp(cosine / tau) / np.exp(cosine / tau).sum()
    return 1 - np.exp(-(guess * np.log(guess / q)).sum() / alpha)


def test_the_spot_term_is_that_of_clip(network, batch):
    whole = replace(batch, image_valid=None, gene_valid=None)
    out = network(whole)
    pair = ClipPair(nn.Identity(), 8, 8, width=8).double()
    for head in (pair.image_head, pair.gene_head):
        head.weight.data, head.bias.data = torch.eye(8, dtype=torch.float64), torch.zeros(8, dtype=torch.float64)
    torch.testing.assert_close(terms(network, whole)["spot"], pair.loss(out.image, out.gene))


def test_a_spot_that_lacks_a_side_is_no_pair(network, batch):
    kept = torch.tensor([0, 1, 3, 4, 6, 7])
    part = batch.apply(lambda x: x[kept])
    got, want = terms(network, batch)["spot"], terms(network, replace(part, image_valid=None, gene_valid=None))["spot"]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("t", [1.0, 0.1])
def test_the_pathway_term_of_two_pathways_has_a_closed_form(t):
    w, cosine = np.array([0.3, 0.0]), np.array([0.1, 0.2])
    spec = replace(SPEC, target_temperature=t)
    got, _, _ = pathway_terms(*(torch.from_numpy(x)[None] for x in (cosine, w)), torch.ones(1, 2) > 0, spec)
    assert got.item() == pytest.approx(literal_pathway(w, cosine, t=t))


def test_a_constant_prediction_costs_next_to_nothing_at_the_published_temperature():
    w = torch.cat([torch.full((1, 10), 0.3), torch.zeros(1, 100)], 1).double()
    same, there = torch.zeros_like(w), torch.ones_like(w) > 0
    assert pathway_terms(same, w, there, SPEC)[0].item() == pytest.approx(0.008, abs=1e-3)
    sharp = replace(SPEC, target_temperature=0.1)
    assert pathway_terms(same, w, there, sharp)[0].item() == pytest.approx(0.77, abs=0.01)
    plain = pathway_terms(same, w, there, replace(sharp, bounded=False))[0].item()
    assert plain == pytest.approx(0.73, abs=0.01)


def test_the_direction_of_the_divergence():
    w, cosine = torch.tensor([[0.9, 0.0]]).double(), torch.tensor([[0.0, 0.2]]).double()
    spec = replace(SPEC, bounded=False)
    there = torch.ones(1, 2) > 0
    reverse, q, guess = pathway_terms(cosine, w, there, spec)
    torch.testing.assert_close(reverse, F.kl_div(q, guess, log_target=True, reduction="none").sum(1))
    forward = pathway_terms(cosine, w, there, replace(spec, direction="forward"))[0]
    torch.testing.assert_close(forward, F.kl_div(guess, q, log_target=True, reduction="none").sum(1))
    assert abs(forward.item() - reverse.item()) > 0.1


def test_the_pathway_term_is_the_mean_over_spots_with_a_positive(network, batch):
    out, table = network(batch), network.text_tower.table.weight.detach()
    starts = PATHWAYS[1].tolist()
    means = torch.stack([table[PATHWAYS[0][s : s + 5]].mean(0) for s in starts])
    z, h = F.normalize(means, dim=1), F.normalize(out.predicted, dim=1)
    want = [
        literal_pathway(batch.overlap[i, :-1].numpy(), (h[i] @ z[batch.pathways[i, :-1]].T).detach().numpy())
        for i in range(B)
        if (batch.overlap[i] > 0).any() and batch.image_valid[i]
    ]
    loss = HiBioLoss(SMALL, PATHWAYS)
    assert loss(network, batch, out)["pathway"].item() == pytest.approx(np.mean(want))
    assert loss.figures["positive_share"].item() == pytest.approx(len(want) / B)
    cosine = (z @ z.T).fill_diagonal_(0).sum() / (P * (P - 1))
    torch.testing.assert_close(loss.figures["prototype_cosine"], cosine)
    assert 0 < loss.figures["target_entropy"] <= np.log(J - 1) + 1e-9
    assert 0 < loss.figures["predicted_entropy"] <= np.log(J - 1) + 1e-9


def test_without_positives_the_term_is_zero_with_finite_gradients(network, batch):
    empty = replace(batch, overlap=torch.zeros_like(batch.overlap), pathways=torch.full_like(batch.pathways, -1))
    found = terms(network, empty)
    found["pathway"].backward()
    assert found["pathway"].item() == 0
    for parameter in network.parameters():
        assert parameter.grad is None or (parameter.grad == 0).all()


def test_detached_prototypes_leave_the_gene_vectors_alone(network, batch):
    config = replace(SMALL, pathways=replace(SMALL.pathways, detach=True))
    for spec, moved in ((SMALL, True), (config, False)):
        network.zero_grad()
        terms(network, batch, spec)["pathway"].backward()
        assert bool(network.text_tower.table.weight.grad.any()) == moved


def test_half_precision_gives_nearly_the_same(network, batch):
    network.float()
    batch = batch.apply(lambda x: x.float() if x.is_floating_point() else x)
    full = terms(network, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = terms(network, batch)
    for name, value in full.items():
        assert half[name].item() == pytest.approx(value.item(), rel=0.05, abs=0.02)


def test_the_region_term_against_means(network, batch):
    out = network(batch)
    both = replace(out, gene_valid=None, image_valid=None, region=torch.tensor([0, 0, -1, -1, 7, 7, 8, -1]))
    v, t = (
        torch.stack([F.normalize(side[rows].mean(0), dim=0) for rows in ([0, 1], [4, 5])])
        for side in (out.image, out.gene)
    )
    want = (info_nce(v, t, temperature=0.1) + info_nce(t, v, temperature=0.1)) / 2
    torch.testing.assert_close(region_loss(both, 0.1), want)
    lacking = replace(both, gene_valid=torch.arange(B) != 5)  # region 7 has one sentence
    assert region_loss(lacking, 0.1).item() == 0
    assert region_loss(lacking, 0.1, min_members=1).item() != 0


def test_the_region_term_of_single_spots_is_the_spot_term(network, batch):
    alone = replace(batch, region=torch.arange(B), image_valid=None, gene_valid=None)
    config = replace(SMALL, regions=replace(SMALL.regions, min_members=1))
    found = terms(network, alone, config)
    torch.testing.assert_close(found["region"], found["spot"])


@pytest.mark.parametrize("region", [[-1] * 8, [0] * 8, list(range(8))])
def test_fewer_than_two_regions_cost_nothing(network, batch, region):
    found = terms(network, replace(batch, region=torch.tensor(region)))["region"]
    found.backward()
    assert found.item() == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in network.parameters())


def test_weights_and_switches(network, batch):
    found = terms(network, batch)
    total = found["spot"] + 0.25 * found["pathway"] + 0.25 * found["region"]
    torch.testing.assert_close(found["total"], total)
    off = terms(network, batch, replace(SMALL, loss=HiBioLossConfig(pathway=0.0, region=0.0)))
    assert off["pathway"] == off["region"] == 0
    torch.testing.assert_close(off["total"], found["spot"])
    bare = terms(network, replace(batch, overlap=None, pathways=None, region=None))
    assert bare["pathway"] == bare["region"] == 0
    off["total"].backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {name for name, p in network.named_parameters() if p.grad is not None} == trained  # for several processes


def test_two_ranks_are_one(network, batch):
    """The mean over ranks of terms, and of the gradients that gathered outputs give, is that of one process."""
    whole = terms(network, batch)
    network.zero_grad()
    whole["total"].backward()
    want = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    halves = [batch.apply(lambda x, half=half: x[half]) for half in (slice(0, 4), slice(4, 8))]
    outputs = [network(half) for half in halves]
    keys = PairOutputs(**{
        name: torch.cat([getattr(out, name) for out in outputs])
        for name in ("image", "gene", "predicted", "image_valid", "gene_valid", "region", "positive")
    })  # fmt: skip
    loss = HiBioLoss(SMALL, PATHWAYS)
    found = [
        loss(network, half, out, keys=keys, offset=offset)
        for half, out, offset in zip(halves, outputs, (0, 4), strict=True)
    ]
    for name, value in whole.items():
        torch.testing.assert_close((found[0][name] + found[1][name]) / 2, value)
    ((found[0]["total"] + found[1]["total"]) / 2).backward()
    for name, parameter in network.named_parameters():
        if name in want:
            torch.testing.assert_close(parameter.grad, want[name])


def test_a_batch_without_a_side_is_refused(network, batch):
    with pytest.raises(ValueError, match="`tokens`"):
        terms(network, replace(batch, tokens=None))
    with pytest.raises(ValueError, match="genes of pathways"):
        HiBioLoss(SMALL)(network, batch, network(batch))
