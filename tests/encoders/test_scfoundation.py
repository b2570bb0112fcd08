from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import nn

from stalign.encoders import get
from stalign.encoders.scfoundation import GENE_TABLE, ScFoundation, load


@pytest.fixture
def folder(tmp_path):
    """A checkpoint as published, for 50 genes: one entry for each task, a prefix, and parts for other uses."""
    torch.manual_seed(0)
    model = ScFoundation(50, width=64, depth=2, heads=1, bins=10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    state |= {
        f"model.{name}": torch.zeros(3) for name in ("decoder.norm.weight", "to_final.bias", "token_emb.emb_pad.weight")
    }
    cell = {"config": {"model": "mae_autobin"}, "state_dict": state}
    torch.save({"cell": cell, "gene": {"config": {}, "state_dict": {}}}, tmp_path / "models.ckpt")
    (tmp_path / GENE_TABLE).write_text("gene_name\tindex\n" + "".join(f"G{i}\t{i}\n" for i in range(50)))
    return tmp_path, model


def _slow(model: ScFoundation, row: np.ndarray, total: float, pool: str) -> np.ndarray:
    """One cell through torch's own layers, as Hao et al. describe it."""
    genes = np.flatnonzero(row)
    values = torch.tensor([*np.log1p(row[genes] / total * 1e4), 4.0, np.log10(total)], dtype=torch.float32)
    places = torch.tensor([*genes, 50, 51])
    part = model.token_emb
    hidden = nn.LeakyReLU(0.1)(part.mlp(values[:, None]))
    x = torch.softmax(1.0 * hidden + part.mlp2(hidden), -1) @ part.emb(torch.arange(10)) + model.pos_emb(places)
    for i in range(2):
        layer = nn.TransformerEncoderLayer(64, 1, 256, batch_first=True).eval()
        prefix = f"encoder.transformer_encoder.{i}."
        layer.load_state_dict(
            {name.removeprefix(prefix): v for name, v in model.state_dict().items() if name.startswith(prefix)}
        )
        x = layer(x[None])[0]
    x = model.encoder["norm"](x)
    if pool == "max":
        return x.max(0).values.detach().numpy()
    return torch.cat([x[-1], x[-2], x[:-2].max(0).values, x[:-2].mean(0)]).detach().numpy()


@pytest.mark.parametrize("pool", ["all", "max"])
@pytest.mark.parametrize("given", [True, False])
def test_equals_a_literal_version(folder, pool, given):
    path, model = folder
    rng = np.random.default_rng(0)
    dense = rng.poisson(0.8, (6, 50)).astype(np.float32)
    dense[2] = 0
    totals = dense.sum(1) + 30.0 if given else None
    encoder = load(get("scfoundation", pool=pool), path)
    assert encoder.vocabulary[:2] == ("G0", "G1")
    found = encoder.encode(sp.csr_matrix(dense), [str(i) for i in range(6)], totals)
    assert found.shape == (6, 256 if pool == "all" else 64)
    for i in range(6):
        if i == 2:
            assert np.isnan(found[i]).all()
        else:
            total = dense[i].sum() if totals is None else totals[i]
            np.testing.assert_allclose(found[i], _slow(model.eval(), dense[i], total, pool), atol=2e-5)


def test_lengths_of_the_card():
    assert get("scfoundation").dim == 3072
    assert get("scfoundation", pool="max").dim == 768


def test_size_of_the_published_network():
    with torch.device("meta"):
        assert sum(p.numel() for p in ScFoundation().parameters()) == get("scfoundation").n_parameters


def test_what_does_not_fit_is_refused(folder):
    path, _ = folder
    (path / GENE_TABLE).write_text("gene_name\tindex\nA\t0\n")
    with pytest.raises(ValueError, match="of another shape"):
        load(get("scfoundation"), path)
    (path / GENE_TABLE).write_text("A,0\n")
    with pytest.raises(ValueError, match="gene_name"):
        load(get("scfoundation"), path)
    (path / GENE_TABLE).unlink()
    with pytest.raises(FileNotFoundError, match=GENE_TABLE):
        load(get("scfoundation"), path)
