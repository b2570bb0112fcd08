from dataclasses import fields, replace

import pytest
import torch

from stalign.models import (
    MINI,
    ST_ALIGN,
    AlignmentLoss,
    Batch,
    ConvEncoder,
    LossConfig,
    Outputs,
    STAlign,
    TimmEncoder,
    n_parameters,
    n_parameters_of,
)

NAMES = ("spot_image", "spot_gene", "spot_fused", "niche_image", "niche_gene", "niche_fused")


def names_of(outputs):
    return {name for name in NAMES if getattr(outputs, name) is not None}


def rows(batch, index):
    keep = {f.name: getattr(batch, f.name) for f in fields(batch)}
    shared = ("image_mean", "image_std", "basis")
    return Batch(**{k: v if v is None or k in shared else v[index] for k, v in keep.items()})


def test_six_embeddings(mini, make_batch, stirred):
    outputs = stirred(mini)(make_batch(5))
    assert names_of(outputs) == set(NAMES)
    assert all(getattr(outputs, name).shape == (5, 16) for name in NAMES)


def test_six_embeddings_of_the_paper(paper, make_paper_batch, stirred):
    outputs = stirred(paper)(make_paper_batch(5))
    assert all(getattr(outputs, name).shape == (5, 10) for name in NAMES)


@pytest.mark.parametrize("level", ["spot", "niche"])
def test_embed_is_one_level_of_forward(mini, make_batch, stirred, level):
    network, batch = stirred(mini), make_batch()
    outputs, found = network(batch), network.embed(batch, level=level)
    for kind in ("fused", "image", "gene"):
        torch.testing.assert_close(getattr(found, kind), getattr(outputs, f"{level}_{kind}"))
    with pytest.raises(ValueError, match="level"):
        network.embed(batch, level="slide")


@pytest.mark.parametrize("level", ["spot", "niche"])
def test_bases_are_made_once_for_batches_of_the_same_sections(mini, make_batch, stirred, level):
    network, batch = stirred(replace(mini, input=replace(mini.input, rank=3))), make_batch()
    bases = network.bases(batch.basis, level=level)
    found = network.embed(replace(batch, basis=torch.full_like(batch.basis, torch.nan)), level=level, bases=bases)
    for kind, expected in network.embed(batch, level=level)._asdict().items():
        torch.testing.assert_close(getattr(found, kind), expected)


def test_embed_needs_one_level_only(mini, make_batch, stirred):
    batch = make_batch()
    alone = replace(batch, spot_image=None, spot_gene=None)
    torch.testing.assert_close(stirred(mini).embed(alone).fused, stirred(mini).embed(batch).fused)


def test_an_embedding_does_not_depend_on_its_batch(mini, make_batch, stirred):
    network, batch = (
        stirred(mini).double(),
        make_batch(7, n_sections=3).apply(lambda t: t.double() if t.is_floating_point() else t),
    )
    together = network(batch)
    for index in ([0], [6, 2], [1, 3, 5]):
        apart = network(rows(batch, index))
        for name in NAMES:
            torch.testing.assert_close(getattr(together, name)[index], getattr(apart, name))


def test_at_the_start_the_fused_embedding_is_the_projected_expression(mini, make_batch):
    network, batch = STAlign(mini, 30).eval(), make_batch()
    expression = torch.stack([batch.niche_gene[i] @ batch.basis[batch.section[i]] for i in range(len(batch))])
    want = expression @ network.gene_table.weight
    outputs = network(batch)
    torch.testing.assert_close(outputs.niche_fused, want)
    torch.testing.assert_close(outputs.niche_gene, want)


def test_mini_starts_close_to_an_isometry():
    """The whole gene path of `stalign-mini`, from scores to the fused embedding, keeps distances within 20 %."""
    torch.manual_seed(0)
    network = STAlign(MINI, 2000).eval()
    basis = torch.linalg.qr(torch.randn(2000, 50))[0].T[None]  # orthonormal, as components are
    scores = torch.randn(40, 50) * torch.linspace(3, 0.3, 50)
    batch = Batch(section=torch.zeros(40, dtype=torch.long), niche_gene=scores, basis=basis)
    with torch.no_grad():
        ratio = torch.pdist(network.embed(batch).fused) / torch.pdist(scores) / 512**0.5
    assert ratio.min() > 0.8
    assert ratio.max() < 1.2
    assert abs(ratio.mean() - 1) < 0.05


def test_whatever_was_learned_the_expression_keeps_its_distances(mini, make_batch, stirred):
    """The Gram matrices of scores and embedding are the same, also with a table that lost most of its directions."""
    network, batch = stirred(replace(mini, input=replace(mini.input, rank=3))), make_batch(20)
    for _ in range(2):
        found = network.embed(batch).expression
        for section in (0, 1):
            own = batch.section == section
            want = batch.niche_gene[own] @ batch.niche_gene[own].T
            torch.testing.assert_close(found[own] @ found[own].T, want, atol=1e-5, rtol=1e-5)
        spot = network.embed(batch, level="spot").expression
        torch.testing.assert_close(spot.norm(dim=1), batch.spot_gene.norm(dim=1))
        with torch.no_grad():
            network.gene_table.weight[:, 2:] *= 1e-3
    assert network.embed(replace(batch, niche_gene=None)).expression is None
    assert stirred(mini).embed(batch).expression is None  # a rank of 50 does not fit into a width of 16


def test_the_expression_of_two_sections_on_one_basis_has_one_direction(mini, make_batch, stirred):
    """A basis that is turned, and the scores with it, gives the same embedding: sections can be compared."""
    network, batch = stirred(replace(mini, input=replace(mini.input, rank=3))), make_batch(8, n_sections=1)
    basis = torch.linalg.qr(batch.basis[0].T)[0].T[None]
    turned = torch.linalg.qr(torch.randn(3, 3))[0]
    other = replace(batch, niche_gene=batch.niche_gene @ turned.T, spot_gene=None, basis=turned @ basis)
    want = network.embed(replace(batch, basis=basis)).expression
    torch.testing.assert_close(network.embed(other).expression, want, atol=1e-5, rtol=1e-5)


def test_dense_expression_equals_scores_on_a_basis(mini, make_batch, stirred):
    network, batch = stirred(mini), make_batch()
    rows = range(len(batch))
    dense = {
        name: torch.stack([getattr(batch, name)[i] @ batch.basis[batch.section[i]] for i in rows])
        for name in ("spot_gene", "niche_gene")
    }
    got, want = network(replace(batch, basis=None, **dense)), network(batch)
    torch.testing.assert_close(got.niche_fused, want.niche_fused)


def test_paper_network_takes_a_basis_for_its_niche_genes(paper, make_paper_batch, stirred):
    network, batch = stirred(paper), make_paper_batch()
    basis, scores = torch.randn(1, 4, 30), torch.randn(6, 4)
    got = network(replace(batch, niche_gene=scores, basis=basis))
    want = network(replace(batch, niche_gene=scores @ basis[0]))
    torch.testing.assert_close(got.niche_fused, want.niche_fused)
    torch.testing.assert_close(got.spot_fused, want.spot_fused)


@pytest.mark.parametrize("which", ["mini", "paper"])
def test_missing_modalities(which, request, make_batch, make_paper_batch, stirred):
    network = stirred(request.getfixturevalue(which))
    batch = make_batch() if which == "mini" else make_paper_batch()
    genes = network(replace(batch, spot_image=None, niche_image=None))
    images = network(replace(batch, spot_gene=None, niche_gene=None))
    assert names_of(genes) == {"spot_gene", "spot_fused", "niche_gene", "niche_fused"}
    assert names_of(images) == {"spot_image", "spot_fused", "niche_image", "niche_fused"}
    whole = network(batch)
    torch.testing.assert_close(genes.niche_gene, whole.niche_gene)
    torch.testing.assert_close(images.niche_image, whole.niche_image)
    assert not torch.allclose(genes.niche_fused, whole.niche_fused)
    with pytest.raises(ValueError, match="spot level"):
        network(Batch(section=batch.section))


@pytest.mark.parametrize("train", [False, True])
def test_spots_without_a_modality_equal_batches_without_it(mini, make_batch, stirred, train):
    network, batch = stirred(replace(mini, dropout=0.0)), make_batch(6)
    image, gene = torch.tensor([1, 1, 1, 1, 0, 0]).bool(), torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    spoilt = batch.niche_gene.clone()
    spoilt[2] = torch.nan  # what stands in rows that are not valid is ignored
    network.train(train)
    got = network(replace(batch, niche_gene=spoilt, image_valid=image, gene_valid=gene))
    network.eval() if not train else network.train()
    with_image = network(rows(batch, [0, 1, 2, 3]))  # in training, batch norm sees these four only
    without = network(replace(rows(batch, [4, 5]), spot_image=None, niche_image=None))
    torch.testing.assert_close(got.niche_image[:4], with_image.niche_image)
    torch.testing.assert_close(got.niche_fused[[0, 1, 3]], with_image.niche_fused[[0, 1, 3]])
    torch.testing.assert_close(got.niche_fused[4:], without.niche_fused)
    assert got.niche_fused.isfinite().all()


def test_colours_are_those_of_the_section(mini, make_batch, stirred):
    """Another stain, the same embedding: an affine change of colour is undone by the section's statistics."""
    network, batch = stirred(mini), make_batch()
    image = batch.niche_image.float() / 255
    batch = replace(batch, niche_image=image)
    slope, shift = torch.rand(3) + 0.5, torch.rand(3)
    other = replace(
        batch,
        niche_image=image * slope[:, None, None] + shift[:, None, None],
        image_mean=batch.image_mean * slope + shift,
        image_std=batch.image_std * slope,
    )
    torch.testing.assert_close(network.embed(other).image, network.embed(batch).image, rtol=1e-4, atol=1e-5)
    fixed = stirred(replace(mini, input=replace(mini.input, stain="imagenet")))
    assert not torch.allclose(fixed.embed(other).image, fixed.embed(batch).image, rtol=1e-2)


def test_wrong_batches_are_named(mini, make_batch):
    network, batch = STAlign(mini, 30).eval(), make_batch()
    with pytest.raises(ValueError, match="image_mean"):
        network(replace(batch, image_mean=None))
    with pytest.raises(ValueError, match=r"basis.*30.*\(2, 3, 29\)"):
        network(replace(batch, basis=batch.basis[:, :, 1:]))
    with pytest.raises(ValueError, match=r"spot_gene.*\(B, 3\).*\(6, 2\)"):
        network(replace(batch, spot_gene=batch.spot_gene[:, 1:]))
    with pytest.raises(ValueError, match=r"niche_gene.*\(B, 30\)"):
        network.embed(replace(batch, basis=None))
    with pytest.raises(ValueError, match="gene"):
        STAlign(mini, 0)


@pytest.mark.parametrize("which", ["mini", "paper"])
def test_gradients_reach_every_parameter(which, request, make_batch, make_paper_batch, stirred):
    network = stirred(request.getfixturevalue(which)).train()
    batch = make_batch() if which == "mini" else make_paper_batch()
    AlignmentLoss(network.config.loss)(network(batch))["total"].backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_gradients_by_finite_differences(mini, make_batch, stirred):
    """The whole way from parameters to the objective, in float64."""
    network = stirred(replace(mini, dropout=0.0)).double()
    batch = make_batch(4).apply(lambda t: t.double() if t.is_floating_point() else t)
    loss = AlignmentLoss(LossConfig(temperature=0.5))
    loss(network(batch))["total"].backward()
    torch.manual_seed(1)
    for name, part in network.named_children():
        directions = [torch.randn_like(parameter) for parameter in part.parameters()]
        want = sum((p.grad * d).sum().item() for p, d in zip(part.parameters(), directions, strict=True))
        sides = []
        for step in (1e-6, -1e-6):
            moved = {
                f"{name}.{key}": p + step * d for (key, p), d in zip(part.named_parameters(), directions, strict=True)
            }
            with torch.no_grad():
                sides.append(loss(torch.func.functional_call(network, moved, (batch,)))["total"].item())
        assert abs(want) > 1e-4, name
        assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(want, rel=1e-4), name


@pytest.mark.parametrize("adaptive", [True, False])
def test_without_adaptive_encoders_only_fusion_tokens_and_heads_learn(mini, make_batch, stirred, adaptive):
    network = stirred(replace(mini, adaptive=adaptive)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = [p for p in network.parameters() if p.requires_grad]
    AlignmentLoss(mini.loss)(network(make_batch()))["total"].backward()
    torch.optim.SGD(trained, lr=1.0).step()
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    encoders = {name for name in changed if "encoders" in name or "table" in name} - {
        f"image_encoders.{level}.tokens.layer.{part}" for level in ("spot", "niche") for part in ("weight", "bias")
    }
    assert bool(encoders) is adaptive
    assert any(name.startswith("fusions") for name in changed)
    assert any("running_mean" in name for name in changed) is adaptive


def test_frozen_image_model_stays(paper, make_paper_batch):
    config = replace(paper, niche_image=TimmEncoder("resnet10t", features=512, tokens="linear"))
    network = STAlign(config, 30).train()
    batch = replace(make_paper_batch(3), niche_image=torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8))
    before = network.image_encoders["niche"].backbone.state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    AlignmentLoss(config.loss)(network(batch))["total"].backward()
    backbone = network.image_encoders["niche"].backbone
    assert all(p.grad is None for p in backbone.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())
    thawed = STAlign(replace(config, niche_image=replace(config.niche_image, frozen=False)), 30)
    assert all(p.requires_grad for p in thawed.parameters())


def test_parameters_of_the_paper():
    """METHOD.md's counts of the authors' code, in millions; the two niche heads are ours, since eq. 10 needs them."""
    with torch.device("meta"):
        network = STAlign(ST_ALIGN, 4384)
    millions = {name: n_parameters(module) / 1e6 for name, module in network.named_children()}
    assert n_parameters(network.gene_encoders["niche"]) / 1e6 == pytest.approx(21.0, abs=0.1)
    assert n_parameters(network.image_encoders["spot"]) / 1e6 == pytest.approx(24.5, abs=0.1)
    assert millions["fusions"] == pytest.approx(4.4, abs=0.05)
    assert millions["heads"] == pytest.approx(42.0 * 6 / 4, abs=0.1)
    ours = n_parameters(network.heads["niche_image"]) + n_parameters(network.heads["niche_gene"])
    assert (n_parameters(network) - ours) / 1e6 == pytest.approx(92, abs=0.5)
    assert network.gene_table is None
    assert n_parameters_of(ST_ALIGN, 4384) == n_parameters(network)


def test_shapes_of_the_paper():
    with torch.device("meta"):
        network = STAlign(ST_ALIGN, 4384).eval()
        image = torch.zeros(2, 3, 28, 28, dtype=torch.uint8)
        batch = Batch(
            section=torch.zeros(2, dtype=torch.long),
            spot_image=image,
            niche_image=torch.zeros(2, 1024),
            spot_gene=torch.zeros(2, 512),
            niche_gene=torch.zeros(2, 4384),
        )
        assert network._image_tokens(batch, "niche").shape == (2, 8, 512)
        assert network._gene_tokens(batch, "niche", None).shape == (2, 8, 512)
        outputs = network(batch)
    assert all(getattr(outputs, name).shape == (2, 1024) for name in NAMES)


def test_upsampled_spots_are_an_option():
    """The workshop paper resizes the spot patch to 224 px and uses the usual stem."""
    config = replace(
        ST_ALIGN,
        spot_image=replace(ST_ALIGN.spot_image, stem="imagenet"),
        input=replace(ST_ALIGN.input, spot_px=224),
    )
    assert isinstance(config.spot_image, ConvEncoder)
    with torch.device("meta"):
        encoder = STAlign(config, 4384).eval().image_encoders["spot"]
        assert encoder(torch.zeros(1, 3, 224, 224)).shape == (1, 8, 512)


def test_mini_fits_the_package():
    """Fewer than 25 MB in half precision with a vocabulary of 18,000 genes."""
    assert 2 * n_parameters_of(MINI, 18_000) < 25e6


def test_batches_and_outputs_move_whole(make_batch, mini):
    batch = make_batch()
    moved = batch.to("meta")
    assert len(moved) == len(batch) == 6
    assert all(v is None or v.is_meta for v in vars(moved).values())
    outputs = STAlign(mini, 30).eval()(replace(batch, spot_image=None, niche_image=None))
    doubled = outputs.apply(lambda x: torch.cat([x, x]))
    assert isinstance(doubled, Outputs)
    assert doubled.spot_image is None
    assert doubled.niche_fused.shape == (12, 16)
