import copy
import errno
import fcntl
import json
import os
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stalign.models import STAlign, TimmEncoder, load, n_parameters, save
from stalign.models.checkpoint import CONFIG_FILE, FORMAT_VERSION, WEIGHTS_FILE, sha256_of

GENES = [f"GENE{i}" for i in range(30)]
META = {"licence": "BSD-3-Clause", "training_data": ["a", "b"], "metrics": {"ari": 0.5}}


@pytest.fixture
def network(mini, make_batch, stirred):
    network = stirred(mini)
    network.train()(make_batch())  # so that batch norm has seen something
    return network.eval()


@pytest.fixture
def folder(tmp_path, network):
    return save(tmp_path / "net", network, vocabulary=GENES, meta=META)


def edit(folder, change):
    path = folder / CONFIG_FILE
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def rewrite(folder, state):
    """Write other weights and leave the hash out, as a hand-made checkpoint would."""
    from safetensors.torch import save_file

    save_file(state, folder / WEIGHTS_FILE)
    edit(folder, lambda record: record.pop("weights"))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_round_trip_in_single_precision_is_exact(tmp_path, network, make_batch):
    ids = [f"ENSG{i:011d}" for i in range(30)]
    path = save(tmp_path / "deep" / "net", network, vocabulary=GENES, ensembl=ids, meta=META, fp16=False)
    loaded = load(path)
    assert sorted(p.name for p in path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert same(loaded.network, network)
    assert loaded.config == network.config
    assert loaded.vocabulary == tuple(GENES)
    assert loaded.ensembl == tuple(ids)
    assert loaded.meta == META
    assert loaded.path == path
    assert loaded.sha256 == sha256_of(path / WEIGHTS_FILE)
    batch = make_batch()
    assert torch.equal(loaded.network.embed(batch).fused, network.embed(batch).fused)


def test_round_trip_in_half_precision(folder, network, make_batch):
    loaded = load(folder)
    assert not loaded.network.training
    assert all(p.dtype == torch.float32 and p.requires_grad for p in loaded.network.parameters())
    for name, tensor in network.state_dict().items():
        got = loaded.network.state_dict()[name]
        assert torch.equal(got, tensor.half().float() if tensor.ndim > 1 else tensor), name
    batch = make_batch()
    torch.testing.assert_close(loaded.network.embed(batch).fused, network.embed(batch).fused, rtol=0.02, atol=0.02)
    assert (folder / WEIGHTS_FILE).stat().st_size < 3 * n_parameters(network) + 20_000


def test_saving_again_gives_the_same_bytes(folder, tmp_path):
    again = save(tmp_path / "again", load(folder).network, vocabulary=GENES, meta=META)
    assert (again / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
    assert (again / CONFIG_FILE).read_bytes() == (folder / CONFIG_FILE).read_bytes()


def test_either_file_stands_for_the_folder(folder):
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert load(folder / name).path == folder


def test_loading_leaves_random_numbers_alone(folder):
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    load(folder)
    assert torch.equal(torch.rand(2), want)


def test_a_loaded_network_can_be_trained(folder, make_batch):
    network = load(folder).network.train()
    network(make_batch()).niche_fused.sum().backward()
    assert network.gene_table.weight.grad is not None


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_models_of_timm(tmp_path, paper, name, monkeypatch):
    """Swin keeps its index tables out of the state; they have to be there after loading all the same."""
    import timm

    small = {"vit": {"embed_dim": 24, "depth": 1}, "swi": {"embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2)}}
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **more: create(name, **more, **small[name[:3]]))
    torch.manual_seed(0)
    network = STAlign(replace(paper, niche_image=TimmEncoder(name, features=24, tokens="linear")), 30).eval()
    assert any(n not in network.state_dict() for n, _ in network.named_buffers()) == name.startswith("swin")
    loaded = load(save(tmp_path / "net", network, vocabulary=GENES, fp16=False)).network
    assert not any(tensor.is_meta for tensor in [*loaded.buffers(), *loaded.parameters()])
    image = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(loaded.image_encoders["niche"](image), network.image_encoders["niche"](image))
    assert not any(p.requires_grad for p in loaded.image_encoders["niche"].backbone.parameters())


def test_files_are_readable_as_any_other(folder, tmp_path):
    (tmp_path / "other").write_text("")
    usual = stat.S_IMODE((tmp_path / "other").stat().st_mode)
    assert [stat.S_IMODE(p.stat().st_mode) for p in sorted(folder.iterdir())] == [usual, usual]


@pytest.mark.parametrize("where", ["weights", "config"])
def test_a_failed_save_leaves_what_was_there(folder, network, monkeypatch, where):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    torch.nn.init.ones_(network.gene_table.weight)
    if where == "weights":

        def full(_tensors, path, **_):
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("safetensors.torch.save_file", full)
        error, meta = OSError, {}
    else:
        error, meta = TypeError, {"not json": object()}
    with pytest.raises(error):
        save(folder, network, vocabulary=GENES, meta=meta)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_values_that_cannot_be_saved_are_named(tmp_path, network):
    with torch.no_grad():
        network.gene_table.weight[0, 0] = 1e6
    with pytest.raises(ValueError, match=r"gene_table\.weight.*fp16=False"):
        save(tmp_path / "net", network, vocabulary=GENES)
    save(tmp_path / "net", network, vocabulary=GENES, fp16=False)
    with torch.no_grad():
        network.gene_table.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"gene_table\.weight.*diverged"):
        save(tmp_path / "other", network, vocabulary=GENES, fp16=False)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"vocabulary": GENES[1:]}, "30 genes.*29 names"),
        ({"vocabulary": [*GENES[1:], "GENE1"]}, "duplicates"),
        ({"vocabulary": GENES, "ensembl": ["ENSG1"]}, "ensembl.*1 names"),
    ],
)
def test_vocabularies_that_do_not_fit(tmp_path, network, more, named):
    with pytest.raises(ValueError, match=named):
        save(tmp_path / "net", network, **more)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(tmp_path / "nowhere")


def test_another_file_or_folder(tmp_path, folder):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"folder with config.json.*model\.pt"):
        load(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no config.json and no weights.safetensors"):
        load(tmp_path / "empty")
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(ValueError, match=r"no weights.safetensors in"):
        load(folder)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("recorded", [True, False])
def test_truncated_weights(folder, kept, recorded):
    path = folder / WEIGHTS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    if not recorded:
        edit(folder, lambda record: record.pop("weights"))
    with pytest.raises(ValueError, match="runcated"):
        load(folder)


def test_changed_weights(folder):
    path = folder / WEIGHTS_FILE
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="sha256.*changed"):
        load(folder)


@pytest.mark.parametrize(("move", "holds"), [(1, "first"), (2, "second"), (3, "second")])
def test_a_save_that_is_killed_at_a_move(folder, network, monkeypatch, move, holds):
    save(folder, network, vocabulary=GENES, meta={"name": "first"})
    with torch.no_grad():
        network.gene_table.weight += 1
    child = os.fork()
    if not child:
        replace, moves = Path.replace, []

        def killed(path, target):
            moves.append(path)
            if len(moves) == move:
                os._exit(0)
            return replace(path, target)

        monkeypatch.setattr(Path, "replace", killed)
        save(folder, network, vocabulary=GENES, meta={"name": "second"})
        os._exit(0)
    os.waitpid(child, 0)
    left = sorted(folder.rglob("*"))
    assert load(folder).meta["name"] == load(folder).meta["name"] == holds
    assert sorted(folder.rglob("*")) == left  # loading moves nothing
    save(folder, network, vocabulary=GENES, meta={"name": "third"})
    assert load(folder).meta["name"] == "third"


def test_loading_while_another_saves_gives_one_or_the_other(folder, network):
    networks = [copy.deepcopy(network) for _ in range(2)]
    with torch.no_grad():
        networks[1].gene_table.weight += 1
    sums = [float(net.gene_table.weight.detach().half().float().sum()) for net in networks]
    done = threading.Event()

    def saves():
        for i in range(40):
            save(folder, networks[i % 2], vocabulary=GENES, meta={"sum": sums[i % 2]})
        done.set()

    save(folder, networks[1], vocabulary=GENES, meta={"sum": sums[1]})
    thread = threading.Thread(target=saves)
    thread.start()
    while not done.is_set():
        loaded = load(folder)
        assert loaded.meta["sum"] == float(loaded.network.gene_table.weight.detach().sum())
        assert loaded.sha256
    thread.join()
    assert sorted(path.name for path in folder.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path, network, monkeypatch):
    fsync, flushed = os.fsync, []

    def of_windows(handle):
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flushed.append(handle)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_windows)
    load(save(tmp_path / "net", network, vocabulary=GENES))
    assert len(flushed) == 2


def test_a_compiled_or_wrapped_network_is_saved_as_itself(folder, network, tmp_path):
    parts = copy.deepcopy(network)
    parts.heads["spot_gene"] = torch.compile(parts.heads["spot_gene"])
    parts.fusions["niche"] = torch.nn.DataParallel(parts.fusions["niche"])
    for i, wrapped in enumerate((torch.compile(network), torch.nn.DataParallel(torch.compile(network)), parts)):
        again = save(tmp_path / str(i), wrapped, vocabulary=GENES, meta=META)
        assert (again / WEIGHTS_FILE).read_bytes() == (folder / WEIGHTS_FILE).read_bytes()
        assert load(again).config == network.config


def test_a_network_that_is_not_that_of_its_configuration_is_not_saved(network, tmp_path):
    del network.heads["spot_gene"]
    with pytest.raises(ValueError, match=r"weights of the network to fit the configuration.*missing \(heads.spot_gene"):
        save(tmp_path / "net", network, vocabulary=GENES)
    with pytest.raises(TypeError, match="Expected an `STAlign` or `HiBioST` network.*Found: Linear"):
        save(tmp_path / "net", torch.nn.Linear(2, 2), vocabulary=GENES)
    assert not (tmp_path / "net").exists()


def test_the_home_of_the_user(network, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert save("~/net", network, vocabulary=GENES) == tmp_path / "net"
    assert load("~/net").vocabulary == tuple(GENES)


def test_a_pickle_in_the_place_of_the_weights_is_not_opened(folder):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (exec, ("raise RuntimeError('ran')",))

    (folder / WEIGHTS_FILE).write_bytes(pickle.dumps(Bomb()))
    edit(folder, lambda record: record.pop("weights"))
    with pytest.raises(ValueError, match="safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda r: r.update(format="other"), "'other'.*no stalign checkpoint"),
        (lambda r: r.pop("format"), "no stalign checkpoint"),
        (lambda r: r.update(format_version=FORMAT_VERSION + 1, stalign_version="9.0"), "stalign 9.0: upgrade"),
        (lambda r: r.pop("format_version"), "format_version"),
        (lambda r: r.pop("config"), "config"),
        (lambda r: r["config"].update(depth=3), "depth"),
        (lambda r: r.pop("vocabulary"), "vocabulary"),
        (lambda r: r.update(vocabulary=[1, 2]), "vocabulary"),
        (lambda r: r.update(ensembl=["ENSG1"]), "ensembl"),
        (lambda r: r.update(weights=None), 'object under "weights"'),
        (lambda r: r.update(meta=[]), 'object under "meta"'),
        (lambda r: r["vocabulary"].pop(), r"of another shape \(gene_table.weight \(30, 16\), not \(29, 16\)\)"),
    ],
)
def test_records_that_are_wrong(folder, change, named):
    edit(folder, change)
    with pytest.raises(ValueError, match=named):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_records_that_are_no_record(folder, text):
    (folder / CONFIG_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match="config.json"):
        load(folder)


def test_weights_that_do_not_fit_are_never_dropped(folder, network):
    state = network.state_dict()
    rewrite(folder, {**state, "extra.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"1 unexpected \(extra.weight\)"):
        load(folder)


def test_weights_that_are_missing_are_never_made_up(folder, network):
    state = network.state_dict()
    del state["gene_table.weight"]
    rewrite(folder, state)
    with pytest.raises(ValueError, match=r"1 missing \(gene_table.weight\)"):
        load(folder)


def test_weights_of_another_network(folder, paper):
    rewrite(folder, STAlign(paper, 30).state_dict())
    with pytest.raises(ValueError, match="missing.*unexpected.*of another shape"):
        load(folder)


def test_weights_stand_for_their_folder(folder, network):
    loaded = load(folder)
    assert os.fspath(loaded) == str(loaded) == str(folder) and loaded / CONFIG_FILE == folder / CONFIG_FILE
    assert loaded.parent == folder.parent and sorted(loaded.iterdir()) == sorted(folder.iterdir())
    assert copy.deepcopy(loaded).path == folder and load(loaded).sha256 == loaded.sha256
    memory = replace(loaded, path=None)
    with pytest.raises(ValueError, match="Expected weights that have a folder. Found: weights in memory"):
        os.fspath(memory)
    assert not hasattr(memory, "iterdir") and str(memory).startswith("Checkpoint(")


def test_the_name_of_packaged_weights_leads_to_the_call_that_takes_it():
    with pytest.raises(FileNotFoundError, match="load_weights"):
        load("stalign-mini")
