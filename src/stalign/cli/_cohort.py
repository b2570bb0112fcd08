"""Sections in files, one after the other or on a dask cluster: what `stalign embed`, `encode` and `predict` share."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._optional import require
from stalign._validate import message, text_of
from stalign.core.files import whole_file

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from anndata import AnnData
    from spatialdata import SpatialData

    Task = tuple[Path, Path]  # a section, and the file that is made of it
    Done = tuple[Task, str | Exception]

RESUMED = (
    "Files appear whole or not at all. Sections for which that was done with the same options are skipped, so a run "
    "that was stopped goes on where it was."
)
_PATIENCE = "30s"  # for a scheduler that does not answer
_SUFFIXES = (".h5ad", ".zarr")
_NO_RESULT = {"sections", "out", "overwrite", "dask", "device", "debug", "run", "command", "weights", "sha256"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments that all have."""
    parser.add_argument(
        "sections", type=Path, nargs="+", metavar="SECTION",
        help="an h5ad file, a Space Ranger folder, a zarr store of AnnData or SpatialData, or a folder of such",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="file (.h5ad or .zarr), or folder for several sections")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, the section itself included")
    parser.add_argument(
        "--dask", metavar="ADDRESS",
        help="several sections at once on a dask cluster that sees the same files: the address of its scheduler, or "
        "how many workers to start on this machine",
    )  # fmt: skip
    parser.add_argument("--layer", help="layer of the raw counts (default: X)")
    parser.add_argument("--total-counts", help="obs column of total counts, for a table that holds only some genes")
    parser.add_argument("--gene-key", help="var column of gene symbols (default: the names of the genes)")
    parser.add_argument("--library-key", help="obs column that tells several sections of a file apart")
    parser.add_argument("--table-key", help="table of a SpatialData object")
    parser.add_argument("--image-key", help="image of the section")
    parser.add_argument(
        "--mpp", type=float, help="µm per px of the coordinates (default: as stated, or from the spots)"
    )
    parser.add_argument("--device", help="torch device (default: CUDA where there is one)")
    parser.add_argument("--seed", type=int, default=0, help="seed of every random step (default: %(default)s)")


def each(arguments: argparse.Namespace, module: str, mark: str, **facts: str) -> int:
    """Do what a module's `made(data, arguments)` does for each section; one that fails is named, and the others go on.

    `mark` is put into the name of each file, `facts` are noted in it beside the options.
    """
    sections = [found for path in arguments.sections for found in sections_at(path)]
    outputs = outputs_of(sections, arguments.out, mark, alone=arguments.sections == sections[:1])
    noted = json.dumps(
        {
            "command": arguments.command,
            **{name: value for name, value in vars(arguments).items() if name not in _NO_RESULT},
            **facts,  # the sha256 of weights among them, wherever they lie
        },
        sort_keys=True,
        default=str,
    )
    debug = getattr(arguments, "debug", False)
    tasks = list(zip(sections, outputs, strict=True))
    failed, waiting, number = 0, [], 0

    def tell(task: Task, done: str | Exception) -> None:
        nonlocal failed, number
        number += 1
        if isinstance(done, Exception):
            failed += 1
            sys.stderr.write(f"stalign: {task[0]}: {text_of(done)}\n")
        else:
            print(f"{number}/{len(tasks)} {task[1]}: {done}", flush=True)

    for task in tasks:
        try:
            there = _is_done(*task, noted, overwrite=arguments.overwrite)
        except Exception as error:
            if debug:
                raise
            tell(task, error)
        else:
            if there:
                tell(task, "there already")
            else:
                waiting.append(task)
    work = (module, arguments, noted)
    for task, done in _on_cluster(waiting, work, arguments.dask) if arguments.dask else _here(waiting, work):
        tell(task, done)
    return int(failed > 0)


def _here(tasks: list[Task], work: tuple[str, argparse.Namespace, str]) -> Iterator[Done]:
    for task in tasks:
        try:
            yield task, _do(*work, *task)
        except Exception as error:
            if getattr(work[1], "debug", False):
                raise
            yield task, error


def _on_cluster(tasks: list[Task], work: tuple[str, argparse.Namespace, str], address: str) -> Iterator[Done]:
    """Give each section to a worker; a worker that dies is replaced, and another makes its section anew."""
    distributed = require("distributed", purpose="`--dask`")
    with ExitStack() as stack:
        if address.isdecimal():
            local = {"n_workers": int(address), "threads_per_worker": 1, "dashboard_address": None}
            address = stack.enter_context(distributed.LocalCluster(**local))
        client = stack.enter_context(distributed.Client(address, timeout=_PATIENCE))
        whole = [tuple(path.resolve() for path in task) for task in tasks]
        futures = {
            client.submit(_do, *work, *paths, pure=False): task for task, paths in zip(tasks, whole, strict=True)
        }
        try:
            for future in distributed.as_completed(list(futures)):
                error = future.exception()
                if error is not None and getattr(work[1], "debug", False):
                    raise error
                yield futures[future], future.result() if error is None else error
        finally:
            client.cancel(list(futures))


def _do(module: str, arguments: argparse.Namespace, noted: str, section: Path, out: Path) -> str:
    """Make and write what belongs to a section, here or on a worker, and say so."""
    from spatialdata import SpatialData

    start = time.perf_counter()
    data = read(section)
    command = import_module(module)
    made = command.made(data, arguments)
    if isinstance(made, SpatialData) and out.suffix != ".zarr":
        raise ValueError(message("Expected `--out` to end in .zarr for a SpatialData object", found=str(out)))
    tables = list(made.tables.values()) if isinstance(made, SpatialData) else [made]
    for table in tables:
        table.uns.setdefault(Keys.UNS, {})["command"] = noted
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        if isinstance(made, SpatialData):
            made.write(temporary)
        else:
            (made.write_zarr if out.suffix == ".zarr" else made.write_h5ad)(temporary)
        if out.is_dir():  # a folder cannot be replaced by another; this one goes with the temporary one
            out.rename(temporary.with_name("old"))
    return f"{command.DONE} in {time.perf_counter() - start:.0f} s"


def _is_done(section: Path, out: Path, noted: str, *, overwrite: bool) -> bool:
    """Tell whether a file is there and was made with the same options."""
    if overwrite or not out.exists():
        return False
    if out.resolve() == section.resolve():
        raise ValueError(
            message("Expected another file in `--out`", found="the section itself", hint="Pass `--overwrite`")
        )
    before, now = json.loads(_noted_in(out) or "{}"), json.loads(noted)
    if before != now:
        other = [name for name in now if before.get(name) != now[name]]
        found = f"one that was made with another {', '.join(other)}" if before else "one that another program made"
        expected = f"Expected what `stalign {now['command']}` writes with these options in {out}"
        raise ValueError(message(expected, found=found, hint="Pass `--overwrite` or another `--out`"))
    return True


def sections_at(path: Path) -> list[Path]:
    """Find the sections at a path: itself, or what lies in the folder but for what these commands wrote."""
    if not path.exists():
        raise FileNotFoundError(message("Expected a section, or a folder of sections", found=f"nothing at {path}"))
    if _is_section(path):
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = [
        one for one in inside if _is_section(one) and not one.name.startswith(".") and ".stalign" not in one.suffixes
    ]
    if not found:
        raise ValueError(
            message(
                "Expected an h5ad file, a Space Ranger folder, a zarr store, or a folder of such",
                found=str(path),
                available=[one.name for one in inside],
            )
        )
    return found


def outputs_of(sections: list[Path], out: Path | None, mark: str, *, alone: bool) -> list[Path]:
    """Name the file of each section; `out` is that of a section that is given `alone`, or a folder."""
    if out is not None and out.suffix in _SUFFIXES:
        if not alone:
            raise ValueError(message("Expected `--out` to be a folder for several sections", found=str(out)))
        return [out]
    named = []
    for section in sections:
        whole = section.resolve()
        stem = (whole.parent if whole.name == "outs" else whole).name.removesuffix(".h5ad").removesuffix(".zarr")
        suffix = ".zarr" if _is_zarr(section) else ".h5ad"
        named.append((section.parent if out is None else out) / f"{stem}{mark}{suffix}")
    if twice := sorted({str(path) for path in named if named.count(path) > 1}):
        found = f"several that would be written to {', '.join(twice)}"
        raise ValueError(message("Expected sections of different names", found=found, hint="Take them one by one"))
    return named


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (
        path.suffix == ".zarr" or any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    )


def _is_section(path: Path) -> bool:
    spaceranger = (path / "spatial").is_dir() or (path / "outs" / "spatial").is_dir()
    return _is_zarr(path) or spaceranger or (path.is_file() and path.suffix == ".h5ad")


def read(path: Path) -> AnnData | SpatialData:
    """Open a section of any kind."""
    import stalign

    if not _is_zarr(path):
        return stalign.io.read_visium(path) if path.is_dir() else stalign.io.read_h5ad(path)
    import anndata
    import spatialdata
    import zarr

    table = zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata"
    return anndata.read_zarr(path) if table else spatialdata.read_zarr(path)


def _noted_in(path: Path) -> str | None:
    """Read with which options a file was made, and nothing else of it."""
    import h5py
    import zarr
    from anndata.io import read_elem

    opened: Any = nullcontext(zarr.open_group(path, mode="r")) if path.is_dir() else h5py.File(path)
    with opened as store:
        tables = [f"tables/{name}/" for name in store["tables"]] if "tables" in store else [""]
        noted = [place for table in tables if (place := f"{table}uns/{Keys.UNS}/command") in store]
        return str(read_elem(store[noted[0]])) if noted else None
