from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.literal import gelu, layer_norm, linear, literal_attention, literal_block

from stalign.models.attention import Attention, Block
from stalign.models.fusion import ABFN, Fusion

B, S = 3, 2


def literal_stream(x, context, stream):
    z = literal_attention(layer_norm(x, stream.norm_query), layer_norm(context, stream.norm_context), stream.attention)
    return linear(gelu(linear(z, stream.project[0])), stream.project[2])


def literal_abfn(image, gene, abfn):
    h = np.concatenate([literal_stream(image, gene, abfn.image), literal_stream(gene, image, abfn.gene)], axis=-1)
    return layer_norm(h, abfn.norm)


def shaken(module):
    """A module in float64 whose zeros and ones hold numbers too."""
    module = module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tokens():
    return torch.randn(B, S, 8, dtype=torch.float64), torch.randn(B, S, 8, dtype=torch.float64)


@pytest.mark.parametrize(("n_heads", "head_dim"), [(1, 8), (2, 4), (3, 5)])
def test_attention_against_the_equation(tokens, n_heads, head_dim):
    attention = shaken(Attention(8, n_heads=n_heads, head_dim=head_dim, dropout=0.5))
    x, context = tokens
    context = torch.cat([context, x], dim=1)  # another number of tokens
    got = attention(x, context).detach().numpy()
    np.testing.assert_allclose(got, literal_attention(x.numpy(), context.numpy(), attention))


def test_block_against_a_literal_one(tokens):
    block = shaken(Block(8, n_heads=2, head_dim=5, hidden=7, dropout=0.5))
    np.testing.assert_allclose(block(tokens[0]).detach().numpy(), literal_block(tokens[0].numpy(), block))


def test_block_starts_as_the_identity_where_asked(tokens):
    block = Block(8, n_heads=2, head_dim=4, hidden=7, dropout=0.0, identity=True).double()
    assert (block(tokens[0]) == tokens[0]).all()


def test_abfn_against_equations_7_to_9(tokens, paper):
    abfn = shaken(ABFN(paper))
    got = abfn(*tokens)
    assert got.shape == (B, S, 8)
    np.testing.assert_allclose(got.detach().numpy(), literal_abfn(*(x.numpy() for x in tokens), abfn))


def test_abfn_gradients_by_finite_differences(tokens, paper):
    abfn = shaken(ABFN(paper))
    image, gene = (x[:2].clone().requires_grad_() for x in tokens)
    weights = [abfn.image.attention.query.weight, abfn.gene.attention.value.weight, abfn.image.project[0].weight]
    assert torch.autograd.gradcheck(lambda i, g, *_: abfn(i, g), (image, gene, *weights))


def test_dropout_acts_in_training_only(tokens, paper):
    abfn = shaken(ABFN(replace(paper, dropout=0.5)))
    assert (abfn(*tokens) == abfn(*tokens)).all()
    abfn.train()
    assert (abfn(*tokens) != abfn(*tokens)).any()


def test_concatenation_against_a_literal_one(tokens, paper):
    fusion = shaken(Fusion(replace(paper, fusion="concat")))
    image, gene = (x.numpy() for x in tokens)
    want = layer_norm(linear(np.concatenate([image, gene], -1), fusion.operator.project), fusion.operator.norm)
    np.testing.assert_allclose(fusion(*tokens, None, None).detach().numpy(), want)


@pytest.mark.parametrize("kind", ["abfn", "concat"])
def test_residual_fusion_starts_at_the_gene_tokens(tokens, mini, kind):
    fusion = Fusion(replace(mini, fusion=kind)).double()
    assert (fusion(*tokens, None, None) == tokens[1]).all()


def test_residual_fusion_adds_a_correction(tokens, mini):
    fusion = shaken(Fusion(mini))
    image, gene = (x.numpy() for x in tokens)
    want = gene + linear(literal_abfn(image, gene, fusion.operator), fusion.out)
    np.testing.assert_allclose(fusion(*tokens, None, None).detach().numpy(), want)


def test_residual_fusion_without_a_modality_is_the_other(tokens, mini):
    fusion = shaken(Fusion(mini))
    image, gene = tokens
    assert (fusion(image, None, None, None) == image).all()
    assert (fusion(None, gene, None, None) == gene).all()


def test_paper_fusion_without_a_modality_attends_to_itself(tokens, paper):
    fusion = shaken(Fusion(paper))
    image, gene = tokens
    for one, got in ((image, fusion(image, None, None, None)), (gene, fusion(None, gene, None, None))):
        np.testing.assert_allclose(got.detach().numpy(), literal_abfn(one.numpy(), one.numpy(), fusion.operator))


@pytest.mark.parametrize("which", ["mini", "paper"])
def test_rows_without_a_modality_equal_batches_without_it(tokens, which, request):
    fusion = shaken(Fusion(request.getfixturevalue(which)))
    image, gene = tokens
    has_image, has_gene = torch.tensor([True, False, True]), torch.tensor([True, True, False])
    got = fusion(image, gene, has_image, has_gene)
    torch.testing.assert_close(got[:1], fusion(image[:1], gene[:1], None, None))
    torch.testing.assert_close(got[1:2], fusion(None, gene[1:2], None, None))
    torch.testing.assert_close(got[2:], fusion(image[2:], None, None, None))


def test_fusion_of_nothing_is_an_error(mini):
    with pytest.raises(ValueError, match="image or genes"):
        Fusion(mini)(None, None, None, None)


def test_linear_projections_of_the_papers(mini, tokens):
    abfn = shaken(ABFN(replace(mini, fusion_hidden=0)))
    image, gene = tokens
    streams = [
        literal_attention(layer_norm(x, s.norm_query), layer_norm(y, s.norm_context), s.attention)
        @ s.project.weight.detach().numpy().T
        for x, y, s in ((image.numpy(), gene.numpy(), abfn.image), (gene.numpy(), image.numpy(), abfn.gene))
    ]
    expected = layer_norm(np.concatenate(streams, axis=-1), abfn.norm)
    np.testing.assert_allclose(abfn(image, gene).detach().numpy(), expected)
    with pytest.raises(ValueError, match="fusion_hidden"):
        replace(mini, fusion_hidden=-1)
