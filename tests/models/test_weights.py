from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from stalign.models import REGISTRY, load, load_weights, save, weights

GENES = [f"GENE{i}" for i in range(30)]


@pytest.fixture
def folder(tmp_path, mini, stirred):
    return save(tmp_path / "net", stirred(mini), vocabulary=GENES)


@pytest.fixture
def registered(folder, monkeypatch):
    """The folder under a name, as if it were in the package."""
    monkeypatch.setattr(weights, "files", lambda _package: folder.parent)
    entry = replace(REGISTRY["stalign-mini"], name="tiny", folder="net", sha256=load(folder).sha256)
    monkeypatch.setitem(REGISTRY, "tiny", entry)
    return entry


def test_a_name(registered, folder):
    assert registered.path == folder
    assert load_weights("tiny").vocabulary == tuple(GENES)


def test_a_path_as_text_or_object(folder, monkeypatch):
    assert load_weights(folder).path == folder
    assert load_weights(str(folder)).path == folder
    monkeypatch.chdir(folder.parent)
    assert load_weights("net").path == Path("net")


def test_a_checkpoint_passes_through(folder):
    checkpoint = load(folder)
    assert load_weights(checkpoint) is checkpoint
    assert load_weights(checkpoint, device=torch.device("cpu")) is checkpoint


def test_a_checkpoint_of_the_user_is_not_changed(folder):
    checkpoint = load(folder)
    network = checkpoint.network.train()
    other = load_weights(checkpoint)
    assert not any(module.training for module in other.network.modules()) and network.training
    elsewhere = load_weights(checkpoint, device="meta").network
    assert all(p.is_meta for p in elsewhere.parameters())
    assert checkpoint.network is network and not any(p.is_meta for p in network.parameters())
    with torch.no_grad():
        other.network.gene_table.weight.zero_()
    assert network.gene_table.weight.any()


def test_an_unknown_name_lists_those_known():
    with pytest.raises(ValueError, match=r"'stalign-maxi'.*'stalign-mini'.*folder works too"):
        load_weights("stalign-maxi")


def test_what_is_no_weights_at_all():
    with pytest.raises(TypeError, match=r"(?s)a checkpoint.*Found: int.*stalign-mini"):
        load_weights(7)


def test_a_path_that_leads_nowhere(tmp_path):
    for path in (tmp_path / "gone", str(tmp_path / "gone")):
        with pytest.raises(FileNotFoundError, match="gone"):
            load_weights(path)


def test_a_hash_that_differs_from_the_registry(registered, monkeypatch):
    monkeypatch.setitem(REGISTRY, "tiny", replace(registered, sha256="0" * 64))
    with pytest.raises(ValueError, match="sha256.*'tiny'"):
        load_weights("tiny")


def test_weights_that_are_not_in_this_installation(registered, monkeypatch):
    monkeypatch.setitem(REGISTRY, "tiny", replace(registered, folder="weights/absent"))
    with pytest.raises(FileNotFoundError, match="'tiny' in this installation"):
        load_weights("tiny")


@pytest.mark.parametrize("name", REGISTRY)
def test_what_the_registry_promises(name):
    """The packaged weights open, and read what the registry says."""
    entry = REGISTRY[name]
    assert entry.name == name
    assert entry.licence
    if not entry.path.is_dir():
        pytest.skip(f"the weights {name} are not in this checkout")
    checkpoint = load_weights(name)
    assert checkpoint.config.input == entry.input
    assert checkpoint.config.name == name
    assert checkpoint.meta["licence"] == entry.licence
    assert sum(path.stat().st_size for path in entry.path.iterdir()) < 25e6


def test_weights_of_a_kind_that_nothing_reads_are_refused_by_name():
    checkpoint = weights.Checkpoint(SimpleNamespace(config=SimpleNamespace(name="mine", kind="other")), ())
    with pytest.raises(ValueError, match="Expected weights of ST-Align. Found: 'mine', which are of other"):
        weights.of_kind(checkpoint, "st-align")
