from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from safetensors.torch import save_file

from stalign.encoders import get
from stalign.encoders.scgpt import ScGPT, ScGPTConfig, bin_values, cell_rng, embed, tokenise
from stalign.encoders.scgpt_files import load

CONFIG = ScGPTConfig(n_tokens=120, embsize=16, nhead=2, d_hid=24, nlayers=2, cls_id=118)


@pytest.fixture(scope="module")
def model() -> ScGPT:
    torch.manual_seed(0)
    network = ScGPT(CONFIG).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network


@pytest.fixture(scope="module")
def counts() -> sp.csr_matrix:
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.6, (12, 120)).astype(np.float32)
    dense[:, 117:] = 0
    dense[3] = 0  # an empty cell
    dense[5, 8:] = 0  # a short one
    dense[7] = dense[6]
    return sp.csr_matrix(dense)


NAMES = [f"cell-{i}" for i in range(12)]


def _norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * weight + bias


def _slow(model: ScGPT, ids: np.ndarray, values: np.ndarray) -> np.ndarray:
    """One cell, token by token and head by head, as Cui et al. describe it."""
    p = {name: value.detach().double().numpy() for name, value in model.state_dict().items()}
    tokens = []
    for gene, value in zip(ids, values, strict=True):
        g = _norm(p["encoder.embedding.weight"][gene], p["encoder.enc_norm.weight"], p["encoder.enc_norm.bias"])
        v = np.maximum(p["value_encoder.linear1.weight"][:, 0] * min(value, 512) + p["value_encoder.linear1.bias"], 0)
        v = p["value_encoder.linear2.weight"] @ v + p["value_encoder.linear2.bias"]
        tokens.append(g + _norm(v, p["value_encoder.norm.weight"], p["value_encoder.norm.bias"]))
    x = np.stack(tokens)
    width, size = CONFIG.embsize, CONFIG.embsize // CONFIG.nhead
    for i in range(CONFIG.nlayers):
        q = {key.removeprefix(f"transformer_encoder.layers.{i}."): value for key, value in p.items()}
        qkv = x @ q["self_attn.in_proj_weight"].T + q["self_attn.in_proj_bias"]
        out = np.zeros_like(x)
        for head in range(CONFIG.nhead):
            part = slice(head * size, (head + 1) * size)
            query, key, value = (qkv[:, k * width : (k + 1) * width][:, part] for k in range(3))
            for t in range(len(x)):
                score = np.exp(key @ query[t] / math.sqrt(size))
                out[t, part] = (score[:, None] * value).sum(0) / score.sum()
        out = out @ q["self_attn.out_proj.weight"].T + q["self_attn.out_proj.bias"]
        x = _norm(x + out, q["norm1.weight"], q["norm1.bias"])
        hidden = np.maximum(x @ q["linear1.weight"].T + q["linear1.bias"], 0)
        x = _norm(x + hidden @ q["linear2.weight"].T + q["linear2.bias"], q["norm2.weight"], q["norm2.bias"])
    return x[0] / np.linalg.norm(x[0])


def _slow_bins(values: np.ndarray, n_bins: int, draws: np.ndarray) -> list[int]:
    edges = [np.quantile(values, q) for q in np.linspace(0, 1, n_bins - 1)]
    found = []
    for value, draw in zip(values, draws, strict=True):
        below = sum(edge < value for edge in edges)
        at_or_below = sum(edge <= value for edge in edges)
        found.append(math.ceil(draw * (below - at_or_below) + at_or_below))
    return found


def test_equals_a_slow_literal_version(model, counts):
    found = embed(model, counts, NAMES)
    for i, name in enumerate(NAMES):
        row = counts[i].toarray()[0]
        genes = np.flatnonzero(row)
        if not len(genes):
            assert np.isnan(found[i]).all()
            continue
        bins = _slow_bins(row[genes], 51, cell_rng(0, name).random(len(genes)))
        expected = _slow(model, np.r_[CONFIG.cls_id, genes], np.r_[CONFIG.pad_value, bins])
        np.testing.assert_allclose(found[i], expected, atol=2e-6)


@pytest.mark.parametrize("n", [1, 2, 7, 400])
def test_bins_are_quantiles_with_ties_spread_over_the_bins_they_span(n):
    rng = np.random.default_rng(n)
    values = rng.negative_binomial(1, 0.2, n) + 1.0
    draws = rng.random(n)

    class Fixed:
        def random(self, size):
            return draws[:size]

    found = bin_values(values, 51, Fixed())
    assert found.tolist() == _slow_bins(values, 51, draws)
    assert found.min() >= 1
    assert found.max() <= 50


@pytest.mark.parametrize("sample", ["random", "top"])
def test_result_of_a_cell_depends_on_that_cell_only(model, counts, sample):
    whole = embed(model, counts, NAMES, max_length=20, sample=sample)
    order = np.random.default_rng(1).permutation(12)
    shuffled = embed(model, counts[order], [NAMES[i] for i in order], max_length=20, sample=sample)
    np.testing.assert_allclose(shuffled, whole[order], atol=1e-6)
    alone = embed(model, counts[4:5], NAMES[4:5], max_length=20, sample=sample)
    np.testing.assert_allclose(alone, whole[4:5], atol=1e-6)


def test_order_of_genes_makes_no_difference(counts):
    row = counts[0].indices, counts[0].data
    order = np.random.default_rng(2).permutation(len(row[0]))
    turned = tuple(part[order] for part in row)
    a, b = (tokenise(*given, CONFIG, max_length=20, sample="random", rng=cell_rng(0, "a")) for given in (row, turned))
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_ties_and_samples_come_from_seed_and_name(model, counts):
    same = embed(model, counts[6:8], ["x", "x"], max_length=20)
    np.testing.assert_array_equal(same[0], same[1])
    other = embed(model, counts[6:8], ["x", "y"], max_length=20)
    assert np.abs(other[0] - other[1]).max() > 1e-3
    assert np.abs(embed(model, counts[:1], ["x"], seed=1) - embed(model, counts[:1], ["x"])).max() > 1e-5


def test_sampling_keeps_the_class_token_and_the_length():
    genes, values = np.arange(100), np.arange(1, 101, dtype=np.float32)
    ids, bins = tokenise(genes, values, CONFIG, max_length=30, sample="top", rng=cell_rng(0, "a"))
    assert ids[0] == CONFIG.cls_id
    assert bins[0] == CONFIG.pad_value
    assert set(ids[1:]) == set(range(71, 100))
    whole = dict(zip(*tokenise(genes, values, CONFIG, max_length=500, sample="top", rng=cell_rng(0, "a")), strict=True))
    assert all(whole[gene] == value for gene, value in zip(ids, bins, strict=True))  # binned before it is sampled
    ids, _ = tokenise(genes, values, CONFIG, max_length=30, sample="random", rng=cell_rng(0, "a"))
    assert len(ids) == len(set(ids)) == 30
    assert ids[0] == CONFIG.cls_id


def test_packing_does_not_mix_cells(model, counts, monkeypatch):
    whole = embed(model, counts, NAMES)
    monkeypatch.setattr("stalign.encoders.packed.TOKENS", 1)
    np.testing.assert_allclose(embed(model, counts, NAMES), whole, atol=1e-6)


def test_bf16_is_close(model, counts):
    rows = [i for i in range(12) if i != 3]
    a, b = (embed(model, counts[rows], NAMES[:11], precision=precision) for precision in ("fp32", "bf16"))
    assert (a * b).sum(1).min() > 0.99


@pytest.fixture
def folder(model, tmp_path):
    """The authors' folder, with flash attention's names and parts that embedding does not need."""
    flash = {name.replace("self_attn.in_proj_", "self_attn.Wqkv."): v for name, v in model.state_dict().items()}
    flash |= {
        "decoder.fc.0.weight": torch.zeros(2),
        "flag_encoder.weight": torch.zeros(2),
        "mvc_decoder.W.weight": torch.ones(1),
    }
    torch.save(flash, tmp_path / "best_model.pt")
    genes = {f"GENE{i}": i for i in range(117)}
    (tmp_path / "vocab.json").write_text(json.dumps(genes | {"<pad>": 117, "<cls>": 118, "<eoc>": 119}))
    args = {"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 2, "n_bins": 51, "pad_value": -2, "dropout": 0.2}
    (tmp_path / "args.json").write_text(json.dumps(args))
    return tmp_path


def test_reads_the_official_folder_and_a_safetensors_copy(folder, model, counts):
    expected = embed(model, counts, NAMES)
    encoder = load(get("scgpt"), folder)
    assert encoder.vocabulary[:2] == ("GENE0", "GENE1")
    assert len(encoder.vocabulary) == 117
    np.testing.assert_array_equal(encoder.encode(counts[:, :117], NAMES), expected)
    np.testing.assert_array_equal(load(get("scgpt"), folder / "best_model.pt").encode(counts[:, :117], NAMES), expected)
    state = {name.replace("self_attn.in_proj_", "self_attn._impl.Wqkv."): v for name, v in model.state_dict().items()}
    state = {name.replace("self_attn.out_proj", "self_attn._impl.out_proj"): v for name, v in state.items()}
    (folder / "best_model.pt").unlink()
    save_file({name: v.contiguous() for name, v in state.items()}, folder / "model.safetensors")
    np.testing.assert_array_equal(load(get("scgpt"), folder).encode(counts[:, :117], NAMES), expected)


def test_vocabulary_without_special_tokens(folder, model, counts):
    (folder / "vocab.json").write_text(json.dumps({f"GENE{i}": i for i in range(117)}))
    encoder = load(get("scgpt"), folder)
    assert encoder.model.config.cls_id == 118
    np.testing.assert_array_equal(encoder.encode(counts[:, :117], NAMES), embed(model, counts, NAMES))


def test_options(folder, model, counts):
    encoder = load(get("scgpt", sample="top", max_length=20, seed=3), folder)
    expected = embed(model, counts, NAMES, sample="top", max_length=20, seed=3)
    np.testing.assert_array_equal(encoder.encode(counts[:, :117], NAMES), expected)
    with pytest.raises(ValueError, match="'middle'"):
        get("scgpt", sample="middle")
    with pytest.raises(KeyError, match="max_length"):
        get("scgpt", length=3)


def test_what_does_not_fit_is_refused(folder, model):
    (folder / "vocab.json").write_text(json.dumps({f"GENE{i}": i for i in range(300)} | {"<cls>": 300}))
    with pytest.raises(ValueError, match="301 entries for an embedding of 120 rows"):
        load(get("scgpt"), folder)
    (folder / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match="vocab.json"):
        load(get("scgpt"), folder)
    (folder / "vocab.json").write_text(json.dumps({"A": 0, "<cls>": 118}))
    (folder / "args.json").write_text('{"input_emb_style": "category"}')
    with pytest.raises(ValueError, match="continuous"):
        load(get("scgpt"), folder)
    (folder / "args.json").write_text('{"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 3}')
    with pytest.raises(ValueError, match="missing"):
        load(get("scgpt"), folder)
    (folder / "args.json").write_text('{"embsize": 16, "nheads": 2, "d_hid": 24, "nlayers": 1}')
    with pytest.raises(ValueError, match="left over"):
        load(get("scgpt"), folder)


def test_size_of_the_published_network():
    with torch.device("meta"):
        network = ScGPT(ScGPTConfig(60_697))
    assert sum(parameter.numel() for parameter in network.parameters()) == get("scgpt").n_parameters == 50_278_400
