"""Lines, sizes, complexity and import circles of the package, at one or several commits.

python benchmarks/house.py [REVISION ...] [--out benchmarks/results/house.md]

Without a revision, the files as they are. Needs the standard library and git.
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import subprocess
import tarfile
import tokenize
from collections import defaultdict
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "src/stalign"
WORST = 10
_NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
    tokenize.ENCODING,
}  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case)


@dataclass
class Measured:
    """One revision: lines by package, files by length, functions by length and complexity, imports by module."""

    code: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    docs: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    files: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    complexity: dict[str, int] = field(default_factory=dict)
    imports: dict[str, set[str]] = field(default_factory=dict)


def sources(revision: str | None) -> dict[str, str]:
    """Read the package's files at a revision, or as they are; names begin below src."""
    if revision is None:
        return {
            str(path.relative_to(ROOT / "src")): path.read_text() for path in sorted((ROOT / PACKAGE).rglob("*.py"))
        }
    archive = subprocess.run(["git", "archive", revision, PACKAGE], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".py"))
        return {name.removeprefix("src/"): tar.extractfile(name).read().decode() for name in names}


def measure(files: dict[str, str]) -> Measured:
    """Measure a revision."""
    found = Measured()
    modules = {module(name) for name in files}
    for name, text in files.items():
        tree = ast.parse(text)
        parts = name.split("/")
        package = parts[1] if len(parts) > 2 else "(top)"
        docs = docstrings(tree)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        lines = {line for t in tokens if t.type not in _NO_CODE for line in range(t.start[0], t.end[0] + 1)}
        found.code[package] += len(lines - docs)
        found.docs[package] += len(docs)
        found.files[name] = len(text.splitlines())
        found.imports[module(name)] = imported(tree, modules)
        for where, function in functions(tree, name):
            found.lengths[where] = len((lines - docs) & set(range(function.lineno, function.end_lineno + 1)))
            found.complexity[where] = complexity(function)
    return found


def module(name: str) -> str:
    """Name the module of a file."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def docstrings(tree: ast.Module) -> set[int]:
    """List the lines of docstrings."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                lines |= set(range(first.lineno, first.end_lineno + 1))
    return lines


def functions(tree: ast.AST, where: str):
    """Go through functions and methods by their full name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _FUNCTIONS):
            yield f"{where}:{node.name}", node
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from functions(node, f"{where}:{node.name}")


def complexity(function: ast.AST) -> int:
    """Count the paths through a function as McCabe does, those of functions within it apart.

    1, and 1 for each branch, loop, handler, assertion, `and` or `or`, comprehension and condition in one.
    """
    n, todo = 1, list(ast.iter_child_nodes(function))
    while todo:
        node = todo.pop()
        if isinstance(node, _FUNCTIONS):
            continue
        if isinstance(node, _BRANCHES):
            n += 1
        elif isinstance(node, ast.BoolOp):
            n += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            n += 1 + len(node.ifs)
        todo.extend(ast.iter_child_nodes(node))
    return n


def imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """List the package's modules that are imported with this one, not in functions or for types alone."""
    found, todo = set(), list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo.extend(node.orelse)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{name.name}" for name in node.names}
            found |= {one if one in modules else node.module for one in inner}
        elif not isinstance(node, _FUNCTIONS):
            todo.extend(ast.iter_child_nodes(node))
    return found & modules


def circle(imports: dict[str, set[str]]) -> str:
    """Name a circle of imports, or say that there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return " ← ".join(error.args[1])
    return "none"


def report(found: dict[str, Measured]) -> str:
    """Write the tables in Markdown."""
    packages = sorted({package for one in found.values() for package in one.code})
    out = ["| lines of code / of docstrings | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for package in packages:
        cells = [f"{one.code[package]:,} / {one.docs[package]:,}" for one in found.values()]
        out.append(f"| {package} | " + " | ".join(cells) + " |")
    rows = {
        "together": lambda one: f"{sum(one.code.values()):,} / {sum(one.docs.values()):,}",
        "files": lambda one: f"{len(one.files)}",
        "lines a file, median and most": lambda one: sizes(one.files),
        "lines of code a function, median and most": lambda one: sizes(one.lengths),
        "complexity, median and most": lambda one: sizes(one.complexity),
        "functions above 15": lambda one: f"{sum(n > 15 for n in one.complexity.values())}",
        "circles of imports": lambda one: circle(one.imports),
    }
    out += [f"| {name} | " + " | ".join(map(row, found.values())) + " |" for name, row in rows.items()]
    for name, one in found.items():
        out += [
            "",
            f"Most complex functions, {name}:",
            "",
            "| function | complexity | lines of code |",
            "|---|---:|---:|",
        ]
        worst = sorted(one.complexity, key=lambda where: (-one.complexity[where], where))[:WORST]
        out += [f"| `{where}` | {one.complexity[where]} | {one.lengths[where]} |" for where in worst]
    return "\n".join(out) + "\n"


def sizes(numbers: dict[str, int]) -> str:
    """Say the median and the largest."""
    largest = max(numbers, key=lambda name: numbers[name])
    return f"{statistics.median(numbers.values()):g}, {numbers[largest]} (`{largest.removeprefix('stalign/')}`)"


def main() -> None:
    """Measure the revisions and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("revisions", nargs="*", help="commits as NAME=REVISION or REVISION; the files as they are")
    parser.add_argument("--out", type=Path, help="Markdown file, whose text below `<!-- tables -->` is replaced")
    given = parser.parse_args()
    found = {}
    for revision in given.revisions or ["now="]:
        name, _, commit = revision.rpartition("=")
        found[name or commit] = measure(sources(commit or None))
    text = report(found)
    if given.out is None:
        print(text)
        return
    head, mark = given.out.read_text().split("<!-- tables -->")[0] if given.out.is_file() else "", "<!-- tables -->\n\n"
    given.out.write_text(head + mark + text)


if __name__ == "__main__":
    main()
