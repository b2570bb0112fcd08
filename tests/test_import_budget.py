"""`import stalign` is quick and light."""

from __future__ import annotations

import json
import subprocess
import sys

_HEAVY = {"torch", "timm", "squidpy", "spatialdata", "scanpy", "lightning"}
_LIGHT = "stalign.core, stalign.data, stalign.io, stalign.datasets, stalign.pp, stalign.tl, stalign.encoders"
_SCRIPT = """
import json, sys, time
start = time.perf_counter()
import {modules}
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({{name.split(".")[0] for name in sys.modules}})]))
"""


def _import(modules: str) -> tuple[float, set[str]]:
    command = [sys.executable, "-c", _SCRIPT.format(modules=modules)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    seconds, loaded = json.loads(done.stdout)
    return seconds, set(loaded)


def test_import_is_quick_and_light():
    runs = [_import("stalign") for _ in range(3)]
    assert min(seconds for seconds, _ in runs) < 0.5
    assert not runs[0][1] & (_HEAVY | {"anndata", "jinja2", "matplotlib", "pandas", "pydantic"})


def test_import_of_subpackages_leaves_heavy_packages_to_their_calls():
    assert not _import(_LIGHT)[1] & _HEAVY


def test_import_of_plots_does_not_load_torch():
    assert "torch" not in _import("stalign.pl")[1]
