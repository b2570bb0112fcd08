"""No message names an argument that the function that was called does not take.

The damage tests look at each message that is raised; this reads all of them in the source. A message in `pp`, `tl` or
`pl` belongs to the public functions of its package that call the function it is in, however far down; beside their
arguments it may name those of its own function, as it got them from the caller. One in a package below may name any
argument of a public function, as who called is not known there.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from pathlib import Path

import pytest
from tests.properties.calls import ARGUMENTS, PUBLIC, arguments_in, assigned_in

import stalign

SOURCE = Path(stalign.__file__).parent
BELOW = ("data",)  # packages whose messages reach them


@cache
def modules(package: str) -> dict[str, ast.Module]:
    """Syntax trees of a package by module."""
    root = SOURCE.parent
    paths = sorted((SOURCE / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(root).with_suffix("").parts): ast.parse(path.read_text("utf-8")) for path in paths
    }


def functions(package: str) -> dict[tuple[str, str], ast.FunctionDef]:
    """Functions and methods of a package by module and name."""
    return {
        (module, node.name): node
        for module, tree in modules(package).items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


def texts(node: ast.FunctionDef) -> str:
    """The literal parts of what a function says: all its strings but the docstring."""
    own = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    docstring = ast.get_docstring(node, clean=False)
    return "\n".join(text for text in own if text != docstring)


def imports(package: str, module: str) -> dict[str, tuple[str, str]]:
    """Where the functions that a module imports from its own package are, by their name there."""
    return {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in ast.walk(modules(package)[module])
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"stalign.{package}.")
        for alias in node.names
    }


def called(package: str, where: tuple[str, str]) -> set[tuple[str, str]]:
    """Functions of a package that one of them mentions: those of its module, and what the module imports."""
    there, module = functions(package), where[0]
    names = {part.id for part in ast.walk(there[where]) if isinstance(part, ast.Name)}
    found = {(module, name) for name in names} | {
        place for name, place in imports(package, module).items() if name in names
    }
    return found & set(there)


def reached(package: str, start: str) -> set[tuple[str, str]]:
    """Functions of a package that a public one calls, however far down; it stops at other public functions."""
    module = PUBLIC[f"{package}.{start}"].__module__
    seen, todo = set(), [(module, start)]
    while todo:
        where = todo.pop()
        if where in seen or (where[1] != start and f"{package}.{where[1]}" in PUBLIC):
            continue
        seen.add(where)
        todo += called(package, where)
    return seen


@pytest.mark.parametrize("name", PUBLIC)
def test_messages_of_a_public_function_name_its_own_arguments(name):
    package, start = name.split(".")
    own = set(inspect.signature(PUBLIC[name]).parameters)
    for where in sorted(reached(package, start)):
        node = functions(package)[where]
        named = arguments_in(texts(node)) - {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
        assert named <= own, f"{name} takes no {sorted(named - own)}, which {'.'.join(where)} names"


@pytest.mark.parametrize("package", BELOW)
def test_messages_below_name_arguments_that_there_are(package):
    for where, node in functions(package).items():
        named = assigned_in(texts(node))
        assert named <= ARGUMENTS, f"nothing takes {sorted(named - ARGUMENTS)}, which {'.'.join(where)} names"


def test_the_messages_are_found():
    assert ("stalign.pp._niches", "niches") in reached("pp", "niches")
    assert len(reached("pl", "domains")) > 5
    assert any(assigned_in(texts(node)) for node in functions("data").values())
