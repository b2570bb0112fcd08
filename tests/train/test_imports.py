"""Modules of `train` import each other without circles, also for types."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import stalign

FOLDER = Path(stalign.__file__).parent / "train"


def test_imports_have_no_circles():
    graph = {}
    for path in FOLDER.glob("[!_]*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        graph[path.stem] = {name.split(".")[2] for name in names if name.startswith("stalign.train.")}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("run") < order.index("trainer")
