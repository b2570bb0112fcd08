"""Weights on a server on this machine that answers as the hub does; nothing here leaves it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import stalign as st
from stalign.models import load_weights, push_to_hub

pytest.importorskip("huggingface_hub")


class Hub:
    """Repositories: the files of each commit, and the branches."""

    def __init__(self):
        self.repos, self.branches, self.private, self.objects = {}, {}, {}, {}
        self.status, self.asked = None, []

    def create(self, given):
        name = f"{given.get('organization') or 'me'}/{given['name']}"
        if name in self.repos:
            return 409, {"url": f"{self.url}/{name}"}
        self.repos[name], self.branches[name] = {"0" * 40: {}}, {"main": "0" * 40}
        self.private[name] = given.get("private", given.get("visibility") == "private")
        return 200, {"url": f"{self.url}/{name}"}

    def commit(self, name, branch, lines):
        files = dict(self.repos[name][self.branches[name][branch]])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
        made = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.repos[name][made] = files
        self.branches[name][branch] = made
        return 200, {"commitOid": made, "commitUrl": f"{self.url}/{name}/commit/{made}"}

    def post(self, path, content):
        if path == "/api/repos/create":
            return self.create(json.loads(content))
        if path.endswith(".git/info/lfs/objects/batch"):
            actions = [
                {**one, "actions": {"upload": {"href": f"{self.url}/store/{one['oid']}"}}}
                for one in json.loads(content)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": actions}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        name, call, branch = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/([^/?]+).*", path).groups()
        if call == "branch":
            self.branches[name].setdefault(branch, self.branches[name]["main"])
            return 200, {}
        if call == "preupload":
            names = [file["path"] for file in json.loads(content)["files"]]
            modes = ["lfs" if name.endswith(".safetensors") else "regular" for name in names]
            pairs = zip(names, modes, strict=True)
            return 200, {"files": [{"path": n, "uploadMode": m, "shouldIgnore": False} for n, m in pairs]}
        assert call == "commit"
        return self.commit(name, branch, [json.loads(line) for line in content.splitlines()])

    def file(self, path):
        """Commit and content of a file, or the code of what is not there."""
        name, revision, file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path).groups()
        commit = self.branches.get(name, {}).get(revision, revision)
        if name not in self.repos:
            return None, "RepoNotFound"
        files = self.repos[name].get(commit)
        if files is None:
            return None, "RevisionNotFound"
        return (commit, files[file]) if file in files else (commit, "EntryNotFound")


def _handler(hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def send(self, status, content=b"", **headers):
            self.send_response(status)
            for name, value in {"Content-Length": len(content), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def read(self):
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.asked.append((self.command, self.path))
            return content

        def do_POST(self):
            content = self.read()
            status, answer = (hub.status, {"error": "no"}) if hub.status else hub.post(self.path, content)
            self.send(status, json.dumps(answer).encode(), Content_Type="application/json")

        def do_PUT(self):
            hub.objects[self.path.rsplit("/", 1)[-1]] = self.read()
            self.send(200)

        def do_GET(self):
            self.read()
            if hub.status:
                return self.send(hub.status)
            commit, found = hub.file(self.path)
            if isinstance(found, str):
                return self.send(404, X_Error_Code=found, X_Error_Message=found, **{"X-Repo-Commit": commit or ""})
            etag = hashlib.sha256(found).hexdigest()
            return self.send(200, found, ETag=f'"{etag}"', X_Repo_Commit=commit)

        do_HEAD = do_GET

    return Handler


@pytest.fixture
def hub(monkeypatch, tmp_path):
    for name, value in (("NO_PROXY", "127.0.0.1"), ("HF_TOKEN", "hf_of_a_test")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # another protocol, to other servers
    state = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setenv("HF_ENDPOINT", state.url)
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def weights(small_weights):
    made = small_weights()
    made.meta = {
        "name": "mine",
        "licence": "CC-BY-4.0",
        "training_data": [{"section": "A|1", "donor": "P1", "study": None, "spots": 120, "inputs": "both"}],
        "metrics": {"loss/total": 1.25},
        "steps": 7,
    }
    return made


def test_there_and_back(hub, weights, toy):
    name = push_to_hub(weights, "lab/mine")
    assert re.fullmatch(r"hf://lab/mine@[0-9a-f]{40}", name) and hub.private["lab/mine"] is True
    for where in (name, "hf://lab/mine", "hf://lab/mine@main"):
        found = load_weights(where)
        assert found.vocabulary == weights.vocabulary and found.meta == weights.meta
        one, other = weights.network.state_dict(), found.network.state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)
    st.tl.embed(toy, weights="hf://lab/mine")
    assert toy.obsm["X_stalign"].shape[1] == 16


def test_the_card_is_the_readme(hub, weights):
    push_to_hub(weights, "lab/mine")
    files = hub.repos["lab/mine"][hub.branches["lab/mine"]["main"]]
    assert set(files) == {"README.md", "config.json", "weights.safetensors"}
    text = files["README.md"].decode()
    assert text.startswith("---\n") and 'license: "cc-by-4.0"' in text and "# mine" in text
    assert "st.tl.embed(adata, weights='hf://lab/mine')" in text
    assert "| A\\|1 | P1 | 120 | both |" in text and "| loss/total | 1.25 |" in text and "After 7 steps." in text


def test_files_of_a_folder_are_uploaded_as_they_are(hub, weights, tmp_path):
    folder = st.models.save(tmp_path / "w", weights.network, vocabulary=weights.vocabulary, meta={})
    push_to_hub(folder, "lab/mine", private=False, revision="v2")
    files = hub.repos["lab/mine"][hub.branches["lab/mine"]["v2"]]
    assert hub.private["lab/mine"] is not True
    assert all(files[file.name] == file.read_bytes() for file in folder.iterdir())
    assert load_weights("hf://lab/mine@v2").sha256 == load_weights(folder).sha256
    with pytest.raises(FileNotFoundError, match=r"Expected the hub to send hf://lab/mine. Found: answer 404"):
        load_weights("hf://lab/mine")  # nothing on `main`


def test_what_is_wrong_is_said(hub, weights):
    with pytest.raises(ValueError, match="name of a repository on the hub, `organisation/name`"):
        load_weights("hf://mine")
    for where in ("hf://lab/none", "hf://lab/mine@none"):
        with pytest.raises(FileNotFoundError, match="Found: answer 404. Look for the repository"):
            load_weights(where)
    hub.status = 403
    with pytest.raises(
        PermissionError, match=r"Expected the hub to take weights for lab/mine. Found: answer 403.*HF_TOKEN"
    ):
        push_to_hub(weights, "lab/mine")
    with pytest.raises(PermissionError, match="hub to send hf://lab/mine. Found: answer 403"):
        load_weights("hf://lab/mine")


def test_without_the_network(hub, weights, monkeypatch):
    name = push_to_hub(weights, "lab/mine")
    load_weights(name)
    asked = len(hub.asked)
    with st.settings.override(offline=True):
        assert load_weights(name).vocabulary == weights.vocabulary
        with pytest.raises(FileNotFoundError, match="not in the cache, and no network"):
            load_weights("hf://lab/other")
        with pytest.raises(ConnectionError, match="allowed to use the network"):
            push_to_hub(weights, "lab/mine")
    assert len(hub.asked) == asked
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens
    with pytest.raises(ConnectionError, match="Expected the hub to take weights for lab/mine"):
        push_to_hub(weights, "lab/mine")


def test_the_package_is_named(weights, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"pip install huggingface-hub \(or, in the checkout of stalign: pip install '\.\[hub\]'\)"
    ):
        load_weights("hf://lab/mine")
