from dataclasses import replace

import numpy as np
import pytest
import torch

from stalign.models import AlignmentLoss, LossConfig, Outputs, info_nce, shared_niches

B, D, TAU = 5, 4, 0.3


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def literal_info_nce(query, keys, tau, *, positive_in_denominator=True, allowed=None):
    """Eq. 10 one way, term by term; `allowed[i, j]` says whether key j is a negative of query i."""
    query, keys = unit(query), unit(keys)
    total = 0.0
    for i in range(len(query)):
        positive = np.exp(query[i] @ keys[i] / tau)
        denominator = positive if positive_in_denominator else 0.0
        for j in range(len(keys)):
            if j != i and (allowed is None or allowed[i, j]):
                denominator += np.exp(query[i] @ keys[j] / tau)
        total -= np.log(positive / denominator)
    return total / len(query)


def tensors(rng, *shape, n=1):
    made = [torch.tensor(rng.normal(size=shape), dtype=torch.float64, requires_grad=True) for _ in range(n)]
    return made if n > 1 else made[0]


@pytest.fixture
def outputs(rng):
    return Outputs(*tensors(rng, B, D, n=6))


@pytest.mark.parametrize("positive_in_denominator", [True, False])
def test_info_nce_against_the_equation(rng, positive_in_denominator):
    query, keys = tensors(rng, B, D, n=2)
    got = info_nce(query, keys, temperature=TAU, positive_in_denominator=positive_in_denominator)
    want = literal_info_nce(
        query.detach().numpy(), keys.detach().numpy(), TAU, positive_in_denominator=positive_in_denominator
    )
    assert got.item() == pytest.approx(want)


@pytest.mark.parametrize("given", [False, True])
def test_a_row_of_zeros_has_no_gradient_that_drowns_the_others(rng, given):
    query, keys = (x.detach() for x in tensors(rng, B, D, n=2))
    query[0] = 0  # a spot without counts in a residual network at its start
    query.requires_grad_(True)
    negatives = tensors(rng, B, 5, D) if given else None
    info_nce(query, keys, temperature=0.1, negatives=negatives).backward()
    assert torch.isfinite(query.grad).all() and query.grad[0].norm() < 100


def test_info_nce_of_hand_computed_case():
    query = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    got = info_nce(query, query, temperature=1.0)
    assert got.item() == pytest.approx(-np.log(np.e / (np.e + 1)))
    arxiv = info_nce(query, query, temperature=1.0, positive_in_denominator=False)
    assert arxiv.item() == pytest.approx(-1.0)  # -log(e / 1): it can be negative


def test_given_negatives_against_the_equation(rng):
    query, keys = tensors(rng, B, D, n=2)
    negatives = tensors(rng, B, 5, D)
    got = info_nce(query, keys, temperature=TAU, negatives=negatives)
    q, k, n = (unit(x.detach().numpy()) for x in (query, keys, negatives))
    want = 0.0
    for i in range(B):
        positive = np.exp(q[i] @ k[i] / TAU)
        want -= np.log(positive / (positive + sum(np.exp(q[i] @ n[i, j] / TAU) for j in range(5)))) / B
    assert got.item() == pytest.approx(want)


def test_given_negatives_of_no_information_cost_log_six():
    same = torch.ones(3, D)
    got = info_nce(same, same, temperature=0.1, negatives=torch.ones(3, 5, D))
    assert got.item() == pytest.approx(np.log(6), abs=1e-5)


def test_negatives_that_do_not_count(rng):
    query, keys = tensors(rng, B, D, n=2)
    negatives = tensors(rng, B, 3, D)
    valid = torch.tensor([[True, True, False]] * B)
    got = info_nce(query, keys, temperature=TAU, negatives=negatives, negatives_valid=valid)
    assert got.item() == pytest.approx(info_nce(query, keys, temperature=TAU, negatives=negatives[:, :2]).item())


def test_excluded_pairs_are_no_negatives(rng):
    query, keys = tensors(rng, B, D, n=2)
    exclude = torch.zeros(B, B, dtype=torch.bool)
    exclude[0, 1] = exclude[1, 0] = exclude[3, 2] = True
    exclude.fill_diagonal_(True)  # must not touch the positives
    for inside in (True, False):
        got = info_nce(query, keys, temperature=TAU, exclude=exclude, positive_in_denominator=inside)
        want = literal_info_nce(
            query.detach().numpy(),
            keys.detach().numpy(),
            TAU,
            allowed=~exclude.numpy(),
            positive_in_denominator=inside,
        )
        assert got.item() == pytest.approx(want)


def test_spots_that_do_not_count_are_neither_queries_nor_keys(rng):
    query, keys = tensors(rng, B, D, n=2)
    valid = torch.tensor([True, False, True, True, False])
    got = info_nce(query, keys, temperature=TAU, query_valid=valid, keys_valid=valid)
    got.backward()
    rows = valid.numpy()
    want = literal_info_nce(query.detach().numpy()[rows], keys.detach().numpy()[rows], TAU)
    assert got.item() == pytest.approx(want)
    assert (query.grad[~valid] == 0).all()
    assert (keys.grad[~valid] == 0).all()


@pytest.mark.parametrize("positive_in_denominator", [True, False])
def test_no_pair_gives_zero_and_a_gradient_of_zero(rng, positive_in_denominator):
    query, keys = tensors(rng, 3, D, n=2)
    none = torch.zeros(3, dtype=torch.bool)
    loss = info_nce(
        query,
        keys,
        temperature=TAU,
        query_valid=none,
        keys_valid=none,
        positive_in_denominator=positive_in_denominator,
    )
    loss.backward()
    assert loss.item() == 0
    assert (query.grad == 0).all()


def test_query_without_negatives_is_left_out_where_the_positive_is_outside(rng):
    query, keys = tensors(rng, 3, D, n=2)
    exclude = torch.tensor([[False, True, True], [False, False, False], [False, False, False]])
    got = info_nce(query, keys, temperature=TAU, exclude=exclude, positive_in_denominator=False)
    got.backward()
    q, k = unit(query.detach().numpy()), unit(keys.detach().numpy())
    s = np.exp(q @ k.T / TAU)
    want = -(np.log(s[1, 1] / (s[1, 0] + s[1, 2])) + np.log(s[2, 2] / (s[2, 0] + s[2, 1]))) / 2
    assert got.item() == pytest.approx(want)
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize("case", ["plain", "outside", "negatives", "masked"])
def test_gradients_by_finite_differences(rng, case):
    query, keys = tensors(rng, B, D, n=2)
    valid = torch.tensor([True, False, True, True, True])
    more = {
        "plain": {},
        "outside": {"positive_in_denominator": False},
        "negatives": {"negatives": tensors(rng, B, 2, D)},
        "masked": {"query_valid": valid, "keys_valid": valid, "exclude": torch.eye(B, dtype=torch.bool).roll(1, 0)},
    }[case]
    tau = torch.tensor(TAU, dtype=torch.float64, requires_grad=True)
    inputs = [query, keys, tau]
    if case == "negatives":
        inputs.append(more.pop("negatives"))

    def loss(q, k, t, n=None):
        return info_nce(q, k, temperature=t, negatives=n, **more)

    assert torch.autograd.gradcheck(loss, inputs)


def test_keys_of_several_ranks_give_the_mean_over_all(rng):
    query, keys = tensors(rng, 6, D, n=2)
    valid = torch.tensor([True, True, False, True, True, True])  # one pair less on the second rank
    exclude = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.3
    for inside in (True, False):
        whole = info_nce(
            query,
            keys,
            temperature=TAU,
            query_valid=valid,
            keys_valid=valid,
            exclude=exclude,
            positive_in_denominator=inside,
        )
        parts = [
            info_nce(
                query[at : at + 2],
                keys,
                temperature=TAU,
                offset=at,
                query_valid=valid[at : at + 2],
                keys_valid=valid,
                exclude=exclude[at : at + 2],
                positive_in_denominator=inside,
            )
            for at in (0, 2, 4)
        ]
        assert torch.stack(parts).mean().item() == pytest.approx(whole.item())


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="offset 2"):
        info_nce(torch.ones(3, 2), torch.ones(4, 2), temperature=1.0, offset=2)
    with pytest.raises(ValueError, match="queries"):
        info_nce(torch.ones(3, 2), torch.ones(3, 5), temperature=1.0)


def literal_total(outputs, tau, l1, l2, *, inside=True):
    o = {name: getattr(outputs, name).detach().numpy() for name in Outputs.__dataclass_fields__ if name[-5:] != "valid"}

    def nce(a, b):
        return literal_info_nce(o[a], o[b], tau, positive_in_denominator=inside)

    spot = (nce("spot_image", "spot_gene") + nce("spot_gene", "spot_image")) / 2
    niche = (nce("niche_image", "niche_gene") + nce("niche_gene", "niche_image")) / 2
    cross = nce("spot_fused", "niche_fused")
    return {"spot": spot, "niche": niche, "cross": cross, "total": l1 * spot + l2 * niche + (1 - l1 - l2) * cross}


@pytest.mark.parametrize(("l1", "l2", "inside"), [(0.4, 0.3, True), (0.3, 0.3, True), (0.4, 0.3, False)])
def test_the_whole_objective(outputs, l1, l2, inside):
    config = LossConfig(temperature=TAU, lambda_spot=l1, lambda_niche=l2, positive_in_denominator=inside)
    got = AlignmentLoss(config)(outputs)
    want = literal_total(outputs, TAU, l1, l2, inside=inside)
    assert {name: term.item() for name, term in got.items()} == pytest.approx(want)


def test_directions_are_options(outputs):
    one_way = AlignmentLoss(LossConfig(symmetric=False))(outputs)
    image, gene = outputs.spot_image.detach().numpy(), outputs.spot_gene.detach().numpy()
    assert one_way["spot"].item() == pytest.approx(literal_info_nce(image, gene, 0.1))
    both = AlignmentLoss(LossConfig(symmetric_cross=True))(outputs)
    spot, niche = outputs.spot_fused.detach().numpy(), outputs.niche_fused.detach().numpy()
    want = (literal_info_nce(spot, niche, 0.1) + literal_info_nce(niche, spot, 0.1)) / 2
    assert both["cross"].item() == pytest.approx(want)


def test_terms_without_pairs_are_zero_and_the_rest_stays(outputs):
    whole = AlignmentLoss(LossConfig())(outputs)
    genes = replace(outputs, spot_image=None, niche_image=None)
    got = AlignmentLoss(LossConfig())(genes)
    assert got["spot"].item() == got["niche"].item() == 0
    assert got["cross"].item() == pytest.approx(whole["cross"].item())
    assert got["total"].item() == pytest.approx(0.3 * whole["cross"].item())
    got["total"].backward()


def test_pairs_without_one_half_are_left_out(outputs):
    image, gene = torch.tensor([True, True, False, True, True]), torch.tensor([True, True, True, False, True])
    got = AlignmentLoss(LossConfig())(replace(outputs, image_valid=image, gene_valid=gene))
    rows = [0, 1, 4]
    kept = outputs.apply(lambda x: x[rows])
    assert got["spot"].item() == pytest.approx(literal_total(kept, 0.1, 0.4, 0.3)["spot"])
    assert got["niche"].item() == pytest.approx(literal_total(kept, 0.1, 0.4, 0.3)["niche"])
    assert got["cross"].item() == pytest.approx(literal_total(outputs, 0.1, 0.4, 0.3)["cross"])


def test_cluster_negatives_as_outputs(outputs, rng):
    negatives = Outputs(*tensors(rng, B * 5, D, n=6))
    loss = AlignmentLoss(LossConfig(negatives="cluster", symmetric=False))
    got = loss(outputs, negatives=negatives)
    want = info_nce(
        outputs.spot_image,
        outputs.spot_gene,
        temperature=0.1,
        negatives=torch.stack([negatives.spot_gene[i * 5 : i * 5 + 5] for i in range(B)]),
    )
    assert got["spot"].item() == pytest.approx(want.item())
    with pytest.raises(ValueError, match="cluster"):
        loss(outputs)
    with pytest.raises(ValueError, match="in_batch"):
        AlignmentLoss(LossConfig())(outputs, negatives=negatives)


def test_ranks_together_give_the_loss_and_gradients_of_one(rng):
    whole = Outputs(*tensors(rng, 6, D, n=6))
    loss = AlignmentLoss(LossConfig())
    (want,) = torch.autograd.grad(loss(whole)["total"], whole.niche_gene)
    parts = [loss(whole.apply(lambda x, a=a: x[a : a + 3]), keys=whole, offset=a)["total"] for a in (0, 3)]
    total = torch.stack(parts).mean()
    assert total.item() == pytest.approx(loss(whole)["total"].item())
    (got,) = torch.autograd.grad(total, whole.niche_gene)
    torch.testing.assert_close(got, want)


def test_learned_temperature_is_learned_and_kept_in_range(outputs):
    loss = AlignmentLoss(LossConfig(learn_temperature=True))
    assert loss.temperature.item() == pytest.approx(0.1)
    loss(outputs)["total"].backward()
    assert loss.log_temperature.grad != 0
    with torch.no_grad():
        loss.log_temperature.fill_(-20.0)
    loss(outputs)
    assert loss.temperature.item() == pytest.approx(0.01)
    assert list(AlignmentLoss(LossConfig()).parameters()) == []


def test_half_precision_is_computed_in_single(rng):
    query, keys = (x.detach().bfloat16() for x in tensors(rng, B, D, n=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = info_nce(query, keys, temperature=0.01)
    assert got.dtype == torch.float32
    mixed = info_nce(query.float(), keys, temperature=0.01, negatives=keys[:, None].expand(-1, 3, -1))
    assert mixed.dtype == torch.float32 and torch.isfinite(mixed)
    torch.testing.assert_close(info_nce(query.float(), keys, temperature=0.01), got)
    assert got.item() == pytest.approx(info_nce(query.double(), keys.double(), temperature=0.01).item(), rel=1e-4)


def test_shared_niches(rng):
    members = torch.tensor(rng.integers(-1, 12, size=(9, 4)))
    others = torch.tensor(rng.integers(-1, 12, size=(7, 4)))
    got = shared_niches(members, others)
    for i in range(9):
        for j in range(7):
            assert bool(got[i, j]) == bool((set(members[i].tolist()) & set(others[j].tolist())) - {-1})
    assert (shared_niches(members) == shared_niches(members).T).all()
