"""`stalign embed`: embed files of sections, one after the other."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stalign._constants import Keys
from stalign._validate import message, text_of
from stalign.core.files import whole_file

if TYPE_CHECKING:
    import argparse

    from anndata import AnnData
    from spatialdata import SpatialData

    from stalign.models.checkpoint import Checkpoint

HELP = "embed a section, or a folder of sections"
DESCRIPTION = (
    "Write each section with its embedding to a file of its own: NAME.stalign.h5ad, or NAME.stalign.zarr for a zarr "
    "store, beside the section or in --out. Files appear whole or not at all. Sections that were embedded with the "
    "same weights are skipped, so a run that was stopped goes on where it was; the other options are not compared."
)
_MARK = ".stalign"
_SUFFIXES = (".h5ad", ".zarr")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument(
        "sections", type=Path, nargs="+", metavar="SECTION",
        help="an h5ad file, a Space Ranger folder, a zarr store of AnnData or SpatialData, or a folder of such",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="file (.h5ad or .zarr), or folder for several sections")
    parser.add_argument(
        "--weights", default="stalign-mini", help="name, or a checkpoint's folder (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, the section itself included")
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


def run(arguments: argparse.Namespace) -> int:
    """Embed the sections; one that fails is named, and the others go on."""
    from stalign.models.weights import load_weights, of_kind

    sections = [found for path in arguments.sections for found in sections_at(path)]
    outputs = outputs_of(sections, arguments.out, alone=arguments.sections == sections[:1])
    weights = of_kind(load_weights(arguments.weights), "st-align")
    failed = 0
    for number, (section, out) in enumerate(zip(sections, outputs, strict=True), start=1):
        try:
            done = _embed(section, out, weights, arguments)
        except Exception as error:
            if getattr(arguments, "debug", False):
                raise
            failed += 1
            sys.stderr.write(f"stalign: {section}: {text_of(error)}\n")
        else:
            print(f"{number}/{len(sections)} {out}: {done}", flush=True)
    return int(failed > 0)


def sections_at(path: Path) -> list[Path]:
    """Find the sections at a path: itself, or what lies in the folder but for what this command wrote."""
    if not path.exists():
        raise FileNotFoundError(message("Expected a section, or a folder of sections", found=f"nothing at {path}"))
    if _is_section(path):
        return [path]
    inside = sorted(path.iterdir()) if path.is_dir() else []
    found = [
        one for one in inside if _is_section(one) and not one.name.startswith(".") and Path(one.stem).suffix != _MARK
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


def outputs_of(sections: list[Path], out: Path | None, *, alone: bool) -> list[Path]:
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
        named.append((section.parent if out is None else out) / f"{stem}{_MARK}{suffix}")
    if twice := sorted({str(path) for path in named if named.count(path) > 1}):
        found = f"several that would be written to {', '.join(twice)}"
        raise ValueError(message("Expected sections of different names", found=found, hint="Embed them one by one"))
    return named


def _embed(section: Path, out: Path, weights: Checkpoint, arguments: argparse.Namespace) -> str:
    """Embed a section unless that was done, and say what was done."""
    from spatialdata import SpatialData

    import stalign

    if not arguments.overwrite and out.exists():
        if out.resolve() == section.resolve():
            raise ValueError(
                message("Expected another file in `--out`", found="the section itself", hint="Pass `--overwrite`")
            )
        if (noted := _weights_of(out)) != weights.sha256:
            raise ValueError(
                message(
                    f"Expected an embedding with {weights.config.name!r} in {out}",
                    found="one with other weights" if noted else "none",
                    hint="Pass `--overwrite` or another `--out`",
                )
            )
        return "there already"
    start = time.perf_counter()
    data = _read(section)
    if isinstance(data, SpatialData) and out.suffix != ".zarr":
        raise ValueError(message("Expected `--out` to end in .zarr for a SpatialData object", found=str(out)))
    stalign.tl.embed(
        data, weights, layer=arguments.layer, total_counts=arguments.total_counts, gene_key=arguments.gene_key,
        library_key=arguments.library_key, table_key=arguments.table_key, image_key=arguments.image_key,
        mpp=arguments.mpp, device=arguments.device, random_state=arguments.seed,
    )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as temporary:
        if isinstance(data, SpatialData):
            data.write(temporary)
        else:
            (data.write_zarr if out.suffix == ".zarr" else data.write_h5ad)(temporary)
        if out.is_dir():  # a folder cannot be replaced by another; this one goes with the temporary one
            out.rename(temporary.with_name("old"))
    return f"embedded in {time.perf_counter() - start:.0f} s"


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and (
        path.suffix == ".zarr" or any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    )


def _is_section(path: Path) -> bool:
    spaceranger = (path / "spatial").is_dir() or (path / "outs" / "spatial").is_dir()
    return _is_zarr(path) or spaceranger or (path.is_file() and path.suffix == ".h5ad")


def _read(path: Path) -> AnnData | SpatialData:
    import stalign

    if not _is_zarr(path):
        return stalign.io.read_visium(path) if path.is_dir() else stalign.io.read_h5ad(path)
    import anndata
    import spatialdata
    import zarr

    table = zarr.open_group(path, mode="r").attrs.get("encoding-type") == "anndata"
    return anndata.read_zarr(path) if table else spatialdata.read_zarr(path)


def _weights_of(path: Path) -> str | None:
    """Read the sha256 of the weights that a file was embedded with, and nothing else of it."""
    import h5py
    import zarr
    from anndata.io import read_elem

    opened: Any = nullcontext(zarr.open_group(path, mode="r")) if path.is_dir() else h5py.File(path)
    with opened as store:
        tables = [f"tables/{name}/" for name in store["tables"]] if "tables" in store else [""]
        places = [f"{table}uns/{Keys.UNS}/embed/{at}" for table in tables for at in ("params/sha256", "sha256")]
        noted = [place for place in places if place in store]  # without `params`, as earlier versions wrote it
        return str(read_elem(store[noted[0]])) if noted else None
