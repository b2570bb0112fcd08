from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.models.literal import linear, literal_block

from stalign.models import MINI, Features, GeneTable
from stalign.models.gene_encoders import AEGeneEncoder, FeatureEncoder, Table, TableEncoder, from_basis, gene_encoder
from stalign.models.tokens import Tokens


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("n_sections", [1, 3])
def test_from_basis_takes_the_matrix_of_the_own_section(n_sections):
    scores, matrices = torch.randn(7, 4, dtype=torch.float64), torch.randn(n_sections, 4, 5, dtype=torch.float64)
    section = torch.randint(0, n_sections, (7,))
    want = torch.stack([scores[i] @ matrices[section[i]] for i in range(7)])
    torch.testing.assert_close(from_basis(scores, matrices, section), want)


def test_table_on_a_basis_equals_the_table_on_the_expression():
    table = Table(20, 16).double()
    scores, basis = torch.randn(7, 4, dtype=torch.float64), torch.randn(3, 4, 20, dtype=torch.float64)
    section = torch.randint(0, 3, (7,))
    expression = torch.stack([scores[i] @ basis[section[i]] for i in range(7)])
    torch.testing.assert_close(
        table(scores, table.project(basis), section), table(expression, table.project(None), section)
    )


def test_genes_that_a_section_lacks_do_not_matter():
    table = Table(20, 16)
    basis = torch.randn(1, 4, 20)
    basis[:, :, 5:9] = 0
    scores, section = torch.randn(3, 4), torch.zeros(3, dtype=torch.long)
    before = table(scores, table.project(basis), section)
    with torch.no_grad():
        table.weight[5:9] = 1000.0
    torch.testing.assert_close(table(scores, table.project(basis), section), before)


def test_table_starts_close_to_an_isometry():
    """Distances between profiles over 3,000 genes keep their ratio within a few hundredths."""
    table = Table(3000, 512)
    x = torch.randn(40, 3000) * torch.rand(3000)
    ratio = torch.pdist(table(x, None, torch.zeros(40, dtype=torch.long)).detach()) / torch.pdist(x) / 512**0.5
    assert abs(ratio.mean() - 1) < 0.02
    assert ratio.std() < 0.05
    assert ratio.max() / ratio.min() < 1.4


def test_table_encoder_starts_as_a_cut():
    encoder = TableEncoder(GeneTable(), MINI).eval()
    z = torch.randn(3, 512)
    assert (encoder(z) == z.reshape(3, 8, 64)).all()


def test_ae_gene_against_a_literal_one(paper):
    encoder = AEGeneEncoder(paper.niche_gene, paper, 30).double().eval()
    x = torch.randn(3, 30, dtype=torch.float64)
    relu = lambda y: np.maximum(y, 0)  # noqa: E731
    y = relu(linear(relu(linear(x.numpy(), encoder.mlp[0])), encoder.mlp[2]))
    y = linear(y, encoder.mlp[4]).reshape(3, 2, 6)
    for block in encoder.blocks:
        y = literal_block(y, block)
    want = linear(relu(linear(y, encoder.out[0])), encoder.out[2])
    np.testing.assert_allclose(encoder(x).detach().numpy(), want)
    assert want.shape == (3, paper.n_tokens, paper.token_dim)


def test_conv_tokens_against_a_literal_one():
    """Token c is the feature vector folded by the kernel of c: sum over k of w[c, k] x[k + fold * j], plus a bias."""
    tokens = Tokens(12, n_tokens=2, token_dim=4, kind="conv").double()
    x = torch.randn(3, 12, dtype=torch.float64)
    weight, bias = tokens.layer.weight.detach(), tokens.layer.bias.detach()
    want = torch.zeros(3, 2, 4, dtype=torch.float64)
    for c in range(2):
        for j in range(4):
            want[:, c, j] = sum(weight[c, 0, k] * x[:, 3 * j + k] for k in range(3)) + bias[c]
    torch.testing.assert_close(tokens(x).detach(), want)


def test_conv_tokens_need_a_multiple():
    with pytest.raises(ValueError, match="tokens='linear'"):
        Tokens(10, n_tokens=2, token_dim=4, kind="conv")
    assert Tokens(10, n_tokens=2, token_dim=4, kind="linear")(torch.ones(3, 10)).shape == (3, 2, 4)


def test_features_of_the_wrong_width_are_an_error(paper):
    encoder = gene_encoder(Features(dim=8), paper, 30)
    assert isinstance(encoder, FeatureEncoder)
    assert encoder(torch.ones(3, 8)).shape == (3, 2, 8)
    with pytest.raises(ValueError, match=r"\(B, 8\).*\(3, 9\)"):
        encoder(torch.ones(3, 9))


def test_dropout_of_the_transformer_acts_in_training_only(mini):
    encoder = TableEncoder(mini.spot_gene, replace(mini, dropout=0.5))
    with torch.no_grad():
        encoder.blocks[0].contract.weight.normal_()
    z = torch.randn(3, 16)
    assert (encoder.train()(z) != encoder(z)).any()
    assert (encoder.eval()(z) == encoder(z)).all()
