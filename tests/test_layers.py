"""The arrows of the house point down, and slot names are spelled in one place."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import stalign
from stalign._constants import Keys

if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT = Path(stalign.__file__).parent
_FILES = sorted(_ROOT.rglob("*.py"))
_BASE = {
    "_constants",
    "_files",
    "_validate",
    "_settings",
    "_several",
    "_threads",
    "_optional",
    "settings",
    "__version__",
}
_ABOVE_BASE = {
    "core": set(),
    "models": set(),
    "encoders": {"core", "models"},
    "data": {"core", "models"},
    "io": {"core", "data"},
    "datasets": {"core", "data", "io"},
    "pp": {"core", "data"},
    "tl": {"core", "models", "encoders", "data", "pp"},
    "pl": {"core", "data"},
    "train": {"core", "models", "encoders", "data", "io", "datasets", "pp", "tl"},
    "cli": {"core", "models", "encoders", "data", "io", "datasets", "pp", "tl", "pl", "train"},
    "__main__": {"cli"},
}
_CONTAINERS = {"anndata", "spatialdata", "scanpy", "squidpy"}
_FORBIDDEN = {
    "core": _CONTAINERS | {"torch", "timm", "lightning"},
    "models": _CONTAINERS | {"lightning"},
    "encoders": {"anndata", "spatialdata", "squidpy", "lightning"},
    "data": {"scanpy", "squidpy", "lightning"},
    "pp": {"torch", "timm", "scanpy", "squidpy", "lightning"},
    "pl": {"torch", "timm", "lightning"},
    "tl": {"lightning"},
}
_TORCH = {"models", "encoders", "train"}  # files with networks; test_import_budget.py sees that they are loaded late
_HEAVY = {"torch", "timm", "scanpy", "squidpy", "spatialdata", "lightning"}


@dataclass(frozen=True)
class Import:
    """A module imported somewhere, and whether that happens as the file is imported."""

    name: str
    line: int
    at_import: bool


def imports(tree: ast.AST) -> list[Import]:
    """Every import of a file, those by `import_module` and `require` of a literal name included."""
    found: list[Import] = []

    def walk(node: ast.AST, *, at_import: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.body:
                walk(child, at_import=False)
            for child in node.orelse:
                walk(child, at_import=at_import)
            return
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "stalign" else [module]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in {"import_module", "require", "__import__"} and isinstance(node.args[0].value, str):
                names = [node.args[0].value]
        found.extend(Import(name, node.lineno, at_import) for name in names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, at_import=at_import and not inside)

    walk(tree, at_import=True)
    return found


def layer_of(path: Path) -> str:
    return path.relative_to(_ROOT).parts[0].removesuffix(".py")


def violations(path: Path, tree: ast.AST) -> list[str]:
    layer, found = layer_of(path), []
    for item in imports(tree):
        parts = item.name.split(".")
        if parts[0] == "stalign" and layer in _ABOVE_BASE:
            target = parts[1] if len(parts) > 1 else "the package itself"
            if layer == "cli" and len(parts) == 1:
                continue
            if target not in _BASE | _ABOVE_BASE[layer] | {layer}:
                found.append(f"{path}:{item.line}: {layer} imports {target}")
        elif parts[0] == "stalign" and layer in _BASE and (len(parts) < 2 or parts[1] not in _BASE):
            found.append(f"{path}:{item.line}: {layer} imports {item.name}")
        if parts[0] in _FORBIDDEN.get(layer, set()):
            found.append(f"{path}:{item.line}: {layer} imports {parts[0]}")
        if parts[0] in _HEAVY and item.at_import and layer not in _TORCH:
            found.append(f"{path}:{item.line}: {layer} imports {parts[0]} outside a function")
    return found


def slot_names() -> set[str]:
    return {value for name, value in vars(Keys).items() if name.isupper()}


def spelled(tree: ast.AST) -> list[int]:
    """Lines on which a slot name is spelled: any that is no plain word, and plain words as keys of a slot."""
    plain = {name for name in slot_names() if name.isalpha()}
    slots = {"obs", "obsm", "obsp", "uns"}
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in slot_names() - plain:
            lines.append(node.lineno)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr in slots:
            key: ast.AST = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner = node.func.value
            if not (isinstance(owner, ast.Attribute) and owner.attr in slots):
                continue
            key = node.args[0]
        elif isinstance(node, ast.Compare) and isinstance(node.comparators[0], ast.Attribute):
            if node.comparators[0].attr not in slots:
                continue
            key = node.left
        else:
            continue
        if isinstance(key, ast.Constant) and key.value in plain:
            lines.append(key.lineno)
    return lines


@pytest.mark.parametrize("layer", sorted(_ABOVE_BASE | dict.fromkeys(p.stem for p in _ROOT.glob("_*.py"))))
def test_imports_point_down(layer):
    files = [path for path in _FILES if layer_of(path) == layer]
    assert files
    assert [line for path in files for line in violations(path, ast.parse(path.read_text(encoding="utf-8")))] == []


def test_every_folder_has_a_place_in_the_house():
    assert {path.name for path in _ROOT.iterdir() if (path / "__init__.py").is_file()} == set(_ABOVE_BASE) - {
        "__main__"
    }


def test_nothing_but_its_command_line_imports_train():
    for path in _FILES:
        if layer_of(path) in {"train", "cli", "__init__"}:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [item for item in imports(tree) if item.name.startswith("stalign.train")], path


def test_only_constants_spells_slot_names():
    found = {
        f"{path}:{line}"
        for path in _FILES
        if path.name != "_constants.py"
        for line in spelled(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert sorted(found) == []


def _modules() -> dict[str, Path]:
    return {
        ".".join(("stalign", *path.relative_to(_ROOT).with_suffix("").parts)): path
        for path in _FILES
        if path.name != "__init__.py"
    }


def _imported(path: Path, known: Iterable[str]) -> set[str]:
    """Modules of the package that a file imports, anywhere and for types too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names & set(known)


def test_imports_have_no_circles():
    modules = _modules()
    graph = {name: _imported(path, modules) for name, path in modules.items()}
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # raises CycleError, which names them


def test_no_package_imports_private_modules_of_another():
    modules = _modules()
    private = {name for name in modules if any(part.startswith("_") for part in name.split(".")[2:])}
    found = {
        f"{name} imports {other}"
        for name, path in modules.items()
        for other in _imported(path, private)
        if other.split(".")[1] != name.split(".")[1]
    }
    assert sorted(found) == []


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        ("core", "from anndata import AnnData"),
        ("core", "def f():\n    import torch"),
        ("core", "from stalign.data.table import table_of"),
        ("core", "from stalign import pp"),
        ("models", "if TYPE_CHECKING:\n    from spatialdata import SpatialData"),
        ("pl", "def f():\n    import torch.nn"),
        ("pl", "from stalign import tl"),
        ("pp", "require('squidpy', purpose='x')"),
        ("tl", "from stalign.train import finetune"),
        ("tl", "import torch"),
        ("data", "class A:\n    from spatialdata import SpatialData"),
        ("_validate", "from stalign.core import niches"),
    ],
)
def test_a_violation_is_found(layer, code):
    assert violations(_ROOT / layer / "x.py", ast.parse(code))


@pytest.mark.parametrize(
    ("layer", "code"),
    [
        ("models", "import torch"),
        ("tl", "def f():\n    import torch"),
        ("pp", "if TYPE_CHECKING:\n    from spatialdata import SpatialData"),
        ("pp", "from stalign._constants import Keys\nfrom stalign.core.niches import nearest"),
    ],
)
def test_what_is_allowed_is_no_violation(layer, code):
    assert not violations(_ROOT / layer / "x.py", ast.parse(code))


@pytest.mark.parametrize(
    "code", ["a.obsm['spatial']", "a.uns.get('stalign', {})", "'niches' in a.uns", "key = 'X_stalign'"]
)
def test_a_spelled_slot_name_is_found(code):
    assert spelled(ast.parse(code))


def test_words_that_are_no_keys_are_left_alone():
    assert not spelled(ast.parse("path / 'spatial'\nlogging.getLogger('stalign')\nuns = {'patches': 1}"))
