"""Training that starts from weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import stalign as st
from stalign.data import Vocabulary
from stalign.models import Checkpoint, STAlign
from stalign.models.checkpoint import load, save
from stalign.train import fit, load_config
from stalign.train.assemble import assemble
from stalign.train.config import DataConfig, TrainConfig
from stalign.train.initial import start_from
from stalign.train.network_config import model_config

GENES = ("A", "B", "C", "D")


def _network(model, n_genes, seed):
    torch.manual_seed(seed)
    return STAlign(model_config(TrainConfig(model=model)), n_genes)


@pytest.fixture
def before(tiny_model):
    return Checkpoint(_network(tiny_model, 4, 1), GENES, ("", "ENSG1", "ENSG2", ""))


def test_genes_are_mapped_one_by_one(before, tiny_model):
    network = _network(tiny_model, 4, 2)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    record = start_from(network, before, Vocabulary(("New", "c", "Renamed", "D"), ("", "", "ENSG1", "")))
    old, now = before.network.state_dict(), network.state_dict()
    table = now["gene_table.weight"]
    assert torch.equal(
        table[1:], old["gene_table.weight"][[2, 1, 3]]
    )  # by symbol in any case, by Ensembl id, by symbol
    assert torch.equal(table[0], fresh["gene_table.weight"][0])
    assert all(torch.equal(now[name], old[name]) for name in now if name != "gene_table.weight")
    assert record["genes"] == {"known": 3, "new": 1, "left_out": 1} and record["new_parts"] == []
    with pytest.raises(ValueError, match=r"genes that the weights of `model.init` know. Found: X"):
        start_from(network, before, Vocabulary(("X",)))


def test_genes_of_ae_gene_are_columns(tiny_model):
    model = {
        **tiny_model,
        "niche_gene": {"kind": "ae_gene", "hidden": [8], "width": 8, "layers": 1, "mlp": 8, "heads": 2},
    }
    before, network = Checkpoint(_network(model, 4, 1), GENES), _network(model, 2, 2)
    start_from(network, before, Vocabulary(("D", "A")))
    name = next(n for n, t in network.state_dict().items() if n.startswith("gene_encoders.niche") and t.shape == (8, 2))
    assert torch.equal(network.state_dict()[name], before.network.state_dict()[name][:, [3, 0]])


def test_a_branch_made_anew_is_named_and_what_else_differs_is_refused(before, tiny_model, log):
    model = {**tiny_model, "niche_image": {"kind": "features", "dim": 6, "tokens": "linear"}, "dropout": 0.3}
    with st.settings.override(verbosity="info"):
        record = start_from(_network(model, 4, 2), before, Vocabulary(GENES))
    assert record["new_parts"] == ["image_encoders.niche"]
    assert record["changed"]["dropout"] == [0.1, 0.3]
    assert "Starting at random, not from" in log.text and "dropout was 0.1 in" in log.text
    wide = {**tiny_model, "head": {"hidden": 16, "out": 32}}
    with pytest.raises(ValueError, match=r"shapes of `model.init`. Found: \d+ that differ, such as heads"):
        start_from(_network(wide, 4, 2), before, Vocabulary(GENES))


def test_a_run_starts_from_weights(slides, tiny, tmp_path, log):
    first = tiny(out=str(tmp_path / "first"), run={"steps": 4})
    weights = fit(slides, first)
    held = DataConfig(min_spots=20, validation=("toy_2",), max_genes=700)
    config = tiny(model={"init": str(weights), "dropout": 0.2}, data=held, run={"steps": 2})
    with st.settings.override(verbosity="warning"):
        run = assemble(slides, config)
    assert "The weights of `model.init` were trained on section toy_2" in log.text
    network, old = run.module.network, load(weights)
    assert network.config.dropout == 0.2 and network.config.input == old.config.input and network.n_genes == 700
    rows = [old.vocabulary.index(gene) for gene in run.store.vocabulary.symbols]
    assert torch.equal(network.gene_table.weight, old.network.gene_table.weight[rows])
    init = load(fit(slides, config)).meta["init"]
    assert init["sha256"] == old.sha256 and init["genes"] == {"known": 700, "new": 0, "left_out": 870 - 700}
    assert [row["section"] for row in init["training_data"]] == ["toy_1", "toy_2"]
    again = load(fit(slides, replace(config, out=str(tmp_path / "again"), model={"init": config.out})))
    assert again.meta["init"]["before"]["sha256"] == old.sha256
    torch.manual_seed(1)
    save(weights, STAlign(old.config, 870), vocabulary=old.vocabulary)
    with pytest.raises(ValueError, match="init was"):
        fit(slides, config, resume=True)


def test_genes_of_the_weights_fill_what_the_sections_leave_free(toy2, tiny, small_weights, tmp_path):
    one = small_weights()
    weights = save(tmp_path / "small", one.network, vocabulary=one.vocabulary)
    few = toy2[toy2.obs["library"] == "toy_1", :300].copy()
    for max_genes, known in ((20_000, 870), (400, 400)):
        config = tiny(model={"init": str(weights)}, data=DataConfig(min_spots=20, max_genes=max_genes))
        symbols = assemble([few], config).store.vocabulary.symbols
        assert len(symbols) == known and set(few.var_names) <= set(symbols) <= set(one.vocabulary)


def test_wrong_starts(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text('[model]\ninit = "stalign-mini"\nbase = "st-align"\n')
    with pytest.raises(ValueError, match="one of `model.base` and `model.init`"):
        model_config(load_config(path))
    with pytest.raises(ValueError, match=r"name of weights. Found: 'stalign-mimi'"):
        model_config(TrainConfig(model={"init": "stalign-mimi"}))
    with pytest.raises(ValueError, match=r"`model.init` to name weights or a folder of weights. Found: 3"):
        model_config(TrainConfig(model={"init": 3}))
