"""Weights from a server on this machine that answers as the hub does; nothing here leaves it."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import stalign
from stalign.encoders import Card, fetch, get, load

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BODY = b"weights " * 4000


class Hub:
    """What the server does, set by each test, and what it was asked."""

    def __init__(self) -> None:
        self.mode = "ok"
        self.files = {"model.safetensors": BODY}
        self.etag: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.closing = threading.Event()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def _refuse(self, status: int, code: str = "") -> None:
            self.send_response(status)
            if code:
                self.send_header("X-Error-Code", code)
                self.send_header("X-Error-Message", f"{code} here")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, *, body: bool) -> None:
            name = self.path.rsplit("/", 1)[-1]
            hub.asked.append((self.command, name))
            if hub.mode == "silent":
                hub.closing.wait(5)
                self.close_connection = True
                return
            if hub.mode in ("401", "403", "403 gated", "500"):
                self._refuse(int(hub.mode[:3]), "GatedRepo" if "gated" in hub.mode else "")
                return
            if name not in hub.files:
                self._refuse(404, "EntryNotFound")
                return
            content = hub.files[name]
            sha256 = hashlib.sha256(content).hexdigest()
            if hub.mode == "large" and not self.path.startswith("/store/"):
                self.send_response(302)  # large files are kept in another place, and named by their hash
                self.send_header("Location", f"/store/{name}")
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("X-Linked-Etag", f'"{hub.etag.get(name, sha256)}"')
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hub.etag.get(name, sha256)}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content[: len(content) // 2] if hub.mode == "truncated" else content)
                if hub.mode == "truncated":
                    self.close_connection = True

        def do_HEAD(self):
            self._answer(body=False)

        def do_GET(self):
            self._answer(body=True)

    return Handler


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    state.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    yield state
    state.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def card() -> Card:
    return Card(
        "model-of-a-test", "image", "stalign.encoders.vision:load", width=4, access="hub", repo="owner/repo",
        files=("model.safetensors", "pytorch_model.bin"), licence="CC-BY-NC-ND-4.0", url="https://example.org",
    )  # fmt: skip


def _fetch(card, hub, tmp_path, **kwargs):
    given = {"endpoint": hub.endpoint, "token": False, "timeout": 2.0, "cache_dir": tmp_path}
    return fetch(card, **{**given, **kwargs})


def test_success_is_kept_and_found_again_without_asking(card, hub, tmp_path):
    path = _fetch(card, hub, tmp_path)
    assert path.read_bytes() == BODY
    asked = len(hub.asked)
    assert _fetch(card, hub, tmp_path, endpoint="http://127.0.0.1:9") == path
    with stalign.settings.override(offline=True):
        assert _fetch(card, hub, tmp_path) == path
    assert len(hub.asked) == asked


def test_large_file_that_is_kept_elsewhere(card, hub, tmp_path):
    hub.mode = "large"
    path = _fetch(card, hub, tmp_path)
    assert path.read_bytes() == BODY
    assert path.resolve().name == hashlib.sha256(BODY).hexdigest()
    hub.etag["model.safetensors"] = "a" * 64
    with pytest.raises(ValueError, match="Expected sha256 aaaa"):
        _fetch(card, hub, tmp_path / "again")


def test_next_file_is_tried_when_the_first_is_not_there(card, hub, tmp_path):
    hub.files = {"pytorch_model.bin": BODY}
    assert _fetch(card, hub, tmp_path).name == "pytorch_model.bin"
    assert [name for _, name in hub.asked][0] == "model.safetensors"


@pytest.mark.parametrize("mode", ["401", "403", "403 gated"])
def test_no_access_gives_the_three_steps(mode, card, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked for a login"))
    hub.mode = mode
    with pytest.raises(PermissionError) as caught:
        _fetch(card, hub, tmp_path)
    text = str(caught.value)
    for part in ("(1)", "(2)", "(3)", "https://huggingface.co/owner/repo", "hf auth login", "weights=", "CC-BY-NC-ND"):
        assert part in text
    assert len(hub.asked) == 1


def test_404(card, hub, tmp_path):
    hub.files = {}
    with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin in owner/repo.*404.*weights="):
        _fetch(card, hub, tmp_path)


def test_truncated_body(card, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client waits between its attempts
    hub.mode = "truncated"
    with pytest.raises(ConnectionError, match="Expected the hub to send model.safetensors"):
        _fetch(card, hub, tmp_path)
    hub.mode = "ok"
    assert _fetch(card, hub, tmp_path).read_bytes() == BODY


def test_server_error(card, hub, tmp_path, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.mode = "500"
    with pytest.raises(ConnectionError, match="Try again"):
        _fetch(card, hub, tmp_path)


def test_timeout(card, hub, tmp_path):
    hub.mode = "silent"
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        _fetch(card, hub, tmp_path, timeout=0.3)


def test_nobody_listens(card, hub, tmp_path):
    with pytest.raises(ConnectionError, match="Expected the hub to send"):
        _fetch(card, hub, tmp_path, endpoint="http://127.0.0.1:9", timeout=0.3)


def test_wrong_hash_of_the_registry(card, hub, tmp_path):
    wrong = Card(**{**card.__dict__, "sha256": {"model.safetensors": "0" * 64}})
    with pytest.raises(ValueError, match="Expected sha256 0000.*Delete"):
        _fetch(wrong, hub, tmp_path)


def test_wrong_hash_of_the_hub(card, hub, tmp_path):
    hub.etag["model.safetensors"] = "f" * 64  # large files are named by their sha256
    with pytest.raises(ValueError, match="Expected sha256 ffff"):
        _fetch(card, hub, tmp_path)


def test_offline_without_a_cached_copy(card, hub, tmp_path, monkeypatch):
    with stalign.settings.override(offline=True), pytest.raises(FileNotFoundError, match="network is off"):
        _fetch(card, hub, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="weights="):
        _fetch(card, hub, tmp_path)
    assert not hub.asked


def test_local_path_for_every_encoder_with_weights(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    for name in stalign.encoders.list().query("access != 'none'").index:
        assert fetch(get(name), tmp_path / "weights.bin") == tmp_path / "weights.bin"
        with pytest.raises(FileNotFoundError, match="at that path"):
            fetch(get(name), tmp_path / "missing.bin")


def test_encoders_off_the_hub_say_where_to_get_weights():
    with pytest.raises(FileNotFoundError, match="vocab.json"):
        fetch(get("scgpt"))


def test_weights_for_an_encoder_without_any(tmp_path):
    with pytest.raises(ValueError, match="no weights"):
        load("colour", tmp_path)


def test_foreign_pickle_is_not_run(card, tmp_path):
    class Evil:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was run",))

    torch.save({"state_dict": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="never run"):
        load("uni", tmp_path / "pytorch_model.bin")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_file(name, tmp_path):
    from safetensors.torch import save

    whole = save({"a": torch.zeros(1000)})
    if name.endswith(".bin"):
        torch.save({"a": torch.zeros(1000)}, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load("uni", tmp_path / name)


def test_shards_and_empty_folders(tmp_path):
    import json

    from safetensors.torch import save_file

    from stalign.encoders.state import read_state

    with pytest.raises(FileNotFoundError, match="Expected weights"):
        read_state(tmp_path)
    save_file({"a": torch.ones(2, dtype=torch.float16)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"b": torch.zeros(3)}, tmp_path / "model-00002-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    state = read_state(tmp_path)
    assert set(state) == {"a", "b"}
    assert state["a"].dtype == torch.float32
