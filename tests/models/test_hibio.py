from dataclasses import replace

import numpy as np
import pytest
import torch

from stalign.models.branches import ConvEncoder, Features
from stalign.models.gene_tokens import EOT, PAD, SOT, UNK, GeneTokens
from stalign.models.hibio import HiBioST, SentenceBatch
from stalign.models.hibio_config import HIBIO_CONFIGS, HIBIO_MINI, HIBIO_ST, SentenceSpec, TextTower
from stalign.models.kinds import config_of
from stalign.models.network import n_parameters
from stalign.models.pretrained import start_from_pretrained

GENES = tuple(f"G{i}" for i in range(20))
TEXT = TextTower(width=16, layers=2, heads=2, context=12)
SMALL = replace(
    HIBIO_MINI,
    image=Features(dim=6),
    text=TEXT,
    dim=8,
    head_hidden=10,
    sentence=SentenceSpec(length=8),
)


def sentences(n=5, length=8, seed=0):
    rng = np.random.default_rng(seed)
    genes = np.stack([rng.permutation(len(GENES))[:length] for _ in range(n)]).astype(np.int32)
    genes[1, 3:] = -1
    genes[2] = -1
    return genes


@pytest.fixture
def network():
    torch.manual_seed(0)
    return HiBioST(SMALL, n_genes=len(GENES)).eval()


def test_tokens_of_a_sentence():
    tokens = GeneTokens(("A", "B"), ("organ:brain",))
    assert (len(tokens), tokens.offset) == (7, 5)
    found, mask = tokens.encode(np.array([[1, 0], [-1, -1]]), [["organ:brain", "disease:?"], ["x", "organ:brain"]])
    assert found.tolist() == [[SOT, 4, UNK, 6, 5, EOT], [SOT, UNK, 4, EOT, PAD, PAD]]
    assert mask.tolist() == [[True] * 6, [True] * 4 + [False] * 2]
    assert tokens.words(found)[0] == ["[SOT]", "organ:brain", "[UNK]", "B", "A", "[EOT]"]


def test_a_text_that_does_not_fit_keeps_its_first_genes():
    tokens = GeneTokens(GENES)
    found, _ = tokens.encode(np.array([[5, 4, 3, 2]]), context=4)
    assert tokens.words(found) == [["[SOT]", "G5", "G4", "[EOT]"]]
    with pytest.raises(ValueError, match="context above 2"):
        tokens.encode(np.array([[5]]), context=2)


def test_wrong_tokens_are_refused():
    with pytest.raises(ValueError, match="'A' more than once"):
        GeneTokens(("A", "A"))
    with pytest.raises(ValueError, match="positions below 20"):
        GeneTokens(GENES).encode(np.array([[20]]))


@pytest.mark.parametrize(("causal", "pool"), [(True, "eot"), (False, "mean"), (True, "mean"), (False, "eot")])
def test_padding_makes_no_difference(causal, pool):
    torch.manual_seed(0)
    network = HiBioST(replace(SMALL, text=replace(TEXT, causal=causal, pool=pool)), len(GeneTokens(GENES))).eval()
    tokens, mask = GeneTokens(GENES).encode(sentences())
    together = network.embed_text(tokens, mask)
    assert together.shape == (5, 8)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(5))
    for row, genes in enumerate(sentences()):
        alone = network.embed_text(*GeneTokens(GENES).encode(genes[None]))
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_the_order_of_genes_matters(network):
    tokens = GeneTokens(GENES)
    one, other = tokens.encode(np.array([[1, 2, 3]])), tokens.encode(np.array([[3, 2, 1]]))
    assert not torch.allclose(network.embed_text(*one), network.embed_text(*other), atol=1e-4)


def test_shapes_of_a_batch(network):
    tokens, mask = GeneTokens(GENES).encode(sentences())
    overlap = torch.tensor([[0.3, 0], [0, 0], [0.2, 0.1], [0.4, 0], [0, 0]])
    valid = torch.tensor([True, True, True, False, True])
    batch = SentenceBatch(torch.randn(5, 6), tokens, mask, valid, overlap=overlap, sections=("a",))
    out = network(batch)
    assert (out.image.shape, out.gene.shape, out.predicted.shape) == ((5, 8), (5, 8), (5, 16))
    assert out.positive.tolist() == [True, False, True, False, False]
    assert (len(batch), len(batch.to("cpu")), batch.to("cpu").sections) == (5, 5, ("a",))
    assert network(SentenceBatch(tokens=tokens, mask=mask)).image is None


def test_patches_and_features_of_them_give_the_same():
    conv = ConvEncoder(channels=(4, 4, 8, 8))
    network = HiBioST(replace(SMALL, image=conv), 24).eval()
    patches = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    features = network.image_features(patches)
    assert features.shape == (3, 8)
    torch.testing.assert_close(network.embed_image(features), network.embed_image(patches))
    torch.testing.assert_close(network.embed_image(patches / 255), network.embed_image(patches))


def test_prototypes_are_means_of_gene_vectors(network):
    table = network.text_tower.table.weight
    got = network.prototypes(torch.tensor([4, 5, 6, 5]), torch.tensor([0, 3]))
    torch.testing.assert_close(got, torch.stack([table[4:7].mean(0), table[5]]))


def test_the_scale_starts_at_the_temperature_and_is_bounded(network):
    assert network.scale().item() == pytest.approx(1 / 0.07)
    network.logit_scale.data.fill_(9.0)
    assert network.scale().item() == pytest.approx(100)


def test_a_frozen_tower_with_packaged_weights_stays_as_it_is():
    network = HiBioST(HIBIO_MINI, n_genes=10)
    before = network.image_tower.conv_stem.weight.clone()
    start_from_pretrained(network)
    assert not torch.equal(network.image_tower.conv_stem.weight, before)
    assert not network.train().image_tower.training
    assert not any(p.requires_grad for p in network.image_tower.parameters())
    assert network.image_features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 424)


def test_sizes_of_the_configurations():
    assert list(HIBIO_CONFIGS) == ["hibio-st", "hibio-mini"]
    with torch.device("meta"):
        paper = n_parameters(HiBioST(HIBIO_ST, n_genes=26_000))
        wide = replace(HIBIO_ST.text, width=768)
        wider = n_parameters(HiBioST(replace(HIBIO_ST, text=wide), n_genes=26_000))
        mini = n_parameters(HiBioST(HIBIO_MINI, n_genes=4_000))
    assert 130e6 < paper < 145e6
    assert 185e6 < wider < 199e6  # 192 M in the paper
    assert mini < 4.5e6


def test_configurations_go_to_json_and_back():
    for config in HIBIO_CONFIGS.values():
        assert config_of(config.to_dict()) == config
    with pytest.raises(ValueError, match="`config.sentence`.*'lenght'.*'length'"):
        config_of(HIBIO_MINI.to_dict() | {"sentence": {"lenght": 3}})
    with pytest.raises(ValueError, match=r"text\.context.*Take 252"):
        replace(HIBIO_MINI, sentence=SentenceSpec())


@pytest.mark.parametrize("shape", [(2, 7), (2, 1, 8, 8), (2, 3, 8, 8)])
def test_wrong_images_are_refused(network, shape):
    with pytest.raises(ValueError, match=r"features \(B, 6\)"):
        network.embed_image(torch.zeros(shape))


def test_a_text_longer_than_the_context_is_refused(network):
    with pytest.raises(ValueError, match="at most 12 tokens"):
        network.embed_text(*GeneTokens(GENES).encode(np.arange(20)[None]))
