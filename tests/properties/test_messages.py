"""No message names an argument that the function that was called does not take.

The damage tests look at each message that is raised; this reads all of them in the source. A message in `pp`, `tl` or
`pl` belongs to the public functions of its package that call the function it is in, however far down. One in a package
below may name any argument of a public function, as who called is not known there.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import pytest
from tests.properties.calls import ARGUMENTS, PUBLIC

import stalign

SOURCE = Path(stalign.__file__).parent
CALLED = ("pp", "tl", "pl")  # packages of what users call
BELOW = ("data",)  # packages whose messages reach them
_ASSIGNED = re.compile(r"`(\w+)=")
_BARE = re.compile(r"`(\w+)`")


def functions(package: str) -> dict[str, list[ast.AST]]:
    """Functions, methods and classes of a package by name; names that come twice are kept side by side."""
    found = defaultdict(list)
    for path in sorted((SOURCE / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found[node.name].append(node)
    return found


def texts(node: ast.AST) -> str:
    """The literal parts of what a function says: all its strings but the docstring."""
    own = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    docstring = ast.get_docstring(node, clean=False)
    return "\n".join(part.value for part in own if part.value != docstring)


def used(node: ast.AST) -> set[str]:
    """Names that a function mentions, among which are those that it calls."""
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} | {
        part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)
    }


def reached(package: str, start: str) -> set[str]:
    """Functions of a package that one of them calls, however far down; it stops at other public functions."""
    there, seen, todo = functions(package), set(), [start]
    while todo:
        name = todo.pop()
        if name in seen or (name != start and f"{package}.{name}" in PUBLIC):
            continue
        seen.add(name)
        todo += [other for node in there[name] for other in used(node) if other in there]
    return seen


@pytest.mark.parametrize("name", PUBLIC)
def test_messages_of_a_public_function_name_its_own_arguments(name):
    package, start = name.split(".")
    own = set(inspect.signature(PUBLIC[name]).parameters)
    there = functions(package)
    for function in sorted(reached(package, start)):
        for node in there[function]:
            text = texts(node)
            named = set(_ASSIGNED.findall(text)) | (set(_BARE.findall(text)) & ARGUMENTS)
            assert named <= own, f"{name} takes no {sorted(named - own)}, which {package}.{function} names"


@pytest.mark.parametrize("package", BELOW)
def test_messages_below_name_arguments_that_there_are(package):
    for function, nodes in functions(package).items():
        for node in nodes:
            named = set(_ASSIGNED.findall(texts(node)))
            assert named <= ARGUMENTS, f"no public function takes {sorted(named - ARGUMENTS)}, which {function} names"


def test_the_messages_are_found():
    assert "niches" in reached("pp", "niches")
    assert len(functions("data")) > 20
    assert any(_ASSIGNED.search(texts(node)) for nodes in functions("data").values() for node in nodes)
